"""DeepSpeed's names for what an optimizer wrapper knows beside torch.optim's interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, Iterator, Optional

import torch

from hydrofoil import comm
from hydrofoil.errors import NotBuiltAttribute

if TYPE_CHECKING:
    from hydrofoil.engine import Engine

__all__ = ["OptimizerNames"]


class _ParameterOffload:
    """What programs look at that take DeepSpeed's stage 3 hooks off while all parameters are gathered (TRL's generation).

    Here a forward of gathered parameters gathers nothing, so there is nothing to take off.
    """

    def __init__(self) -> None:
        self.module = self
        self.forward_hooks: list[Any] = []
        self.backward_hooks: list[Any] = []

    def named_parameters(self, recurse: bool = True) -> Iterator[Any]:
        return iter(())

    ds_external_parameters = named_parameters

    def _register_deepspeed_module(self, module: Any) -> None:
        pass


class _LossScaler:
    """`optimizer.loss_scaler`: the engine's scale."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    @property
    def loss_scale(self) -> float:
        return self._engine.core.loss_scale

    cur_scale = loss_scale

    @property
    def dynamic(self) -> bool:
        return self._engine.core.dynamic_loss_scale

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        return self._engine.scale(loss)


# Buffers of DeepSpeed's layout, which programs look for by hasattr().
_FLAT_BUFFERS = frozenset((
    "averaged_gradients", "bit16_groups_flat", "fp16_partitioned_groups_flat", "fp32_groups", "fp32_groups_flat", "fp32_groups_flat_partition",
    "fp32_partitioned_groups_flat", "get_fp32_grad_partitions", "ipg_buckets", "partition_size", "reduction_stream", "single_partition_of_fp32_groups",
    "sub_group_to_group_id"))


class OptimizerNames:
    """Attributes and methods of the optimizer that read the engine."""

    _engine: "Engine"
    param_groups: list[dict[str, Any]]

    def __getattr__(self, name: str) -> Any:
        if name in _FLAT_BUFFERS:
            raise NotBuiltAttribute(f"optimizer.{name}: DeepSpeed's flat buffers do not exist in Hydrofoil; read and write with hydrofoil.utils.safe_get_* and "
                                    "safe_set_*, by parameter")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def loss_scale(self) -> float:
        return self._engine.core.loss_scale

    cur_scale = loss_scale

    @property
    def parameter_offload(self) -> _ParameterOffload:
        if self._engine.zero_optimization_stage() < 3:
            raise AttributeError("parameter_offload: of stage 3 only")
        return _ParameterOffload()

    @property
    def overflow(self) -> bool:
        return self._engine.core.overflow

    @property
    def dynamic_loss_scale(self) -> bool:
        return self._engine.core.dynamic_loss_scale

    @property
    def _global_grad_norm(self) -> Optional[float]:
        return self._engine.core.grad_norm

    @property
    def clip_grad(self) -> float:
        return self._engine.options.gradient_clipping

    def override_loss_scale(self, loss_scale: float) -> None:
        self._engine.core.loss_scale = loss_scale

    def refresh_fp32_params(self) -> None:
        """Reads the parameters into the fp32 masters again; needed after writes through `.data`."""
        self._engine.core.refresh_masters()

    def get_lr(self) -> list[float]:
        return [group["lr"] for group in self.param_groups]

    def set_lr(self, lr: float) -> None:
        for group in self.param_groups:
            group["lr"] = lr

    # -- groups and ranks ----------------------------------------------------------------------------------------------
    @property
    def bit16_groups(self) -> list[list[torch.Tensor]]:
        """The model's parameters by group."""
        return [list(group["params"]) for group in self.param_groups]

    fp16_groups = bf16_groups = bit16_groups

    @property
    def dp_process_group(self) -> Any:
        return comm.get_world_group()

    @property
    def real_dp_process_group(self) -> list[Any]:
        return [comm.get_world_group() for _ in self.param_groups]

    @property
    def gradient_predivide_factor(self) -> float:
        return self._engine.gradient_predivide_factor()

    # -- the window, the scale, moving states --------------------------------------------------------------------------
    @property
    def is_gradient_accumulation_boundary(self) -> bool:
        return self._engine.is_gradient_accumulation_boundary()

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(is_boundary)

    @property
    def loss_scaler(self) -> _LossScaler:
        return _LossScaler(self._engine)

    def needs_scaler(self) -> bool:
        """Whether losses have to be scaled before a plain loss.backward()."""
        return self._engine.core.dynamic_loss_scale or self._engine.core.loss_scale != 1.0

    def scale_if_loss(self, value: Any) -> Any:
        """A loss (one number) times the loss scale; anything else as it is."""
        return self._engine.scale(value) if isinstance(value, torch.Tensor) and value.numel() == 1 else value

    def offload_states(self, include: Optional[Iterable[Any]] = None, device: Any = "cpu", pin_memory: bool = True, non_blocking: bool = False) -> None:
        self._engine.offload_states(include, device, pin_memory, non_blocking)

    def reload_states(self, non_blocking: bool = False) -> None:
        self._engine.reload_states(non_blocking)

    def empty_partition_cache(self) -> None:
        self._engine.empty_partition_cache()

    def destroy(self) -> None:
        """engine.destroy()."""
        self._engine.destroy()
