"""What scripts ask an engine about its config, under DeepSpeed's names."""

from __future__ import annotations

from typing import Any, Optional

import torch

from hydrofoil import _C
from hydrofoil._config import config_dict
from hydrofoil.errors import InvalidArgument

__all__ = ["ConfigGetters"]


class ConfigGetters:
    """Methods of the engine that read its options."""

    options: _C.EngineOptions
    optimizer: Any
    core: _C.Engine
    config: Any
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
            raise InvalidArgument(f"set_train_batch_size: got {train_batch_size}, expected a multiple of {micro * self.world_size}: micro batches of "
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

    def checkpoint_tag_validation_enabled(self) -> bool:
        return str(self._configured("checkpoint.tag_validation", "Warn")).lower() != "ignore"

    def checkpoint_tag_validation_fail(self) -> bool:
        return str(self._configured("checkpoint.tag_validation", "Warn")).lower() == "fail"

    def is_first_weights_partition_group(self) -> bool:
        return self.zero_optimization_partition_weights()

    def dynamic_loss_scale_args(self) -> dict[str, float]:
        """DeepSpeed's names for the settings of the scaler."""
        return {"init_scale": self.initial_dynamic_scale(), "scale_window": self._configured("fp16.loss_scale_window", 1000),  # type: ignore[attr-defined]
                "min_scale": self._configured("fp16.min_loss_scale", 1), "delayed_shift": self._configured("fp16.hysteresis", 2),
                "consecutive_hysteresis": self._configured("fp16.consecutive_hysteresis", False)}

    def _configured(self, path: str, default: Any) -> Any:
        """What the ds_config says at `path` ("zero_optimization.reduce_bucket_size"), or the default."""
        value: Any = self._config_dict()
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None or value == "auto" else value

    def _config_dict(self) -> dict[str, Any]:
        if "_config_read" not in self.__dict__:
            self.__dict__["_config_read"] = config_dict(self.config)
        return self.__dict__["_config_read"]


# Getters of what is not built here: off, whatever else a config holds (an active key would have been an error at initialize).
_OFF: dict[str, Any] = {
    **dict.fromkeys((
        "checkpoint_serialization_enabled", "checkpoint_writer_enabled", "elasticity_enabled", "is_elastic_model_parallel_supported", "pld_enabled",
        "eigenvalue_enabled", "curriculum_enabled_legacy", "data_efficiency_enabled", "data_sampling_enabled", "curriculum_learning_enabled",
        "random_ltd_enabled", "autotuning_enabled", "is_deepcompile_enabled", "is_deepcompile_active", "compile_zero_optimization_stage",
        "zero_allgather_sequential", "autotuning_profile_model_info", "sparse_gradients_enabled", "optimizer_legacy_fusion",
        "quantize_training", "zero_force_ds_cpu_optimizer", "zero_use_cpu_optimizer", "zero_cpu_offload", "super_offload", "compile_autosp",
        "compile_autotp", "uses_parallelization_pass_only", "zero_multi_rank_bucket_allreduce", "zero_nvme_offload_optimizer", "zero_legacy_stage1",
        "zero_save_muon_momentum_buffer_in_memory", "graph_harvesting", "fp16_master_weights_and_gradients", "bf16_master_weights_and_gradients",
        "load_universal_checkpoint", "zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients",
        "is_sanity_checks_enabled"), False),
    **dict.fromkeys(("pld_params", "pld_theta", "pld_gamma", "get_pld_theta", "curriculum_params_legacy", "autotuning_metric_path", "autotuning_model_info_path", "amp_params",
                     "zero_offload_optimizer", "zero_offload_param", "zeropp_loco_param", "swap_tensor_config", "zenflow_config",
                     "tensor_parallel_config", "random_ltd_initialize"), None),
    **dict.fromkeys(("data_efficiency_config", "data_sampling_config", "curriculum_learning_config", "random_ltd_config", "aio_config"), {}),
    "autotuning_start_profile_step": 3, "autotuning_end_profile_step": 5, "autotuning_metric": "throughput", "managed_gradient_accumulation": True,
    "zero_compute_grad_norm": True, "zero_parameter_alignment": None, "autotp_size": 0, "mics_shard_size": -1, "zero_hpz_partition_size": 1, "zero_partial_offload": 1.0, "cpuadam_cores_perc": 0.9,
}
# Getters of keys that the engine accepts (docs/config.md says what each does here): as configured, or DeepSpeed's default.
_CONFIGURED: dict[str, tuple[str, Any]] = {
    "flops_profiler_recompute_fwd_factor": ("flops_profiler.recompute_fwd_factor", 0.0),
    "optimizer_params": ("optimizer.params", None), "scheduler_params": ("scheduler.params", None),
    "zero_allow_untested_optimizer": ("zero_allow_untested_optimizer", False), "zero_reduce_scatter": ("zero_optimization.reduce_scatter", True),
    "zero_overlap_comm": ("zero_optimization.overlap_comm", None), "zero_sub_group_size": ("zero_optimization.sub_group_size", 1_000_000_000),
    "zero_reduce_bucket_size": ("zero_optimization.reduce_bucket_size", 500_000_000),
    "zero_allgather_bucket_size": ("zero_optimization.allgather_bucket_size", 500_000_000),
    "zero_contiguous_gradients": ("zero_optimization.contiguous_gradients", True),
    "zero_load_from_fp32_weights": ("zero_optimization.load_from_fp32_weights", True), "zero_elastic_checkpoint": ("zero_optimization.elastic_checkpoint", False),
    "zero_max_live_parameters": ("zero_optimization.stage3_max_live_parameters", 1_000_000_000),
    "zero_max_reuse_distance": ("zero_optimization.stage3_max_reuse_distance", 1_000_000_000),
    "zero_prefetch_bucket_size": ("zero_optimization.stage3_prefetch_bucket_size", 50_000_000),
    "zero_module_granularity_threshold": ("zero_optimization.stage3_module_granularity_threshold", 0),
    "zero_param_persistence_threshold": ("zero_optimization.stage3_param_persistence_threshold", 100_000),
    "zero_model_persistence_threshold": ("zero_optimization.stage3_model_persistence_threshold", 2**63 - 1),
    "zero_ignore_unused_parameters": ("zero_optimization.ignore_unused_parameters", True), "bf16_optimizer_states": ("bf16.bf16_optimizer_states", False),
    "torch_autocast_dtype": ("torch_autocast.dtype", None),
    "torch_autocast_lower_precision_safe_modules": ("torch_autocast.lower_precision_safe_modules", None),
    "use_node_local_storage": ("checkpoint.use_node_local_storage", False),
    "zero_allgather_partitions": ("zero_optimization.allgather_partitions", True),
    "zero_round_robin_gradients": ("zero_optimization.round_robin_gradients", False),
    "zero_log_trace_cache_warnings": ("zero_optimization.log_trace_cache_warnings", False),
    "initial_dynamic_scale": ("fp16.initial_scale_power", 16), "log_level": ("log_level", None),
}


def _constant(name: str, value: Any) -> Any:
    def getter(self: ConfigGetters) -> Any:
        return value.copy() if isinstance(value, dict) else value

    getter.__name__ = name
    return getter


def _reader(name: str, path: str, default: Any) -> Any:
    def getter(self: ConfigGetters) -> Any:
        value = self._configured(path, default)
        return 2**value if name == "initial_dynamic_scale" else value

    getter.__name__ = name
    return getter


for _name, _value in _OFF.items():
    setattr(ConfigGetters, _name, _constant(_name, _value))
for _name, (_path, _default) in _CONFIGURED.items():
    setattr(ConfigGetters, _name, _reader(_name, _path, _default))
