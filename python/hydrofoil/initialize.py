"""`hydrofoil.initialize`, with DeepSpeed's signature."""

from __future__ import annotations

import argparse
from typing import Any, Callable, Iterable, Optional

import torch

from hydrofoil import comm
from hydrofoil._config import resolve
from hydrofoil.engine import Engine
from hydrofoil.errors import InvalidArgument
from hydrofoil.zero.init import Init

__all__ = ["add_config_arguments", "initialize"]


def add_config_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds --deepspeed, --deepspeed_config (and the deprecated --deepscale, --deepscale_config) to a parser."""
    group = parser.add_argument_group("Hydrofoil", "Hydrofoil configurations")
    group.add_argument("--deepspeed", default=False, action="store_true", help="Train with the Hydrofoil engine.")
    group.add_argument("--deepspeed_config", default=None, type=str, help="Path of the JSON configuration.")
    group.add_argument("--deepscale", default=False, action="store_true", help=argparse.SUPPRESS)
    group.add_argument("--deepscale_config", default=None, type=str, help=argparse.SUPPRESS)
    return parser


def _pick_config(args: Any, config: Any, config_params: Any) -> Any:
    config = config if config is not None else config_params
    from_args = None
    if args is not None:
        from_args = getattr(args, "deepspeed_config", None) or getattr(args, "deepscale_config", None)
    if config is not None and from_args is not None:
        raise InvalidArgument("config was given both as an argument of initialize and as --deepspeed_config; give one of them")
    if config is None and from_args is None:
        raise InvalidArgument("no config: pass config=... (a dict or a path) or args with deepspeed_config")
    return config if config is not None else from_args


def initialize(
    args: Any = None,
    model: Optional[torch.nn.Module] = None,
    optimizer: Any = None,
    model_parameters: Optional[Iterable[Any]] = None,
    training_data: Any = None,
    lr_scheduler: Any = None,
    distributed_port: int = 29500,
    mpu: Any = None,
    dist_init_required: Optional[bool] = None,
    collate_fn: Optional[Callable[..., Any]] = None,
    config: Any = None,
    mesh_param: Any = None,
    config_params: Any = None,
) -> tuple[Engine, Any, Any, Any]:
    """Wraps a model in the engine; returns (engine, optimizer, training_dataloader, lr_scheduler).

    ``optimizer`` may be a torch.optim optimizer over the model's parameters (or a callable that makes one from them); without
    it the config's ``optimizer`` section decides. ``lr_scheduler`` likewise. Every rank calls it with the same model.
    """
    if model is None:
        raise InvalidArgument("initialize: model is required")
    if mpu is not None or mesh_param is not None:
        raise NotImplementedError("initialize: mpu and mesh_param (model parallelism) are not yet supported")
    chosen = _pick_config(args, config, config_params)
    comm.init_distributed(dist_init_required=dist_init_required, distributed_port=distributed_port)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    options = resolve(chosen, torch.distributed.get_world_size(), device.type == "cpu")
    with Init.suspended():
        engine = Engine(
            model=model,
            options=options,
            optimizer=optimizer,
            model_parameters=model_parameters,
            training_data=training_data,
            lr_scheduler=lr_scheduler,
            collate_fn=collate_fn,
            config=chosen,
        )
    return engine, engine.optimizer, engine.training_dataloader, engine.lr_scheduler
