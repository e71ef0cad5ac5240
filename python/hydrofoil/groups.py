"""`deepspeed.utils.groups`: which process groups the ranks form. All ranks are one data-parallel group today."""

from __future__ import annotations

from typing import Any

from hydrofoil import comm

__all__ = [
    "get_data_parallel_group", "get_data_parallel_rank", "get_data_parallel_world_size", "get_model_parallel_group", "get_model_parallel_rank",
    "get_model_parallel_world_size", "get_tensor_model_parallel_group", "get_tensor_model_parallel_rank", "get_tensor_model_parallel_world_size", "initialize",
]


def initialize(ep_size: int = 1, mpu: Any = None) -> None:
    if ep_size != 1 or mpu is not None:
        raise NotImplementedError(f"groups.initialize: got ep_size {ep_size} and mpu {mpu!r}: expert and model parallelism are not built yet")


def get_data_parallel_group() -> Any:
    return comm.get_world_group()


def get_data_parallel_rank() -> int:
    return comm.get_rank()


def get_data_parallel_world_size() -> int:
    return comm.get_world_size()


def get_model_parallel_group() -> Any:
    """None: each rank holds the whole model's computation."""
    return None


def get_model_parallel_rank() -> int:
    return 0


def get_model_parallel_world_size() -> int:
    return 1


get_tensor_model_parallel_group, get_tensor_model_parallel_rank = get_model_parallel_group, get_model_parallel_rank
get_tensor_model_parallel_world_size = get_model_parallel_world_size
_get_data_parallel_group, _get_data_parallel_rank = get_data_parallel_group, get_data_parallel_rank
_get_data_parallel_world_size = get_data_parallel_world_size
_get_sequence_parallel_group, _get_sequence_parallel_rank = get_model_parallel_group, get_model_parallel_rank
_get_sequence_parallel_world_size = get_model_parallel_world_size
