"""DeepSpeed's questions about mixture of experts (MoE): a model here has no such layers, and parameter groups stay as they are."""

from __future__ import annotations

from typing import Any, Sequence, Union

import torch

from hydrofoil.errors import InvalidType

__all__ = ["has_moe_layers", "is_moe_param", "is_moe_param_group", "split_params_into_different_moe_groups_for_optimizer"]


def has_moe_layers(m: torch.nn.Module) -> tuple[bool, int]:
    """Whether the model has MoE layers, and their number of experts: (False, 0), as there is no MoE layer to build one with."""
    return False, 0


def is_moe_param(param: torch.Tensor) -> bool:
    """Whether a program marked the parameter as an expert's, in DeepSpeed's way (`param.allreduce = False`)."""
    return not getattr(param, "allreduce", True)


def is_moe_param_group(param_group: dict[str, Any]) -> bool:
    return bool(param_group.get("moe", False))


def split_params_into_different_moe_groups_for_optimizer(param_groups: Union[dict[str, Any], Sequence[dict[str, Any]]],
                                                         max_group_size: Union[int, float, None] = 178956971) -> list[dict[str, Any]]:
    """The groups as a list, unchanged. NotImplementedError where a parameter is marked as an expert's."""
    if not isinstance(param_groups, (dict, tuple, list)):
        raise InvalidType(f"split_params_into_different_moe_groups_for_optimizer: got {type(param_groups).__name__}, expected parameter groups or one")
    groups = [param_groups] if isinstance(param_groups, dict) else list(param_groups)
    for index, group in enumerate(groups):
        if any(is_moe_param(param) for param in group["params"]):
            raise NotImplementedError(f"parameter group {index} has a parameter with allreduce = False: mixture of experts (MoE) is not built in Hydrofoil yet")
    return groups
