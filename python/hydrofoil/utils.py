"""`deepspeed.utils`: logging, and access to full fp32 values, gradients and optimizer states of sharded parameters."""

from __future__ import annotations

import functools
import gc
import logging
import os
import sys
from typing import Any, Callable, Optional

import torch

from hydrofoil import _C
from hydrofoil.dataloader import RepeatingLoader
from hydrofoil.errors import InvalidArgument
from hydrofoil.leaf_modules import (
    get_z3_leaf_modules,
    set_z3_leaf_module,
    set_z3_leaf_modules,
    set_z3_leaf_modules_by_name,
    set_z3_leaf_modules_by_suffix,
    unset_z3_leaf_modules,
    z3_leaf_module,
    z3_leaf_parameter,
)

__all__ = [
    "OnDevice", "RepeatingLoader", "cast_floating", "clone_tensors_for_torch_save", "get_caller_func", "get_z3_leaf_modules", "instrument_w_nvtx", "is_compile_supported",
    "log_dist", "log_dist_once", "logger", "move_to_device", "safe_get_full_fp32_param", "safe_get_full_grad", "safe_get_full_optimizer_state",
    "safe_get_local_fp32_param", "safe_get_local_grad", "safe_get_local_optimizer_state", "safe_set_full_fp32_param", "safe_set_full_grad",
    "safe_set_full_optimizer_state", "safe_set_local_fp32_param", "safe_set_local_grad", "safe_set_local_optimizer_state",
    "safe_update_full_grad_vectorized", "see_memory_usage", "set_log_level_from_string", "set_z3_leaf_module", "set_z3_leaf_modules", "set_z3_leaf_modules_by_name",
    "set_z3_leaf_modules_by_suffix", "unset_z3_leaf_modules", "z3_leaf_module", "z3_leaf_parameter",
]


def _rank() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return int(os.environ.get("RANK", "0"))


class _RankFilter(logging.Filter):
    """Info comes from rank 0 only, unless asked of other ranks (log_dist) or with the level debug; warnings and errors from all."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.rank, record.severity = _rank(), record.levelname.lower()
        quiet = record.rank != 0 and record.levelno < logging.WARNING and not logger.isEnabledFor(logging.DEBUG)
        return not quiet or getattr(record, "of_any_rank", False)


class _Logger(logging.Logger):
    """Its level is that of the lines which C++ writes, too."""

    def setLevel(self, level: int | str) -> None:  # noqa: N802  (logging's name)
        super().setLevel(level)
        effective = self.getEffectiveLevel()
        _C.set_log_level(next((getattr(_C.LogLevel, name) for name in _LEVELS if effective <= getattr(logging, name)), _C.LogLevel.CRITICAL))


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
logger = logging.getLogger("hydrofoil")
logger.__class__ = _Logger
if not logger.handlers:
    _handler = logging.StreamHandler(sys.stderr)
    _handler.setFormatter(logging.Formatter("[hydrofoil rank %(rank)d] %(severity)s: %(message)s"))
    _handler.addFilter(_RankFilter())  # for child loggers, whose records pass the handler only
    logger.addHandler(_handler)
    logger.addFilter(_RankFilter())
    _asked = os.environ.get("HYDROFOIL_LOG_LEVEL", "info").upper()
    logger.setLevel(_asked if _asked in _LEVELS else "INFO")
    logger.propagate = False


def log_dist(message: str, ranks: Optional[list[int]] = None, level: int = logging.INFO) -> None:
    """Logs on the given ranks ([-1]: all; none given: rank 0)."""
    if _rank() in (ranks or [0]) or ranks == [-1]:
        logger.log(level, message, extra={"of_any_rank": True})


def see_memory_usage(message: str, force: bool = False) -> None:
    """Logs the memory of the process on rank 0, and what torch has on the GPU where there is one; nothing without `force`."""
    if not force or _rank() != 0:
        return
    gc.collect()
    gib = 1 << 30
    process = _C.process_memory()
    text = (f"{message} | memory (GiB): RSS {process.rss_bytes / gib:.3f}, PSS {process.pss_bytes / gib:.3f}, "
            f"peak RSS {process.peak_rss_bytes / gib:.3f}")
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        text += (f" | CUDA: allocated {torch.cuda.memory_allocated() / gib:.3f}, peak {torch.cuda.max_memory_allocated() / gib:.3f}, "
                 f"reserved {torch.cuda.memory_reserved() / gib:.3f}, peak {torch.cuda.max_memory_reserved() / gib:.3f}")
        torch.cuda.reset_peak_memory_stats()  # the next call tells of the time since this one, as DeepSpeed's does
    logger.info("%s", text)


@functools.lru_cache(maxsize=None)
def _log_once(message: str, ranks: tuple[int, ...], level: int) -> None:
    log_dist(message, list(ranks) or None, level)


def log_dist_once(message: str, ranks: Optional[list[int]] = None, level: int = logging.INFO) -> None:
    """log_dist, but a message is logged the first time only."""
    _log_once(message, tuple(ranks or ()), level)


def set_log_level_from_string(log_level: str, custom_logger: Optional[logging.Logger] = None) -> None:
    """debug, info, warning, error or critical."""
    if not isinstance(log_level, str) or log_level.upper() not in _LEVELS:
        raise InvalidArgument(f"log level: got {log_level!r}, expected debug, info, warning, error or critical")
    (custom_logger or logger).setLevel(log_level.upper())


def instrument_w_nvtx(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, as a range of torch.profiler by its name."""

    @functools.wraps(function)
    def ranged(*args: Any, **kwargs: Any) -> Any:
        with torch.profiler.record_function(function.__qualname__):
            return function(*args, **kwargs)

    return ranged


