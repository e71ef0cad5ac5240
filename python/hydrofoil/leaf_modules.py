"""Modules whose whole subtree is one unit of stage 3 ("leaf modules"): experts and others that not every forward runs."""

from __future__ import annotations

from typing import Any, Callable

import torch

from hydrofoil.errors import InvalidArgument, InvalidType

__all__ = ["get_z3_leaf_modules", "set_z3_leaf_module", "set_z3_leaf_modules", "set_z3_leaf_modules_by_name", "set_z3_leaf_modules_by_suffix",
           "unset_z3_leaf_modules", "z3_leaf_module", "z3_leaf_parameter"]


def z3_leaf_module(module: torch.nn.Module) -> bool:
    return bool(getattr(module, "_z3_leaf", False))


def set_z3_leaf_module(module: torch.nn.Module, flag: bool) -> None:
    module._z3_leaf = flag  # type: ignore[assignment]


def get_z3_leaf_modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in model.modules() if z3_leaf_module(module)]


def z3_leaf_parameter(parameter: torch.Tensor) -> bool:
    """Whether the engine keeps the parameter in a unit with the whole subtree of a leaf module; false before `initialize`."""
    return hasattr(parameter, "ds_z3_leaf_module")


def _mark(model: torch.nn.Module, flag: bool, wanted: Callable[[str, torch.nn.Module], bool], what: Any, raise_if_not_found: bool) -> list[torch.nn.Module]:
    found = [module for name, module in model.named_modules() if wanted(name, module)]
    for module in found:
        set_z3_leaf_module(module, flag)
    if not found and raise_if_not_found:
        raise InvalidArgument(f"no modules of {what} found in the model")
    return found


def _of_class(leaf_modules: list[Any]) -> Callable[[str, torch.nn.Module], bool]:
    wrong = [leaf for leaf in leaf_modules if not isinstance(leaf, (type, str))]
    if wrong:
        raise InvalidType(f"leaf modules: got {wrong[0]!r}, expected classes of modules, or their names")

    def is_wanted(_: str, module: torch.nn.Module) -> bool:
        names = {type(module).__name__, f"{type(module).__module__}.{type(module).__qualname__}"}
        return any(isinstance(module, leaf) if isinstance(leaf, type) else leaf in names for leaf in leaf_modules)

    return is_wanted


def set_z3_leaf_modules(model: torch.nn.Module, leaf_modules: list[Any], raise_if_not_found: bool = True) -> list[torch.nn.Module]:
    """Marks modules by class or class name; call it before initialize. ValueError where there is none."""
    return _mark(model, True, _of_class(leaf_modules), leaf_modules, raise_if_not_found)


def unset_z3_leaf_modules(model: torch.nn.Module, leaf_modules: list[Any], raise_if_not_found: bool = True) -> list[torch.nn.Module]:
    return _mark(model, False, _of_class(leaf_modules), leaf_modules, raise_if_not_found)


def set_z3_leaf_modules_by_name(model: torch.nn.Module, module_names: list[str], raise_if_not_found: bool = True) -> list[torch.nn.Module]:
    """Marks modules by their names in the model ("layers.3.experts")."""
    return _mark(model, True, lambda name, _: name in module_names, module_names, raise_if_not_found)


def set_z3_leaf_modules_by_suffix(model: torch.nn.Module, module_name_suffixes: list[str], raise_if_not_found: bool = True) -> list[torch.nn.Module]:
    """Marks modules whose names end so ("experts")."""
    return _mark(model, True, lambda name, _: any(name == s or name.endswith("." + s) for s in module_name_suffixes), module_name_suffixes, raise_if_not_found)
