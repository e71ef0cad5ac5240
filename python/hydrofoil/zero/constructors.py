"""What programs patch of `deepspeed.runtime.zero.partition_parameters`. zero.Init here leaves torch's constructors alone."""

from __future__ import annotations

from typing import Any, Callable

import torch

__all__ = ["zero_wrapper_for_fp_tensor_constructor"]

_orig_torch_arange = torch.arange


def zero_wrapper_for_fp_tensor_constructor(fn: Callable[..., torch.Tensor], *_: Any, **__: Any) -> Callable[..., torch.Tensor]:
    """The constructor itself: buffers keep the dtype that the model gives them."""
    return fn
