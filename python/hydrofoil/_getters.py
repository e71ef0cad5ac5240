"""What scripts ask an engine about its config, under DeepSpeed's names."""

from __future__ import annotations

from typing import Any, Optional

import torch

from hydrofoil import _C

__all__ = ["ConfigGetters"]


class ConfigGetters:
    """Methods of the engine that read its options."""

    options: _C.EngineOptions
    optimizer: Any
    core: _C.Engine
    world_size: int
    global_rank: int

    def train_batch_size(self) -> int:
        return self.core.batch_sizes[0]

    def train_micro_batch_size_per_gpu(self) -> int:
        return self.core.batch_sizes[1]

    def gradient_accumulation_steps(self) -> int:
        return self.core.batch_sizes[2]

    def set_train_batch_size(self, train_batch_size: int) -> None:
        """Changes how many micro batches a step takes, from the next step on; ValueError where the size is no whole number of them."""
        micro = self.train_micro_batch_size_per_gpu()
        steps, rest = divmod(train_batch_size, micro * self.world_size)
        if rest or steps < 1:
            raise ValueError(f"set_train_batch_size: got {train_batch_size}, expected a multiple of {micro * self.world_size}: micro batches of "
                             f"{micro} on {self.world_size} ranks")
        self.core.set_batch_sizes(micro, steps)

    def set_train_micro_batch_size(self, micro_batch_size: int) -> None:
        """Changes the size of a micro batch; the accumulation steps stay."""
        self.core.set_batch_sizes(micro_batch_size, self.gradient_accumulation_steps())

    def get_batch_info(self) -> tuple[int, int, int]:
        return self.train_batch_size(), self.train_micro_batch_size_per_gpu(), self.gradient_accumulation_steps()

    def gradient_clipping(self) -> float:
        return self.options.gradient_clipping

    def gradient_predivide_factor(self) -> float:
        return self.options.gradient_predivide_factor

    def postscale_gradients(self) -> bool:
        return not self.options.prescale_gradients

    def steps_per_print(self) -> Optional[int]:
        return self.options.steps_per_print

    def wall_clock_breakdown(self) -> bool:
        return self.options.wall_clock_breakdown

    def memory_breakdown(self) -> bool:
        return self.options.memory_breakdown

    def dump_state(self) -> bool:
        return self.options.dump_state

    def flops_profiler_enabled(self) -> bool:
        return self.options.flops_profiler.enabled

    def flops_profiler_profile_step(self) -> int:
        return self.options.flops_profiler.profile_step

    def flops_profiler_module_depth(self) -> int:
        return self.options.flops_profiler.module_depth

    def flops_profiler_top_modules(self) -> int:
        return self.options.flops_profiler.top_modules

    def flops_profiler_detailed(self) -> bool:
        return self.options.flops_profiler.detailed

    def flops_profiler_output_file(self) -> Optional[str]:
        return self.options.flops_profiler.output_file

    def dataloader_drop_last(self) -> bool:
        return self.options.dataloader_drop_last

    def optimizer_name(self) -> Optional[str]:
        return self.options.optimizer.type or None

    def scheduler_name(self) -> Optional[str]:
        return self.options.scheduler.type or None

    def zero_optimization(self) -> bool:
        return self.options.zero_stage > 0

    def zero_optimization_stage(self) -> int:
        return self.options.zero_stage

    def zero_optimization_partition_gradients(self) -> bool:
        return self.options.zero_stage >= 2

    def zero_optimization_partition_weights(self) -> bool:
        return self.options.zero_stage >= 3

    def zero_gather_16bit_weights_on_model_save(self) -> bool:
        return self.options.gather_16bit_weights_on_model_save

    def fp16_enabled(self) -> bool:
        return self.options.fp16_enabled

    def bfloat16_enabled(self) -> bool:
        return self.options.bf16_enabled

    def fp16_auto_cast(self) -> bool:
        return self.options.fp16_auto_cast

    def torch_autocast_enabled(self) -> bool:
        return self.options.autocast_enabled

    def amp_enabled(self) -> bool:
        return False

    def dynamic_loss_scale(self) -> bool:
        return self.core.dynamic_loss_scale

    def get_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_mom(self) -> list[Any]:
        return [group.get("betas", group.get("momentum")) for group in self.optimizer.param_groups]

    def get_data_parallel_rank(self) -> int:
        return self.global_rank

    def get_model_parallel_rank(self) -> int:
        return 0

    def get_tensor_parallel_rank(self) -> int:
        return 0

    def get_data_types(self) -> tuple[torch.dtype, torch.dtype]:
        """dtypes of the model and of gradient accumulation."""
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return dtypes[self.options.model_dtype], dtypes[self.options.grad_accum_dtype]
