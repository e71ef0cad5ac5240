"""`deepspeed.utils`: logging, and access to full fp32 values, gradients and optimizer states of sharded parameters."""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Any, Optional

import torch

from hydrofoil import _C
from hydrofoil.dataloader import RepeatingLoader

__all__ = [
    "RepeatingLoader", "cast_floating", "log_dist", "logger", "safe_get_full_fp32_param", "safe_get_full_grad",
    "safe_get_full_optimizer_state", "safe_set_full_fp32_param", "safe_set_full_grad", "safe_set_full_optimizer_state",
    "see_memory_usage", "set_z3_leaf_modules",
]


def _rank() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return int(os.environ.get("RANK", "0"))


class _RankFilter(logging.Filter):
    """Info comes from rank 0 only, unless asked of other ranks (log_dist) or with the level debug; warnings and errors from all."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.rank = _rank()
        quiet = record.rank != 0 and record.levelno < logging.WARNING and not logger.isEnabledFor(logging.DEBUG)
        return not quiet or getattr(record, "of_any_rank", False)


logger = logging.getLogger("hydrofoil")
if not logger.handlers:
    _handler = logging.StreamHandler(sys.stderr)
    _handler.setFormatter(logging.Formatter("[hydrofoil rank %(rank)d] %(levelname)s: %(message)s"))
    _handler.addFilter(_RankFilter())  # for child loggers, whose records pass the handler only
    logger.addHandler(_handler)
    logger.addFilter(_RankFilter())
    logger.setLevel({"debug": logging.DEBUG, "warning": logging.WARNING, "error": logging.ERROR}.get(
        os.environ.get("HYDROFOIL_LOG_LEVEL", "info"), logging.INFO))
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


def cast_floating(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in tuples, lists and dicts, cast."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(cast_floating(item, dtype) for item in value)
    if isinstance(value, dict):
        return {key: cast_floating(item, dtype) for key, item in value.items()}
    return value


def _place(param: torch.Tensor) -> tuple[_C.Engine, int]:
    core = getattr(param, "_hydrofoil_engine", None)
    if core is None:
        raise ValueError("the tensor is no parameter of a Hydrofoil engine")
    return core, core.find_parameter(param)


def _optimizer(core: _C.Engine) -> Any:
    optimizer = getattr(core, "optimizer", lambda: None)()
    if optimizer is None:
        raise ValueError("the engine has no optimizer, and so no optimizer states")
    return optimizer


def safe_get_full_fp32_param(param: torch.Tensor) -> torch.Tensor:
    """Full fp32 master value; collective."""
    core, index = _place(param)
    return core.full_master(index)


def safe_get_full_grad(param: torch.Tensor) -> Optional[torch.Tensor]:
    """Full reduced gradient in fp32, loss scale removed; None where this window has not reduced it. Collective."""
    core, index = _place(param)
    return core.full_gradient(index)


def safe_get_full_optimizer_state(param: torch.Tensor, optim_state_key: str) -> torch.Tensor:
    """Full fp32 optimizer state by the optimizer's own name for it (exp_avg, momentum_buffer, ...); collective."""
    core, index = _place(param)
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


def set_z3_leaf_modules(model: torch.nn.Module, leaf_modules: list[Any], raise_if_not_found: bool = True) -> list[torch.nn.Module]:
    """Marks modules (by class or class name) whose whole subtree is one unit; call it before initialize."""
    found = []
    for module in model.modules():
        if any(isinstance(module, leaf) if isinstance(leaf, type) else type(module).__name__ == leaf for leaf in leaf_modules):
            module._z3_leaf = True
            found.append(module)
    if not found and raise_if_not_found:
        raise ValueError(f"no modules of {leaf_modules} found in the model")
    return found
