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
    global_rank: int

    def train_batch_size(self) -> int:
        return self.options.train_batch_size

    def train_micro_batch_size_per_gpu(self) -> int:
        return self.options.train_micro_batch_size_per_gpu

    def gradient_accumulation_steps(self) -> int:
        return self.options.gradient_accumulation_steps

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
