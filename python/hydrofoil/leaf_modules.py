"""Modules whose whole subtree is one unit of stage 3 ("leaf modules"): experts and others that not every forward runs."""

from __future__ import annotations

import logging
from typing import Any, Callable

import torch

from hydrofoil import _C
from hydrofoil.errors import InvalidArgument, InvalidType

__all__ = ["get_z3_leaf_modules", "leaf_modules_of_config", "set_z3_leaf_module", "set_z3_leaf_modules", "set_z3_leaf_modules_by_name",
           "set_z3_leaf_modules_by_suffix", "unset_z3_leaf_modules", "z3_leaf_module", "z3_leaf_parameter"]


def z3_leaf_module(module: torch.nn.Module) -> bool:
    return bool(getattr(module, "_z3_leaf", False))


def set_z3_leaf_module(module: torch.nn.Module, flag: bool) -> None:
    module._z3_leaf = flag  # type: ignore[assignment]


def get_z3_leaf_modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in model.modules() if z3_leaf_module(module)]


def z3_leaf_parameter(parameter: torch.Tensor) -> bool:
    """Whether the engine keeps the parameter in a unit with the whole subtree of a leaf module; false before `initialize`."""
    return hasattr(parameter, "ds_z3_leaf_module")


# Whether a module, by its name in the model, is one that is wanted.
_Matches = Callable[[str, torch.nn.Module], bool]


def _matching(model: torch.nn.Module, matches: _Matches) -> list[torch.nn.Module]:
    return [module for name, module in model.named_modules() if matches(name, module)]


def _has_name(wanted: str) -> _Matches:
    return lambda name, _: name == wanted


def _ends_so(suffix: str) -> _Matches:
    return lambda name, _: name.endswith(suffix)


def _of_class(leaf_modules: list[Any]) -> _Matches:
    wrong = [leaf for leaf in leaf_modules if not isinstance(leaf, (type, str))]
    if wrong:
        raise InvalidType(f"leaf modules: got {wrong[0]!r}, expected classes of modules, or their names")

    def is_wanted(_: str, module: torch.nn.Module) -> bool:
        names = {type(module).__name__, f"{type(module).__module__}.{type(module).__qualname__}"}
        return any(isinstance(module, leaf) if isinstance(leaf, type) else leaf in names for leaf in leaf_modules)

    return is_wanted


def _mark_classes(model: torch.nn.Module, flag: bool, leaf_modules: list[Any], raise_if_not_found: bool) -> list[torch.nn.Module]:
    found = _matching(model, _of_class(leaf_modules))
    for module in found:
        set_z3_leaf_module(module, flag)
    if not found and raise_if_not_found:
        raise InvalidArgument(f"no modules of {leaf_modules} found in the model")
    return found


def set_z3_leaf_modules(model: torch.nn.Module, leaf_modules: list[Any], raise_if_not_found: bool = True) -> list[torch.nn.Module]:
    """Marks modules by class or class name; call it before initialize. ValueError where there is none."""
    return _mark_classes(model, True, leaf_modules, raise_if_not_found)


def unset_z3_leaf_modules(model: torch.nn.Module, leaf_modules: list[Any], raise_if_not_found: bool = True) -> list[torch.nn.Module]:
    return _mark_classes(model, False, leaf_modules, raise_if_not_found)


def _find_each(model: torch.nn.Module, wanted: list[str], rule: Callable[[str], _Matches]) -> tuple[list[torch.nn.Module], list[str]]:
    """The modules that match any of `wanted`, each once, and those of `wanted` that match none."""
    found: dict[int, torch.nn.Module] = {}
    missing = []
    for each in wanted:
        modules = _matching(model, rule(each))
        found.update((id(module), module) for module in modules)
        if not modules:
            missing.append(each)
    return list(found.values()), missing


def _mark_each(model: torch.nn.Module, flag: bool, wanted: list[str], rule: Callable[[str], _Matches], what: str,
               raise_if_not_found: bool) -> tuple[list[torch.nn.Module], list[str]]:
    found, missing = _find_each(model, wanted, rule)
    for module in found:
        set_z3_leaf_module(module, flag)
    if missing and raise_if_not_found:
        raise InvalidArgument(f"no modules {what} {missing} found in the model; names are those of model.named_modules()")
    return found, missing


def set_z3_leaf_modules_by_name(model: torch.nn.Module, module_names: list[str], flag: bool = True,
                                raise_if_not_found: bool = True) -> tuple[list[torch.nn.Module], list[str]]:
    """Marks modules by their names in the model ("layers.3.experts"); returns them and the names that the model does not have."""
    return _mark_each(model, flag, module_names, _has_name, "of the names", raise_if_not_found)


def set_z3_leaf_modules_by_suffix(model: torch.nn.Module, module_name_suffixes: list[str], flag: bool = True,
                                  raise_if_not_found: bool = True) -> tuple[list[torch.nn.Module], list[str]]:
    """Marks modules whose names end so ("experts"); returns them and the ends that no name has."""
    return _mark_each(model, flag, module_name_suffixes, _ends_so, "with names that end in", raise_if_not_found)


def leaf_modules_of_config(model: torch.nn.Module, leaf_module: _C.LeafModuleOptions) -> list[torch.nn.Module]:
    """The modules that `zero_optimization.leaf_module` says; a warning names what matches nothing, other than the default classes."""
    leaves: list[torch.nn.Module] = []
    unmatched = []
    for key, rule in (("classes", lambda name: _of_class([name])), ("names", _has_name), ("name_suffixes", _ends_so)):
        wanted = getattr(leaf_module, key)
        found, missing = _find_each(model, wanted, rule)
        leaves += found
        if missing and wanted != getattr(_C.LeafModuleOptions(), key):
            unmatched.append(f"{key} {', '.join(missing)}")
    if unmatched:
        logging.getLogger("hydrofoil").warning("zero_optimization.leaf_module: no module of the model matches %s", "; ".join(unmatched))
    return leaves
