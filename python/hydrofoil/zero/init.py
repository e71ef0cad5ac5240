"""`zero.Init`: a model whose parameters are sharded while it is built."""

from __future__ import annotations

import functools
from typing import Any, Callable, Optional

import torch

from hydrofoil import _C, comm

__all__ = ["Init"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Init:
    """Inside, each module's parameters are sharded as soon as the module is built, with rank 0's values.

    `initialize` takes the shards over, one unit at a time, so memory never holds more than the shards and the largest unit.
    `config_dict_or_path` gives the dtype; `dtype` overrides it; `enabled=False` does nothing.
    """

    _depth = 0

    def __init__(self, module: Optional[torch.nn.Module] = None, data_parallel_group: Any = None, mem_efficient_linear: bool = True,
                 remote_device: Optional[str] = None, pin_memory: bool = False, config_dict_or_path: Any = None, config: Any = None,
                 enabled: bool = True, dtype: Optional[torch.dtype] = None, mpu: Any = None, **unsupported: Any) -> None:
        if data_parallel_group is not None or mpu is not None:
            raise NotImplementedError("zero.Init: data_parallel_group and mpu are not yet supported; it shards over all ranks")
        if remote_device not in (None, "none", "cpu"):
            raise NotImplementedError(f"zero.Init: remote_device: got {remote_device!r}, expected None, 'none' or 'cpu'")
        active = [name for name, value in unsupported.items() if value]
        if active:
            raise NotImplementedError(f"zero.Init: {active} are not yet supported")
        self._enabled = enabled
        self._dtype = dtype
        self._timeout_s, self._backend = 600.0, "auto"
        config = config_dict_or_path if config_dict_or_path is not None else config
        if enabled:
            comm.init_distributed()
            self._read_config(config)
        if module is not None and enabled:
            self._group = comm.engine_groups(self._backend, self._timeout_s)[0]
            for child in module.modules():
                self._shard(child)

    def _read_config(self, config: Any) -> None:
        if config is None:
            return
        from hydrofoil.initialize import config_text

        options = _C.resolve_config(config_text(config), torch.distributed.get_world_size(), True)
        self._enabled = options.zero_stage == 3
        self._timeout_s, self._backend = options.collective_timeout_s, options.comm_backend
        if self._dtype is None:
            self._dtype = _DTYPES[options.model_dtype]

    def _shard(self, module: torch.nn.Module) -> None:
        for name, parameter in module._parameters.items():
            if parameter is None or "_hydrofoil_initial_shard" in parameter.__dict__:
                continue
            parameter._hydrofoil_initial_shard = _C.InitialShard(parameter, f"{type(module).__name__}.{name}", self._group, self._dtype)

    def _wrap(self, original: Callable[..., None]) -> Callable[..., None]:
        init = self

        @functools.wraps(original)
        def build(module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
            depth = module.__dict__.get("_hydrofoil_init_depth", 0)
            module.__dict__["_hydrofoil_init_depth"] = depth + 1
            try:
                original(module, *args, **kwargs)
            finally:
                module.__dict__["_hydrofoil_init_depth"] = depth
            if depth == 0:  # the outermost __init__ of a class hierarchy has run
                module.__dict__.pop("_hydrofoil_init_depth", None)
                init._shard(module)

        return build

    def __enter__(self) -> "Init":
        if not self._enabled or Init._depth > 0:
            self._patched: Optional[list[tuple[type, Callable[..., None]]]] = None
            Init._depth += 1
            return self
        Init._depth += 1
        self._group = comm.engine_groups(self._backend, self._timeout_s)[0]
        self._patched = []
        self._patch_tree(torch.nn.Module)
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

    def _patch_tree(self, root: type) -> None:
        seen: set[type] = set()
        stack = list(root.__subclasses__())
        while stack:
            cls = stack.pop()
            if cls in seen:
                continue
            seen.add(cls)
            stack.extend(cls.__subclasses__())
            self._patch(cls)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        Init._depth -= 1
        if self._patched is None:
            return
        for cls, original in reversed(self._patched):
            cls.__init__ = original  # type: ignore[misc]
        if self._subclass_hook is None:
            del torch.nn.Module.__init_subclass__
        else:
            torch.nn.Module.__init_subclass__ = self._subclass_hook  # type: ignore[assignment,method-assign]
        self._patched = None
