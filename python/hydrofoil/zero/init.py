"""`zero.Init`: a model whose parameters are sharded while it is built."""

from __future__ import annotations

import contextlib
import copy
import functools
from typing import Any, Callable, ItemsView, Iterator, Optional

import torch

from hydrofoil import _C, comm
from hydrofoil._config import DTYPES, resolve

__all__ = ["Init"]

_SHARD = "_hydrofoil_initial_shard"
_TRIM_BYTES = 16 << 20  # of full parameters freed, after which the holes of the heap go back to the system


class _Builder:
    """The parameters that constructors which still run have read again: of the last two modules, so memory stays small."""

    def __init__(self, init: "Init") -> None:
        self.init = init
        self.running = 0  # constructors on the stack
        self._held: dict[int, list[_C.InitialShard]] = {}

    def access(self, owner: int, parameter: Any) -> None:
        shard = parameter.__dict__.get(_SHARD) if isinstance(parameter, torch.Tensor) else None
        if shard is None or not self.running:
            return
        shards = self._held.pop(owner, [])
        if shard not in shards:
            while len(self._held) >= 2:
                self._release(next(iter(self._held)))
            shard.gather()
            shards.append(shard)
        self._held[owner] = shards

    def release_all(self) -> None:
        while self._held:
            self._release(next(iter(self._held)))

    def _release(self, owner: int) -> None:
        for shard in self._held.pop(owner):
            shard.release(0)  # what rank 0 wrote is the value


