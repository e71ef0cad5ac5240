"""The rest of DeepSpeed's names for an engine: what has a meaning here does its work, a feature that is not built says so."""

from __future__ import annotations

import gc
from typing import Any, Callable, Iterable, Optional

import torch

from hydrofoil import _C, comm
from hydrofoil._config import DTYPES
from hydrofoil.config import OffloadStateTypeEnum
from hydrofoil.errors import InvalidArgument

__all__ = ["NOT_BUILT_ATTRIBUTES", "EngineNames", "LossScale"]


class LossScale(float):
    """The loss scale of now. Called, as DeepSpeed's method is, it gives the configured one (0: dynamic)."""

    configured: float

    def __call__(self) -> float:
        return self.configured


class EngineNames:
    """Methods and attributes of DeepSpeed's engine that programs ask for beside the loop."""

    options: _C.EngineOptions
    core: _C.Engine
    device: torch.device
    optimizer: Any

    mpu = mesh_device = flops_profiler = quantizer = compression_scheduler = None
    has_moe_layers, num_experts = False, ()
    enable_backward_allreduce = warn_unscaled_loss = True
    loaded_checkpoint_mp_world_size: Optional[int] = None  # set by load_checkpoint
    loaded_checkpoint_dp_world_size: Optional[int] = None

    @property
    def gradient_average(self) -> bool:
        return self._configured("gradient_allreduce_op", "mean") != "sum"  # type: ignore[attr-defined]

    @property
    def data_parallel_group(self) -> Any:
        return comm.get_world_group()

    seq_data_parallel_group = data_parallel_group

    @property
    def gas_boundary_ctr(self) -> int:
        """Accumulation boundaries that were passed."""
        return self.core.counters.global_steps

    @property
    def loss_scale(self) -> LossScale:
        scale = LossScale(self.core.loss_scale)
        scale.configured = float(self._configured("fp16.loss_scale", 0.0))  # type: ignore[attr-defined]
        return scale

    cur_scale = loss_scale

    @property
    def communication_data_type(self) -> torch.dtype:
        """The dtype in which gradients travel, as the config asks for it; without a word there, the model's."""
        return DTYPES[self._configured("communication_data_type", None) or self.options.model_dtype]  # type: ignore[attr-defined]

    # -- reduction: every backward or step does it ------------------------------------------------------------------------
    def allreduce_gradients(self, bucket_size: int = 0) -> None:
        """Nothing to do: backward() and step() reduce, each gradient once."""

    def clip_fp32_gradients(self) -> None:
        """Nothing to do: step() clips by gradient_clipping."""

    # -- moving states ----------------------------------------------------------------------------------------------------
    def offload_states(self, include: Optional[Iterable[Any]] = None, device: Any = "cpu", pin_memory: bool = True, non_blocking: bool = False) -> None:
        """On CPU ranks the states are in the memory of the host already; elsewhere NotImplementedError."""
        self._check_offload("offload_states", include, device)

    def reload_states(self, non_blocking: bool = False) -> None:
        self._check_offload("reload_states", None, "cpu")

    def _check_offload(self, function: str, include: Optional[Iterable[Any]], device: Any) -> None:
        kinds = [kind.value for kind in OffloadStateTypeEnum]
        for name in (getattr(item, "value", item) for item in include or ()):
            if name not in kinds:
                raise InvalidArgument(f"{function}: include: got {name!r}, expected some of {', '.join(kinds)}")
        target = getattr(device, "value", str(device))
        if self.device.type != "cpu" or target != "cpu":
            raise NotImplementedError(f"{function}: from {self.device.type} to {target}: offload is not built in Hydrofoil yet")

    # -- torch.compile ----------------------------------------------------------------------------------------------------
    def compile(self, backend: Any = "inductor", compile_kwargs: Optional[dict[str, Any]] = None, schedule: Any = None,
                compiled_autograd_enabled: bool = False) -> None:
        """torch.compile of the engine's call."""
        if schedule is not None or compiled_autograd_enabled:
            raise NotImplementedError("compile: schedule and compiled_autograd_enabled: DeepCompile is not built in Hydrofoil yet")
        torch.nn.Module.compile(self, backend=backend, **(compile_kwargs or {}))  # type: ignore[arg-type]

    @property
    def is_compiled(self) -> bool:
        return self.__dict__.get("_compiled_call_impl") is not None

    def get_compile_time(self) -> list[Any]:
        """Times of DeepCompile's passes: none."""
        return []

    # -- small things -----------------------------------------------------------------------------------------------------
    def get_type(self) -> list[Any]:
        return [group.get("type", 0.0) for group in self.optimizer.param_groups]

    def collect_python_gc(self) -> int:
        return gc.collect()

    @staticmethod
    def is_map_style_dataset(obj: Any) -> bool:
        return hasattr(obj, "__getitem__") and hasattr(obj, "__len__")

    @staticmethod
    def is_iterable_style_dataset(obj: Any) -> bool:
        return isinstance(obj, torch.utils.data.IterableDataset)


# What belongs to features that are not built; the methods raise when they are called.
_NOT_BUILT = {
    **dict.fromkeys(("register_compile_pass", "get_deepcompile_backend", "get_deepspeed_compile_backend"), "DeepCompile"),
    "get_autosp_backend": "sequence parallelism (AutoSP)", "get_autotp_backend": "tensor parallelism", "load_moe_state_dict": "mixture of experts (MoE)",
    **dict.fromkeys(("set_custom_curriculum_learning_schedule", "set_data_post_process_func"), "data efficiency (curriculum learning, random LTD)"),
    **dict.fromkeys(("sparse_allreduce", "sparse_allreduce_bucket", "sparse_allreduce_no_retain", "sparse_all_gather"), "sparse gradients"),
    **dict.fromkeys(("allreduce_bucket", "allreduce_and_copy", "allreduce_no_retain", "buffered_allreduce_fallback", "all_gather_scalar",
                     "print_forward_breakdown", "get_optimizer_configuration"), "this step inside DeepSpeed's own engine"),
}
# Attributes that exist in DeepSpeed while their feature is on; the engine's __getattr__ tells of them.
NOT_BUILT_ATTRIBUTES = {
    "expert_parallel_group": "mixture of experts (MoE)", "curriculum_scheduler_legacy": "curriculum learning", "random_ltd_scheduler": "random LTD",
    "progressive_layer_drop": "progressive layer drop", "checkpoint_engine": "DeepSpeed's checkpoint engine (checkpoints are safetensors and JSON)",
    "losses": "DeepSpeed's sum of losses", "eigenvalue": "eigenvalues for quantization",
}


def _method(name: str, feature: str) -> Callable[..., Any]:
    def method(self: Any, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{name}: {feature} is not built in Hydrofoil yet")

    method.__name__ = name
    return method


for _name, _feature in _NOT_BUILT.items():
    setattr(EngineNames, _name, _method(_name, _feature))
