"""`deepspeed.checkpointing`: activation checkpointing, by torch's."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import checkpoint as _torch_checkpoint
from torch.utils.checkpoint import CheckpointFunction

__all__ = ["CheckpointFunction", "checkpoint", "configure", "get_cuda_rng_tracker", "is_configured", "model_parallel_cuda_manual_seed",
           "model_parallel_reconfigure_tp_seed", "non_reentrant_checkpoint", "partition_activations_in_checkpoint", "reset", "set_num_layers"]

_configured = False


def configure(mpu_: Any = None, deepspeed_config: Any = None, partition_activations: Any = None, contiguous_checkpointing: Any = None,
              num_checkpoints: Any = None, checkpoint_in_cpu: Any = None, synchronize: Any = None, profile: Any = None) -> None:
    """Accepts what costs nothing; an option that would save memory and is not built raises NotImplementedError."""
    asked = {"mpu_": mpu_, "partition_activations": partition_activations, "contiguous_checkpointing": contiguous_checkpointing,
             "checkpoint_in_cpu": checkpoint_in_cpu, "profile": profile}
    wanted = [name for name, value in asked.items() if value]
    if wanted:
        raise NotImplementedError(f"checkpointing.configure: {', '.join(wanted)}: not built in Hydrofoil yet; leave it False")
    global _configured
    _configured = True


def is_configured() -> bool:
    return _configured


def reset() -> None:
    """Nothing is kept between iterations."""


def checkpoint(function: Any, *args: Any) -> Any:
    """`function(*args)`, whose activations are computed again in backward. Arguments that need no gradient may be anything."""
    return _torch_checkpoint.checkpoint(function, *args, use_reentrant=False)


non_reentrant_checkpoint = checkpoint


def partition_activations_in_checkpoint(partition_activation: bool) -> None:
    if partition_activation:
        raise NotImplementedError("checkpointing.partition_activations_in_checkpoint: not built in Hydrofoil yet")


def set_num_layers(nlayers: int) -> None:
    """Of contiguous checkpointing, which is not built: nothing to note."""


def model_parallel_cuda_manual_seed(seed: int) -> None:
    """Without tensor parallelism every rank's generator simply gets the seed."""
    torch.manual_seed(seed)


def model_parallel_reconfigure_tp_seed(seed: int) -> None:
    torch.manual_seed(seed)


def get_cuda_rng_tracker() -> Any:
    raise NotImplementedError("checkpointing.get_cuda_rng_tracker: tensor parallelism is not built in Hydrofoil yet")
