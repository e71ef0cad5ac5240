"""save_checkpoint and load_checkpoint: what is Python's (buffers, schedules, client optimizers) around the C++ files."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Optional

import torch

from hydrofoil import _C, utils

if TYPE_CHECKING:
    from hydrofoil.engine import Engine

__all__ = ["load", "save"]


def _buffers(engine: "Engine") -> dict[str, torch.Tensor]:
    persistent = set(engine.module.state_dict(keep_vars=True)) if not engine.core.shards_parameters else None
    return {
        name: buffer
        for name, buffer in engine.module.named_buffers()
        if buffer is not None and (persistent is None or name in persistent)
    }


def _json(value: Any, what: str) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise ValueError(f"save_checkpoint: {what} holds something that JSON cannot keep ({error}); checkpoints hold no pickles") from None


def _add_client_state(request: _C.SaveRequest, engine: "Engine") -> None:
    """States of a client optimizer belong to this rank's shards: they are kept under the rank's name."""
    optimizer = engine.optimizer
    if optimizer is None or optimizer._client is None:
        return
    optimizer._bind_client()
    scalars: dict[str, Any] = {}
    for g, params in enumerate(optimizer._client_groups):
        for i, param in enumerate(params):
            for key, value in optimizer._client.state.get(param, {}).items():
                name = f"client/{engine.world_size}/{engine.global_rank}/{g}/{i}"
                if isinstance(value, torch.Tensor):
                    request.add_extra(name, key, value)
                else:
                    scalars[f"{name}/{key}"] = value
    if scalars and engine.global_rank == 0:
        request.states = {**request.states, "client_scalars": _json(scalars, "the client optimizer's state")}


def save(engine: "Engine", directory: str, tag: Optional[str], client_state: dict[str, Any], save_latest: bool,
         exclude_frozen: bool) -> bool:
    request = _C.SaveRequest()
    request.directory = directory
    request.tag = str(tag) if tag is not None else f"global_step{engine.global_steps}"
    request.save_latest = save_latest
    request.exclude_frozen = exclude_frozen
    states = {}
    if engine.optimizer is not None:
        states["param_groups"] = engine.optimizer.hyperparameter_json()
    if engine.lr_scheduler is not None:
        state = {k: v for k, v in engine.lr_scheduler.state_dict().items() if not callable(v)}
        states["lr_scheduler"] = _json(state, "the learning rate schedule's state")
    request.states = states
    request.client_state = _json(client_state, "client_state")
    if engine.global_rank == 0:
        for name, buffer in _buffers(engine).items():
            request.add_extra(name, "buffer", buffer)
    _add_client_state(request, engine)
    _C.save_engine(engine.core, request)
    return True


def _load_client_state(engine: "Engine", saved: _C.LoadedCheckpoint) -> None:
    optimizer = engine.optimizer
    if optimizer is None or optimizer._client is None:
        return
    if saved.world_size != engine.world_size:
        raise ValueError(
            f"load_checkpoint: the client optimizer's state was saved by {saved.world_size} ranks and cannot be read by "
            f"{engine.world_size}; pass load_optimizer_states=False, or use an optimizer of the config, which any world size reads")
    optimizer._bind_client()
    for g, params in enumerate(optimizer._client_groups):
        for i, param in enumerate(params):
            name = f"client/{engine.world_size}/{engine.global_rank}/{g}/{i}"
            state = {}
            for key in _STATE_NAMES:
                value = saved.read_extra(name, key)
                if value is not None:
                    state[key] = value
            if state:
                optimizer._client.state[param] = state


_STATE_NAMES = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum", "square_avg", "acc_delta", "grad_avg",
                "exp_inf", "ax", "mu", "eta", "prev", "step_size")


def load(engine: "Engine", directory: str, tag: Optional[str], strict: bool, load_optimizer_states: bool,
         load_lr_scheduler_states: bool) -> tuple[Optional[str], dict[str, Any]]:
    if tag is None and not os.path.exists(os.path.join(directory, "latest")):
        utils.logger.warning("load_checkpoint: %s has no file 'latest': nothing is loaded", directory)
        return None, {}
    saved = _C.open_checkpoint(directory, None if tag is None else str(tag))
    _C.load_engine(engine.core, saved, strict, load_optimizer_states and engine.optimizer is not None)
    for name, buffer in _buffers(engine).items():
        value = saved.read_extra(name, "buffer")
        if value is not None:
            with torch.no_grad():
                buffer.copy_(value)
    states = saved.states
    if load_optimizer_states and engine.optimizer is not None:
        if "param_groups" in states:
            engine.optimizer.load_hyperparameter_json(states["param_groups"])
        _load_client_state(engine, saved)
    if load_lr_scheduler_states and engine.lr_scheduler is not None and "lr_scheduler" in states:
        engine.lr_scheduler.load_state_dict(json.loads(states["lr_scheduler"]))
    return saved.directory, json.loads(saved.client_state)
