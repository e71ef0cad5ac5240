"""Describes a torch.nn module tree to the engine, and installs what the engine wraps."""

from __future__ import annotations

from typing import Any, Iterable, Optional

import torch

from hydrofoil import _C
from hydrofoil.errors import InvalidArgument
from hydrofoil.leaf_modules import z3_leaf_module

__all__ = ["Wrapping", "describe", "cast_buffers"]

_LISTS = (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential)


def describe(model: torch.nn.Module, keep_whole: Iterable[str], leaves: Iterable[torch.nn.Module] = (), need_values: bool = True) -> tuple[
        list[torch.nn.Module], list[_C.ModuleNode], list[str], list[torch.nn.Parameter]]:
    """Modules in tree order, their descriptions, and the parameters (each once) with their first names. `leaves`: leaf modules besides the marked ones."""
    kept = set(keep_whole)
    more_leaves = {id(module) for module in leaves}
    names: list[str] = []
    parameters: list[torch.nn.Parameter] = []
    index: dict[int, int] = {}
    modules: list[torch.nn.Module] = []
    nodes: list[_C.ModuleNode] = []
    position: dict[int, int] = {}

    def visit(module: torch.nn.Module, path: str, parent: int, leaf: Optional[torch.nn.Module] = None) -> None:
        if id(module) in position:
            return
        if isinstance(module, torch.jit.ScriptModule):
            raise InvalidArgument(f"initialize: module {path or '(root)'} is a torch.jit.ScriptModule, whose calls the engine cannot wrap; give "
                             "the module that was scripted")
        here = position[id(module)] = len(modules)
        own = []
        is_leaf = z3_leaf_module(module) or id(module) in more_leaves
        leaf = module if leaf is None and is_leaf else leaf
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in index:
                index[id(parameter)] = len(parameters)
                parameters.append(parameter)
                names.append(f"{path}.{name}" if path else name)
                if need_values or isinstance(parameter, torch.nn.parameter.UninitializedParameter):
                    _require_values(names[-1], parameter)
            own.append(index[id(parameter)])
            if leaf is not None:
                parameter.ds_z3_leaf_module = leaf
        whole = path in kept or is_leaf
        kept.discard(path)
        modules.append(module)
        nodes.append(_C.ModuleNode(path, type(module).__qualname__, parent, isinstance(module, _LISTS), whole, own))
        for name, child in module._modules.items():
            if child is not None:
                visit(child, f"{path}.{name}" if path else name, here, leaf)

    visit(model, "", -1)
    if kept:
        raise InvalidArgument(f"unit names that the model does not have: {sorted(kept)}; names are those of model.named_modules()")
    return modules, nodes, names, parameters


def _require_values(name: str, parameter: torch.nn.Parameter) -> None:
    if isinstance(parameter, torch.nn.parameter.UninitializedParameter):
        raise InvalidArgument(f"initialize: parameter {name} of a lazy module has no shape yet; run one forward before")
    if parameter.is_meta:
        raise InvalidArgument(f"initialize: parameter {name} is on the meta device and has no values; build the model under "
                         "hydrofoil.zero.Init, or give it values with module.to_empty() and load_state_dict")


def cast_buffers(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Floating-point buffers to the model dtype, as DeepSpeed's module.half() does."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                module._buffers[name] = buffer.to(dtype)


class Wrapping:
    """The forwards and _parameters that were replaced; remove() puts everything back."""

    def __init__(self, core: _C.Engine, modules: list[torch.nn.Module]) -> None:
        self._places = [(module, name, parameter) for module in modules for name, parameter in module._parameters.items()
                        if parameter is not None]
        self._forwards: list[tuple[torch.nn.Module, Any]] = []
        self._dicts: list[torch.nn.Module] = []
        for number, scope in enumerate(core.scopes):
            # Without sharded parameters only the root's call matters: it tells when a backward begins.
            if core.watches_all_scopes or scope.module == 0:
                module = modules[scope.module]
                self._forwards.append((module, module.__dict__.get("forward")))
                module.forward = core.boundary(number, module.forward)
        if core.shards_parameters:
            for module in modules:
                if module._parameters:
                    module.__dict__["_parameters"] = core.parameter_dict(module._parameters)
                    self._dicts.append(module)

    def check(self) -> None:
        """Raises ValueError where a module no longer holds the parameter that the engine trains."""
        for module, name, parameter in self._places:
            if dict.get(module.__dict__["_parameters"], name) is not parameter:
                raise InvalidArgument(
                    f"step: parameter {name!r} of a {type(module).__name__} was replaced after initialize "
                    "(load_state_dict(assign=True), an assignment, del): the engine cannot follow; load with copies, or change "
                    "the model before initialize")

    def remove(self) -> None:
        self._places.clear()
        for module, own in self._forwards:
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = own
        for module in self._dicts:
            module.__dict__["_parameters"] = dict(module._parameters)
        self._forwards.clear()
        self._dicts.clear()
