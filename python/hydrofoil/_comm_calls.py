"""torch.distributed's calls as a script makes them through `hydrofoil.comm`: DeepSpeed's names of arguments, and counted on request."""

from __future__ import annotations

import functools
import inspect
import sys
import time
from datetime import datetime
from typing import Any, Callable, Optional

import torch
import torch.distributed as _dist

from hydrofoil import _C

# name: (row of the log; DeepSpeed's name of an argument -> torch's)
_CALLS: dict[str, tuple[str, dict[str, str]]] = {
    "all_reduce": ("all_reduce", {}),
    "all_gather": ("all_gather", {}),
    "all_gather_into_tensor": ("all_gather", {"tensor": "input_tensor"}),
    "all_gather_object": ("all_gather_object", {}),
    "all_to_all": ("all_to_all", {}),
    "all_to_all_single": ("all_to_all", {"tensor": "input"}),
    "barrier": ("barrier", {}),
    "broadcast": ("broadcast", {}),
    "broadcast_object_list": ("broadcast_object_list", {}),
    "gather": ("gather", {}),
    "irecv": ("recv", {}),
    "isend": ("send", {}),
    "monitored_barrier": ("barrier", {}),
    "recv": ("recv", {}),
    "reduce": ("reduce", {}),
    "reduce_scatter": ("reduce_scatter", {}),
    "reduce_scatter_tensor": ("reduce_scatter", {"output_tensor": "output", "tensor": "input"}),
    "scatter": ("scatter", {}),
    "send": ("send", {}),
}
# torch 2.13 warns of the older names.
_NEWER = {"all_gather_into_tensor": "all_gather_single", "reduce_scatter_tensor": "reduce_scatter_single"}

log: Optional[_C.CommLog] = None  # where the calls are counted; None: nowhere


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for one in value for tensor in _tensors(one)] if isinstance(value, (list, tuple)) else []


def _caller() -> str:
    """File and line of the script's call: the nearest frame outside this package and torch."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("hydrofoil", "torch", "deepspeed"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"


class _Call:
    """One call that is being counted: from here to `end()`."""

    def __init__(self, log: _C.CommLog, op: str, log_name: Optional[str], arguments: dict[str, Any], group_size: int) -> None:
        tensors = {name: _tensors(value) for name, value in arguments.items()}
        self._on_device = any(tensor.is_cuda for group in tensors.values() for tensor in group)
        self._log, self._op, self._group_size = log, op, group_size
        self._unit = log_name or (_caller() if log.by_unit else "(script)")
        self._bytes = max((sum(tensor.nbytes for tensor in group) for group in tensors.values()), default=0)
        self._wait_for_device()
        self._begin = time.perf_counter()

    def _wait_for_device(self) -> None:
        if self._on_device:
            torch.cuda.current_stream().synchronize()

    def end(self, *_: Any) -> None:
        self._wait_for_device()
        self._log.count(self._op, self._unit, self._bytes, self._group_size, time.perf_counter() - self._begin)


class _CountedWork:
    """A Work without a future (Gloo's isend, irecv, reduce_scatter_tensor), counted at the end of its wait()."""

    def __init__(self, work: Any, call: _Call) -> None:
        self._work, self._call = work, call

    def wait(self, *arguments: Any, **options: Any) -> Any:
        result = self._work.wait(*arguments, **options)
        if self._call is not None:
            self._call.end()
            self._call = None
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


def _end_with(work: Any, call: _Call) -> Any:
    try:
        work.get_future().then(call.end)
    except RuntimeError:
        return _CountedWork(work, call)
    return work


def _wrapped(name: str, op: str, renamed: dict[str, str]) -> Callable[..., Any]:
    function = getattr(_dist, _NEWER.get(name, name), None) or getattr(_dist, name)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments: Any, prof: bool = False, log_name: Optional[str] = None, debug: Any = None, **options: Any) -> Any:
        for theirs, torchs in renamed.items():
            if theirs in options:
                options[torchs] = options.pop(theirs)
        counter = log
        if counter is None or not (prof or counter.counts(op)):
            return function(*arguments, **options)
        given = signature.bind(*arguments, **options).arguments
        group_size = _dist.get_world_size(given.get("group"))
        if group_size < 0:  # not of this group: torch does nothing
            return function(*arguments, **options)
        counted = _Call(counter, op, log_name, given, group_size)
        work = function(*arguments, **options)
        if work is None or not hasattr(work, "wait"):
            counted.end()
            return work
        return _end_with(work, counted)

    call.__name__ = call.__qualname__ = name
    return call


class P2POp(_dist.P2POp):
    """torch's, which knows its own isend and irecv only."""

    def __new__(cls, op: Callable[..., Any], *arguments: Any, **options: Any) -> P2POp:
        return super().__new__(cls, getattr(op, "__wrapped__", op), *arguments, **options)

    def __init__(self, op: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        super().__init__(getattr(op, "__wrapped__", op), *arguments, **options)


CALLS: dict[str, Callable[..., Any]] = {name: _wrapped(name, op, renamed) for name, (op, renamed) in _CALLS.items() if _dist.is_available()}


def as_dict(rows: list[_C.CommLogRow], rank: int) -> dict[str, Any]:
    """log_summary(return_dict=True) as DeepSpeed's keys have it; bandwidths in 10^9 bits/s."""
    summary: dict[str, dict[int, Any]] = {}
    stragglers: dict[str, dict[int, Any]] = {}

    def add(table: dict[str, dict[int, Any]], row: _C.CommLogRow, **milliseconds: float) -> dict[str, Any]:
        """Sums up: several engines have rows of one operation and size."""
        sizes = table.setdefault(f"{row.op} | {row.unit}" if row.unit else row.op, {})
        entry = sizes.setdefault(row.message_bytes, {"count": 0, "msg_size_bytes": row.message_bytes, "msg_size_str": f"{row.message_bytes} B"})
        entry["count"] += row.count
        for name, value in milliseconds.items():
            entry[f"total_{name}_ms"] = entry.get(f"total_{name}_ms", 0.0) + value
            entry[f"avg_{name}_ms"] = entry[f"total_{name}_ms"] / entry["count"]
        return entry

    for row in rows:
        entry = add(summary, row, latency=1e3 * row.total_s)
        gigabits = 8e-6 * row.message_bytes / entry["avg_latency_ms"]
        entry["tput_avg_gbps"] = gigabits
        entry["busbw_avg_gbps"] = gigabits * (row.bus_bytes_per_s / row.algorithm_bytes_per_s if row.message_bytes else 0.0)
        if row.waited_s:
            add(stragglers, row, comm_lat=1e3 * (row.total_s - row.waited_s[rank]), straggler=1e3 * row.waited_s[rank])
    world_size = _dist.get_world_size() if _dist.is_available() and _dist.is_initialized() else 1
    return {"summary": summary, "straggler_analysis": stragglers or None,
            "metadata": {"world_size": world_size, "rank": rank, "timestamp": datetime.now().isoformat()}}
