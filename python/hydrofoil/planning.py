"""What a job keeps in memory, sends and takes a step, before it starts."""

from __future__ import annotations

import numbers
from typing import Any, Callable, Optional, Union

import torch

from hydrofoil import _C, _modules
from hydrofoil._config import resolve
from hydrofoil._trace import trace_costs
from hydrofoil.leaf_modules import leaf_modules_of_config

__all__ = ["plan"]

_MOST_RANKS = 1 << 24  # as the command


def plan(model: torch.nn.Module, config: Any, world_size: int = 1, num_nodes: int = 1, *, memory: Optional[Union[int, str]] = None,
         step: Optional[Callable[[torch.nn.Module], torch.Tensor]] = None, roofs: Optional[_C.Roofs] = None) -> _C.Plan:
    """The plan of training `model` (its parameters may be on the meta device) under a ds_config: print it, or read its fields.

    Bytes of states, gathered units and gradient buckets are exact. `step` returns the loss of one micro batch, e.g.
    ``lambda model: model(input_ids=ids, labels=ids).loss``: it is traced without computing or allocating anything, for
    activations and compute; without it both are left out. `memory` (bytes or text like "24GiB", of a rank): ValueError
    where the plan needs more, with the cheapest setting that would fit.
    """
    world_size, num_nodes = _count("world_size", world_size, _MOST_RANKS), _count("num_nodes", num_nodes, _MOST_RANKS)
    device = next((p.device.type for p in model.parameters()), "cpu")
    cpu_device = device in ("cpu", "meta") and not (device == "meta" and torch.cuda.is_available())
    options = resolve(config, world_size, cpu_device)
    modules, nodes, names, parameters = _modules.describe(model, options.unit_names, leaf_modules_of_config(model, options.leaf_module), need_values=False)
    table = [(name, p.numel(), _dtype(p), p.requires_grad) for name, p in zip(names, parameters)]
    costs = trace_costs(model, modules, _model_dtype(options), step) if step is not None else []
    limit = _C.parse_byte_size("memory", memory) if isinstance(memory, str) else None if memory is None else _count("memory", memory, 2**62)
    made, why_not = _C.make_plan(options, world_size, num_nodes, cpu_device, True, nodes, table, costs, roofs or _C.Roofs(), limit)
    if why_not is not None:
        raise ValueError(f"plan: {why_not}")
    return made


def _count(name: str, value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 1 <= value <= most or value != int(value):
        raise ValueError(f"plan: {name}: got {value!r}, expected a whole number from 1 to {most}")
    return int(value)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _model_dtype(options: _C.EngineOptions) -> Optional[torch.dtype]:
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[options.model_dtype]