def get_caller_func(frame: int = 3) -> str:
    """The name of the function that many calls up."""
    return sys._getframe(frame).f_code.co_name


def is_compile_supported() -> bool:
    return hasattr(torch, "compile")


class OnDevice:
    """Modules that are built inside get parameters of this dtype on this device ("meta": no memory)."""

    def __init__(self, dtype: Optional[torch.dtype], device: Any = "meta", enabled: bool = True) -> None:
        self._dtype, self._device, self._enabled = dtype, torch.device(device), enabled

    def __enter__(self) -> "OnDevice":
        if self._enabled:
            self._previous = torch.get_default_dtype()
            if self._dtype is not None:
                torch.set_default_dtype(self._dtype)
            self._device.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._enabled:
            self._device.__exit__(*error)
            torch.set_default_dtype(self._previous)


def _map_tensors(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map_tensors(item, function) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_map_tensors(item, function) for item in value)
    if isinstance(value, dict):
        return type(value)((key, _map_tensors(item, function)) for key, item in value.items())
    return value


def move_to_device(item: Any, device: Any, criterion_func: Optional[Callable[[torch.Tensor], bool]] = None) -> Any:
    """Tensors in tuples, lists and dicts (those for which `criterion_func` holds), moved."""
    return _map_tensors(item, lambda tensor: tensor.to(device) if criterion_func is None or criterion_func(tensor) else tensor)


def clone_tensors_for_torch_save(item: Any, device: Any = torch.device("cpu")) -> Any:
    """Copies whose storage is no larger than they are: torch.save writes a view's whole storage."""
    return _map_tensors(item, lambda tensor: tensor.detach().clone().to(device))


