"""What DeepSpeed's stage 3 adds to parameters (`ds_id`, `ds_shape`, `ds_status`, `all_gather()`, ...), on sharded parameters only."""

from __future__ import annotations

import enum
from typing import Any, Optional

import torch

__all__ = ["ZeroParamStatus", "ZeroParamType", "install"]

_SHARD = "_hydrofoil_initial_shard"


class ZeroParamType(enum.Enum):
    NORMAL = 1
    PARTITIONED = 2
    REMOTE = 3


class ZeroParamStatus(enum.Enum):
    AVAILABLE = 1
    NOT_AVAILABLE = 2
    INFLIGHT = 3


def _core(parameter: torch.Tensor) -> Any:
    """The engine whose stage 3 has the parameter, or None."""
    core = parameter.__dict__.get("_hydrofoil_engine")
    return core if core is not None and core.alive and core.zero_stage == 3 else None


def _is_sharded(parameter: torch.Tensor) -> bool:
    return _SHARD in parameter.__dict__ or _core(parameter) is not None


_next_id = iter(range(2**62))


def _id(parameter: torch.Tensor) -> int:
    """Of this process, the same on every rank that builds the same models in the same order of asking."""
    core = _core(parameter)
    if core is not None:
        return core.find_parameter(parameter)
    if "_hydrofoil_ds_id" not in parameter.__dict__:
        parameter.__dict__["_hydrofoil_ds_id"] = next(_next_id)
    return parameter.__dict__["_hydrofoil_ds_id"]


def _status(parameter: torch.Tensor) -> ZeroParamStatus:
    core = _core(parameter)
    if core is None:
        return ZeroParamStatus.AVAILABLE if parameter.__dict__[_SHARD].gathered else ZeroParamStatus.NOT_AVAILABLE
    return ZeroParamStatus[core.parameter_state(core.find_parameter(parameter))]


def _tensor(parameter: torch.Tensor) -> torch.Tensor:
    """This rank's part, 1-D in the parameter's memory order, possibly empty; its `ds_numel`, `status` and `final_location` too."""
    core = _core(parameter)
    part = core.local_parameter(core.find_parameter(parameter)) if core is not None else parameter.__dict__[_SHARD].local()
    part.ds_numel, part.status, part.final_location = part.numel(), ZeroParamStatus.AVAILABLE, None
    return part


def _summary(parameter: torch.Tensor) -> dict[str, Any]:
    return {"id": _id(parameter), "status": _status(parameter).name, "numel": parameter.numel(), "ds_numel": parameter.numel(),
            "shape": tuple(parameter.shape), "ds_shape": tuple(parameter.shape), "requires_grad": parameter.requires_grad,
            "grad_shape": None, "persist": False, "active_sub_modules": set(), "ds_tensor.shape": tuple(_tensor(parameter).shape)}


def _with_itself(parameter: torch.Tensor, param_list: Any) -> list[torch.Tensor]:
    return [parameter] if param_list is None else [param_list] if isinstance(param_list, torch.Tensor) else list(param_list)


def _all_gather(parameter: torch.Tensor, param_list: Any = None, async_op: bool = False, hierarchy: int = 0) -> None:
    """The parameter (or those of the list) stays readable until partition(). Collective."""
    from hydrofoil.zero import GatheredParameters

    for each in _with_itself(parameter, param_list):
        if "_hydrofoil_access" not in each.__dict__:
            each.__dict__["_hydrofoil_access"] = GatheredParameters([each], modifier_rank=None).__enter__()


def _partition(parameter: torch.Tensor, param_list: Any = None, hierarchy: int = 0, has_been_updated: bool = False, free_data: bool = True) -> None:
    """Ends all_gather(). With `has_been_updated` rank 0's values become every rank's. Collective."""
    for each in _with_itself(parameter, param_list):
        access = each.__dict__.pop("_hydrofoil_access", None)
        if access is not None:
            access._modifier_rank = 0 if has_been_updated else None
            access.__exit__(None, None, None)


class _Gathered:
    """What all_gather_coalesced() returns: the values are there already."""

    def wait(self, *_: Any, **__: Any) -> None:
        pass


def _all_gather_coalesced(params: Any, *_: Any, **__: Any) -> _Gathered:
    """all_gather() of each. Collective."""
    for each in params:
        _all_gather(each)
    return _Gathered()


def _not_built(name: str) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"parameter.{name}: the engine reduces gradients by unit; this step of DeepSpeed's is not built in Hydrofoil")

    return lambda parameter: call


_ATTRIBUTES = {
    "ds_id": _id,
    "ds_shape": lambda parameter: parameter.shape,
    "ds_numel": lambda parameter: parameter.numel(),
    "ds_numel_aligned": lambda parameter: parameter.numel(),
    "ds_status": _status,
    "ds_tensor": _tensor,
    "ds_persist": lambda parameter: False,
    "ds_param_type": lambda parameter: ZeroParamType.PARTITIONED,
    "ds_process_group": lambda parameter: torch.distributed.group.WORLD if torch.distributed.is_initialized() else None,
    "ds_secondary_tensor": lambda parameter: None,
    "ds_active_sub_modules": lambda parameter: set(),
    "ds_summary": lambda parameter: lambda: _summary(parameter),
    "all_gather": lambda parameter: lambda *args, **kwargs: _all_gather(parameter, *args, **kwargs),
    "partition": lambda parameter: lambda *args, **kwargs: _partition(parameter, *args, **kwargs),
    "all_gather_coalesced": lambda parameter: _all_gather_coalesced,
    "aligned_size": lambda parameter: parameter.numel,
    "padding_size": lambda parameter: lambda: 0,  # of a parameter: what fills a unit's last shard is nobody's
    "reduce_gradients_at_owner": _not_built("reduce_gradients_at_owner"),
    "partition_gradients": _not_built("partition_gradients"),
    "partition_numel": lambda parameter: lambda: _tensor(parameter).numel(),
}


class _Attribute:
    """Of sharded parameters; on all others it is as if it did not exist, so that hasattr(p, "ds_id") tells them apart."""

    def __init__(self, name: str, value: Any) -> None:
        self._name, self._value = name, value

    def __get__(self, parameter: Optional[torch.Tensor], owner: Any = None) -> Any:
        if parameter is None:
            return self
        if not _is_sharded(parameter):
            raise AttributeError(f"{type(parameter).__name__!r} object has no attribute {self._name!r}")
        return self._value(parameter)


_deepcopy_whole = torch.nn.Parameter.__deepcopy__


def _deepcopy(parameter: torch.nn.Parameter, memo: dict[int, Any]) -> Any:
    """Of a parameter that zero.Init has sharded the copy is whole, and collective: PEFT copies the modules of `modules_to_save`.

    PEFT gathers what has numel() 0, as DeepSpeed's parameters have. One that an engine has must be gathered by the program.
    """
    if _SHARD not in parameter.__dict__:
        return _deepcopy_whole(parameter, memo)
    from hydrofoil.zero import GatheredParameters

    with GatheredParameters([parameter]):
        return _deepcopy_whole(parameter, memo)


def install() -> None:
    """A class has one set of descriptors for all its objects, so what programs read costs no parameter anything."""
    torch.nn.Parameter.__deepcopy__ = _deepcopy  # type: ignore[method-assign]
    for name, value in _ATTRIBUTES.items():
        if name not in torch.nn.Parameter.__dict__:
            setattr(torch.nn.Parameter, name, _Attribute(name, value))