class _BuiltParameters(dict):  # type: ignore[type-arg]
    """`_parameters` of a module inside Init: while a constructor runs, what it reads is gathered and what it writes is kept."""

    def __init__(self, parameters: dict[str, Any], builder: _Builder) -> None:
        super().__init__(parameters)
        self._builder = builder

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        self._builder.access(id(self), value)
        return value

    def items(self) -> ItemsView[str, Any]:
        if not self._builder.running:
            return super().items()
        return ((name, self[name]) for name in list(self))  # type: ignore[return-value]

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {name: copy.deepcopy(self[name], memo) for name in self}

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class Init:
    """Inside, each module's parameters are sharded as soon as the module is built, with rank 0's values.

    Constructors may read and write the parameters of the modules inside them (weight initialisation, tying, copying); what
    rank 0 writes counts. Elsewhere use GatheredParameters. `initialize` takes the shards over, one unit at a time, so memory
    never holds more than the shards and the largest unit. `config_dict_or_path` gives the dtype; `dtype` overrides it;
    `enabled=False`, or a config of another stage than 3, does nothing. Every rank builds the same model in the same order.
    """

    _stack: list["Init"] = []  # the active one, if any

    def __init__(self, module: Optional[torch.nn.Module] = None, data_parallel_group: Any = None, mem_efficient_linear: bool = True,
                 remote_device: Optional[str] = None, pin_memory: bool = False, config_dict_or_path: Any = None, config: Any = None,
                 enabled: bool = True, dtype: Optional[torch.dtype] = None, mpu: Any = None, zero_param_parallel_group: Any = None,
                 zero_quantized_weights: bool = False, zero_quantized_nontrainable_weights: bool = False, sequence_data_parallel_group: Any = None,
                 param_swapper: Any = None, tensor_overrides: Any = None) -> None:
        groups = [group for group in (data_parallel_group, sequence_data_parallel_group) if group is not None]
        if mpu is not None or any(torch.distributed.get_world_size(group) != torch.distributed.get_world_size() for group in groups):
            raise NotImplementedError("zero.Init: groups of some ranks, and mpu, are not yet supported; it shards over all ranks")
        unsupported = {"zero_param_parallel_group": zero_param_parallel_group, "zero_quantized_weights": zero_quantized_weights,
                       "zero_quantized_nontrainable_weights": zero_quantized_nontrainable_weights, "param_swapper": param_swapper,
                       "tensor_overrides": tensor_overrides}
        if remote_device not in (None, "none", "cpu"):
            raise NotImplementedError(f"zero.Init: remote_device: got {remote_device!r}, expected None, 'none' or 'cpu'")
        active = [name for name, value in unsupported.items() if value]
        if active:
            raise NotImplementedError(f"zero.Init: {active} are not yet supported")
        self._enabled = enabled
        self._dtype = dtype
        self._timeout_s, self._backend = 600.0, "auto"
        self._group: Optional[_C.Group] = None
        self._patched: Optional[list[tuple[type, Callable[..., None]]]] = None
        self._builder = _Builder(self)
        self._built: list[torch.nn.Module] = []
        self._freed_bytes = 0
        config = config_dict_or_path if config_dict_or_path is not None else config
        if enabled:
            comm.init_distributed()
            self._read_config(config)
        if module is not None and self._enabled:
            self._connect()
            self._shard_tree(module)

    @staticmethod
    @contextlib.contextmanager
    def suspended() -> Iterator[None]:
        """No module that is built inside is sharded, even where an Init is active around it."""
        active = Init._stack
        Init._stack = []
        try:
            yield
        finally:
            Init._stack = active

    def _read_config(self, config: Any) -> None:
        if config is None:
            return
        options = resolve(config, torch.distributed.get_world_size(), True)
        self._enabled = options.zero_stage == 3
        self._timeout_s, self._backend = options.collective_timeout_s, options.comm_backend
        if self._dtype is None:
            self._dtype = DTYPES[options.model_dtype]

    def _connect(self) -> None:
        if self._group is None:
            device = torch.get_default_device().type
            self._group = comm.EngineGroups(self._backend, self._timeout_s, "cuda" if device == "cuda" else "cpu").gather

    def _shard_tree(self, module: torch.nn.Module) -> None:
        for child in module.modules():
            for name, parameter in dict.items(child._parameters):
                if parameter is None or _SHARD in parameter.__dict__ or "_hydrofoil_engine" in parameter.__dict__:
                    continue
                self._freed_bytes += parameter.numel() * parameter.element_size()
                shard = _C.InitialShard(parameter, f"{type(child).__name__}.{name}", self._group, self._dtype)
                setattr(parameter, _SHARD, shard)
                if self._freed_bytes >= _TRIM_BYTES:
                    _C.trim_heap()
                    self._freed_bytes = 0
            if self._patched is not None and child._parameters and not isinstance(child._parameters, _BuiltParameters):
                child.__dict__["_parameters"] = _BuiltParameters(child._parameters, self._builder)
                self._built.append(child)

    # -- the context -----------------------------------------------------------------------------------------------------
    def _wrap(self, original: Callable[..., None]) -> Callable[..., None]:
        init = self

        @functools.wraps(original)
        def build(module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
            if Init._stack != [init] or "_hydrofoil_building" in module.__dict__:
                return original(module, *args, **kwargs)
            module.__dict__["_hydrofoil_building"] = True
            init._builder.running += 1
            try:
                original(module, *args, **kwargs)  # with this one the __init__ of all its base classes
            finally:
                init._builder.running -= 1
                module.__dict__.pop("_hydrofoil_building", None)
                if not init._builder.running:
                    init._builder.release_all()
            init._shard_tree(module)
            return None

        return build

    def __enter__(self) -> "Init":
        if not self._enabled or Init._stack:  # within another Init, that one's settings hold
            return self
        Init._stack = [self]
        self._connect()
        self._patched = []
        seen: set[type] = set()
        stack = list(torch.nn.Module.__subclasses__())
        while stack:
            cls = stack.pop()
            if cls not in seen:
                seen.add(cls)
                stack.extend(cls.__subclasses__())
                self._patch(cls)
        self._subclass_hook = torch.nn.Module.__dict__.get("__init_subclass__")
        init = self

        def init_subclass(cls: type, **kwargs: Any) -> None:  # classes that are defined inside the context
            super(torch.nn.Module, cls).__init_subclass__(**kwargs)
            init._patch(cls)

        torch.nn.Module.__init_subclass__ = classmethod(init_subclass)  # type: ignore[assignment,method-assign]
        return self

    def _patch(self, cls: type) -> None:
        if "__init__" in cls.__dict__ and self._patched is not None:
            self._patched.append((cls, cls.__dict__["__init__"]))
            cls.__init__ = self._wrap(cls.__dict__["__init__"])  # type: ignore[misc]

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if self._patched is None:
            return
        Init._stack = []
        for cls, original in reversed(self._patched):
            cls.__init__ = original  # type: ignore[misc]
        if self._subclass_hook is None:
            del torch.nn.Module.__init_subclass__
        else:
            torch.nn.Module.__init_subclass__ = self._subclass_hook  # type: ignore[assignment,method-assign]
        self._patched = None
        for module in self._built:
            module.__dict__["_parameters"] = dict(module.__dict__["_parameters"])
        self._built.clear()