def cast_floating(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in tuples, lists and dicts, cast."""
    return _map_tensors(value, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def _place(param: torch.Tensor) -> tuple[_C.Engine, int]:
    core = getattr(param, "_hydrofoil_engine", None)
    if core is None:
        raise InvalidArgument("the tensor is no parameter of a Hydrofoil engine")
    return core, core.find_parameter(param)


def _trained_place(param: torch.Tensor) -> Optional[tuple[_C.Engine, int]]:
    """_place() of a parameter that an engine has a master of; None for those that it took over frozen, and for other tensors."""
    core = getattr(param, "_hydrofoil_engine", None)
    if core is None:
        return None
    index = core.find_parameter(param)
    return (core, index) if core.has_master(index) else None


def _optimizer(core: _C.Engine) -> Any:
    optimizer = getattr(core, "optimizer", lambda: None)()
    if optimizer is None:
        raise InvalidArgument("the engine has no optimizer, and so no optimizer states")
    return optimizer


def safe_get_full_fp32_param(param: torch.Tensor) -> Optional[torch.Tensor]:
    """Full fp32 master value; None, as from the other getters, of what no engine trains (parameters frozen at initialize, other tensors). Collective."""
    place = _trained_place(param)
    if place is None:
        return None
    core, index = place
    return core.full_master(index)


def safe_get_full_grad(param: torch.Tensor) -> Optional[torch.Tensor]:
    """Full reduced gradient in fp32, loss scale removed; None where this window has not reduced it. Collective."""
    place = _trained_place(param)
    if place is None:
        return None
    core, index = place
    return core.full_gradient(index)


def safe_get_full_optimizer_state(param: torch.Tensor, optim_state_key: str) -> Optional[torch.Tensor]:
    """Full fp32 optimizer state by the optimizer's own name for it (exp_avg, momentum_buffer, ...); collective."""
    place = _trained_place(param)
    if place is None:
        return None
    core, index = place
    return _optimizer(core).full_state(core, index, optim_state_key)


def safe_set_full_fp32_param(param: torch.Tensor, value: torch.Tensor) -> None:
    core, index = _place(param)
    core.set_full_master(index, value)


def safe_set_full_grad(param: torch.Tensor, value: torch.Tensor) -> None:
    core, index = _place(param)
    core.set_full_gradient(index, value)


def safe_set_full_optimizer_state(param: torch.Tensor, value: torch.Tensor, optim_state_key: str) -> None:
    core, index = _place(param)
    _optimizer(core).set_full_state(core, index, optim_state_key, value)


# -- this rank's parts, under stage 3 ----------------------------------------------------------------------------------
def _sharded_place(param: torch.Tensor) -> tuple[_C.Engine, int]:
    core, index = _place(param)
    if core.zero_stage != 3:
        raise InvalidArgument("safe_get_local and safe_set_local need zero_optimization.stage 3; below it use the _full_ twins")
    return core, index


def safe_get_local_fp32_param(param: torch.Tensor) -> Optional[torch.Tensor]:
    """This rank's part of the fp32 master: a 1-D copy in the parameter's memory order, possibly empty. Not collective."""
    core, index = _sharded_place(param)
    return core.local_master(index) if core.has_master(index) else None


def safe_get_local_grad(param: torch.Tensor) -> Optional[torch.Tensor]:
    """This rank's part of the reduced gradient in fp32, loss scale removed; None where this window has not reduced it."""
    core, index = _sharded_place(param)
    return core.local_gradient(index) if core.has_master(index) else None


def safe_get_local_optimizer_state(param: torch.Tensor, optim_state_key: str) -> Optional[torch.Tensor]:
    """This rank's part of an optimizer state of the engine's own optimizers."""
    core, index = _sharded_place(param)
    return core.local_state(index, _optimizer(core)._native_state(optim_state_key)) if core.has_master(index) else None


def safe_set_local_fp32_param(param: torch.Tensor, value: torch.Tensor) -> None:
    """Collective: each rank brings its own part."""
    core, index = _sharded_place(param)
    core.set_local_master(index, value)


def safe_set_local_grad(param: torch.Tensor, value: torch.Tensor) -> None:
    core, index = _sharded_place(param)
    core.set_local_gradient(index, value)


def safe_set_local_optimizer_state(param: torch.Tensor, value: torch.Tensor, optim_state_key: str) -> None:
    core, index = _sharded_place(param)
    core.set_local_state(index, _optimizer(core)._native_state(optim_state_key), value)


def safe_update_full_grad_vectorized(param_list: list[torch.Tensor], update_func: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Replaces each full reduced gradient by `update_func(gradient, parameter)`; parameters without one are skipped. Collective."""
    for param in param_list:
        gradient = safe_get_full_grad(param)
        if gradient is not None:
            safe_set_full_grad(param, update_func(gradient, param))
