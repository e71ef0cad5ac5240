"""What a config is made of before C++ resolves it."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import torch

from hydrofoil import _C
from hydrofoil.errors import ConfigError

__all__ = ["DTYPES", "config_dict", "config_text", "resolve"]

# What C++ calls dtypes in options.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def config_text(config: Any) -> str:
    """A config as C++ takes it: JSON text of a dict, or the path or base64 text as it is."""
    if isinstance(config, dict):
        config = _nested(config)
        try:
            return json.dumps(config)
        except TypeError:
            path, value = _not_json(config, "")
            raise ConfigError(f"config: {path}: got a {type(value).__name__}, expected what JSON knows: a number, string, bool, None, "
                            "list or dict") from None
    if isinstance(config, (str, os.PathLike)):
        return os.fspath(config)
    raise ConfigError(f"config: got {type(config).__name__}, expected a dict, a path, or base64 text")


def resolve(config: Any, world_size: int, cpu_device: bool) -> _C.EngineOptions:
    """The options of a config for `world_size` ranks. Raises ConfigError."""
    text = config_text(config)
    try:
        return _C.resolve_config(text, world_size, cpu_device)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def config_dict(config: Any) -> dict[str, Any]:
    """What was given: a dict as it is; of a path, base64 or JSON text, what C++ has read there."""
    if isinstance(config, dict):
        return config
    return json.loads(_C.config_json(os.fspath(config)))


def _nested(config: dict[str, Any]) -> dict[str, Any]:
    """TRL (1.16) writes "zero_optimization.reduce_bucket_size" as one key, which DeepSpeed overlooks: it becomes the section's key."""
    dotted = [key for key in config if isinstance(key, str) and key.startswith("zero_optimization.") and key.count(".") == 1]
    if not dotted:
        return config
    section = dict(config.get("zero_optimization") or {})
    for key in dotted:
        value = config[key]
        section.setdefault(key.partition(".")[2], int(value) if isinstance(value, float) and key.endswith(("_size", "_threshold")) else value)
    logging.getLogger("hydrofoil").warning("config: %s: taken as keys of the section zero_optimization, where it has none of that name", ", ".join(dotted))
    return {key: value for key, value in config.items() if key not in dotted} | {"zero_optimization": section}


def _not_json(value: Any, path: str) -> tuple[str, Any]:
    """The first value that JSON cannot hold, and its path."""
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return path, value
    for name, item in items:
        try:
            json.dumps(item)
        except TypeError:
            return _not_json(item, name)
    return path, value
