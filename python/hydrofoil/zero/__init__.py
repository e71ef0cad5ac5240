"""`deepspeed.zero`: models built sharded, and access to sharded parameters."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Optional

import torch

from hydrofoil.errors import InvalidAccess, InvalidArgument, InvalidType
from hydrofoil.zero.estimate import (
    estimate_zero2_model_states_mem_needs,
    estimate_zero2_model_states_mem_needs_all_cold,
    estimate_zero2_model_states_mem_needs_all_live,
    estimate_zero3_model_states_mem_needs,
    estimate_zero3_model_states_mem_needs_all_cold,
    estimate_zero3_model_states_mem_needs_all_live,
)
from hydrofoil.zero.init import Init
from hydrofoil.zero.parameters import ZeroParamStatus, ZeroParamType, install

__all__ = [
    "GatheredParameters", "Init", "ZeroParamStatus", "ZeroParamType", "register_external_parameter", "unwrap_model_for_generation",
    "estimate_zero2_model_states_mem_needs",
    "estimate_zero2_model_states_mem_needs_all_cold",
    "estimate_zero2_model_states_mem_needs_all_live",
    "estimate_zero3_model_states_mem_needs",
    "estimate_zero3_model_states_mem_needs_all_cold",
    "estimate_zero3_model_states_mem_needs_all_live",
]


install()


@contextlib.contextmanager
def unwrap_model_for_generation(model: Any) -> Iterator[Any]:
    """The module of an engine with every parameter gathered: generating many tokens then gathers nothing."""
    module = getattr(model, "module", model)
    with GatheredParameters(list(module.parameters())):
        yield module


class GatheredParameters:
    """Makes sharded parameters readable inside; with `modifier_rank`, what that rank writes becomes every rank's value.

    Collective: every rank enters with the same parameters. A write without `modifier_rank` raises ValueError on exit.
    Parameters that are not sharded, those of no engine, other tensors and None are left as they are. `fwd_module` needs nothing: see
    register_external_parameter.
    """

    def __init__(self, params: Any, modifier_rank: Optional[int] = None, fwd_module: Optional[torch.nn.Module] = None,
                 enabled: bool = True) -> None:
        self._params: list[torch.Tensor] = []
        self._modifier_rank = modifier_rank
        if enabled:
            items = [params] if isinstance(params, torch.Tensor) or params is None else list(params)
            for item in items:
                if item is not None and not isinstance(item, torch.Tensor):
                    raise InvalidType(f"GatheredParameters: got a {type(item).__name__}, expected parameters (torch.nn.Parameter), other tensors or None")
            world_size = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
            if modifier_rank is not None and not 0 <= modifier_rank < world_size:
                raise InvalidArgument(f"GatheredParameters: modifier_rank: got {modifier_rank}, expected 0 to {world_size - 1}")
            self._params = list({id(p): p for p in items if isinstance(p, torch.nn.Parameter)}.values())

    def __enter__(self) -> "GatheredParameters":
        self._cores: dict[int, tuple[Any, list[int]]] = {}
        self._versions: dict[int, list[int]] = {}
        self._shards = []
        for param in self._params:
            core = getattr(param, "_hydrofoil_engine", None)
            shard = getattr(param, "_hydrofoil_initial_shard", None)
            if core is not None and core.alive:
                self._cores.setdefault(id(core), (core, []))[1].append(core.find_parameter(param))
            elif shard is not None:
                self._shards.append(shard)
        for key, (core, indices) in self._cores.items():
            self._versions[key] = core.enter_access(indices)
        for shard in self._shards:
            shard.gather()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        # After an exception only the release is left to do: the ranks may not agree on more.
        modifier = self._modifier_rank if kind is None else None
        try:
            for key, (core, indices) in self._cores.items():
                core.leave_access(indices, self._versions[key], modifier)
            for shard in self._shards:
                shard.release(modifier)
        except ValueError:
            if kind is None:
                raise


def register_external_parameter(module: torch.nn.Module, parameter: torch.nn.Parameter) -> None:
    """Nothing to do: a parameter of another module that is read in a forward is noticed and gathered by itself."""
    if not isinstance(parameter, torch.nn.Parameter):
        raise InvalidAccess(f"register_external_parameter: got a {type(parameter).__name__}, expected a torch.nn.Parameter")


