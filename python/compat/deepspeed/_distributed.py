"""init_distributed, which also tells Accelerate that the ranks of a machine without a GPU talk over Gloo."""

from __future__ import annotations

import sys
from typing import Any

import torch

from hydrofoil import comm

__all__ = ["init_distributed"]


def init_distributed(dist_backend: Any = None, *args: Any, **kwargs: Any) -> None:
    """`hydrofoil.comm.init_distributed`.

    Accelerate (1.15) calls it inside PartialState() with the backend that it chose. Without a GPU it chooses none, and takes a
    job without a backend for one process: each rank would train alone on the same samples. Its state is a plain dictionary that
    is being filled while it calls; the backend that was started goes in there.
    """
    comm.init_distributed(dist_backend, *args, **kwargs)
    state = sys.modules.get("accelerate.state")
    if state is not None and dist_backend is None and comm.is_initialized():
        shared = state.PartialState._shared_state
        if shared and shared.get("backend", "") is None and not torch.cuda.is_available():
            shared["backend"] = torch.distributed.get_backend()
