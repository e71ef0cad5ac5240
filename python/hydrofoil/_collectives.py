"""torch.distributed's collectives; they take DeepSpeed's names of arguments too."""

from __future__ import annotations

import functools
from typing import Any, Callable

import torch.distributed as _dist

_RENAMED: dict[str, dict[str, str]] = {name: {} for name in (
    "all_gather", "all_gather_object", "all_reduce", "all_to_all", "barrier", "batch_isend_irecv", "broadcast", "broadcast_object_list", "gather", "irecv",
    "isend", "monitored_barrier", "recv", "reduce", "reduce_scatter", "scatter", "send")} | {
    "all_gather_into_tensor": {"tensor": "input_tensor"}, "all_to_all_single": {"tensor": "input"},
    "reduce_scatter_tensor": {"output_tensor": "output", "tensor": "input"}}

__all__ = sorted(_RENAMED)


def with_deepspeeds_arguments(function: Callable[..., Any], renamed: dict[str, str]) -> Callable[..., Any]:
    """`prof`, `log_name` and `debug` are of DeepSpeed's log, which counts what scripts call; Hydrofoil's counts the engine's collectives."""

    @functools.wraps(function)
    def collective(*args: Any, prof: bool = False, log_name: Any = None, debug: Any = None, **kwargs: Any) -> Any:
        return function(*args, **{renamed.get(name, name): value for name, value in kwargs.items()})

    return collective


for _name, _renamed in _RENAMED.items():
    globals()[_name] = with_deepspeeds_arguments(getattr(_dist, _name), _renamed)
