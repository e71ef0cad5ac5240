"""Makes the modules that `_names.py` lists, when they are imported."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any, Optional, Sequence

from deepspeed._names import NAMES

__all__ = ["fill_package", "not_built"]


def not_built(name: str, feature: str) -> type:
    """A class in the place of a class or function that Hydrofoil does not have yet: isinstance and subclassing work, a call raises."""

    def __new__(cls: type, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{name}: {feature} is not built in Hydrofoil yet")

    module, _, short = name.rpartition(".")
    return type(short, (), {"__new__": __new__, "__doc__": f"Not built in Hydrofoil yet: {feature}.", "__module__": module, "not_built": feature})


def resolve(module: str, name: str) -> Any:
    """What `module.name` stands for: a not_built class, an object of Hydrofoil, or one of its modules."""
    target = NAMES[module][name]
    if target.startswith("!"):
        return not_built(f"{module}.{name}", target[1:])
    place, _, attribute = target.partition(":")
    value: Any = importlib.import_module(place)
    for part in attribute.split(".") if attribute else ():
        value = getattr(value, part)
    return value


def is_package(module: str) -> bool:
    return any(name.startswith(module + ".") for name in NAMES)


class _Names(types.ModuleType):
    """Names are looked up when they are first read, so an import costs what it uses."""

    def __getattr__(self, name: str) -> Any:
        module = self.__name__
        if name in NAMES[module]:
            value = resolve(module, name)
        elif f"{module}.{name}" in NAMES:
            return importlib.import_module(f"{module}.{name}")
        else:
            raise AttributeError(f"module {module!r} has no attribute {name!r} (Hydrofoil's drop-in for DeepSpeed)")
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        children = [m.rpartition(".")[2] for m in NAMES if m.rpartition(".")[0] == self.__name__]
        return sorted({*super().__dir__(), *NAMES[self.__name__], *children})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Optional[Sequence[str]] = None, target: Any = None) -> Optional[importlib.machinery.ModuleSpec]:
        if fullname not in NAMES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package(fullname))

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Names(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__["__all__"] = [name for name in NAMES[module.__name__] if not name.startswith("_")]


def fill_package(package: dict[str, Any]) -> None:
    """Makes the package `deepspeed` itself one whose names are looked up, and its submodules importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
    module = sys.modules["deepspeed"]
    module.__class__ = _Names
    package["__all__"] = [name for name in NAMES["deepspeed"] if not name.startswith("_")]
