"""init_distributed and is_initialized, which also tell Accelerate that the ranks of a machine without a GPU talk over Gloo.

Accelerate (1.15) asks the one and calls the other inside PartialState(), with the backend that it chose. Without a GPU it chooses
none, and takes a job without a backend for one process: each rank would train alone, on the same samples. Its state is a plain
dictionary that is being filled while it calls; the backend that runs goes in there.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from hydrofoil import comm

__all__ = ["init_distributed", "is_initialized"]


def init_distributed(dist_backend: Any = None, *args: Any, **kwargs: Any) -> None:
    """`hydrofoil.comm.init_distributed`."""
    comm.init_distributed(dist_backend, *args, **kwargs)
    _tell_accelerate()


def is_initialized() -> bool:
    _tell_accelerate()
    return comm.is_initialized()


def _tell_accelerate() -> None:
    state = sys.modules.get("accelerate.state")
    if state is None or not comm.is_initialized() or torch.cuda.is_available():
        return
    shared = state.PartialState._shared_state
    if shared and "num_processes" not in shared and shared.get("backend", "") is None:
        shared["backend"] = torch.distributed.get_backend()
