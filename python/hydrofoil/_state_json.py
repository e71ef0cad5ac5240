"""Python values as JSON text from which they come back as they were: tuples, bytes, dicts with any keys, tensors."""

from __future__ import annotations

import base64
import collections
import json
from typing import Any, Optional, Sequence

import torch

__all__ = ["dumps", "loads"]

_TAG = "__hydrofoil__"  # what JSON has no form for is an object with this key


def dumps(value: Any, tensors: Optional[list[torch.Tensor]] = None) -> str:
    """JSON text. Tensors with dimensions are appended to `tensors`, for the caller to keep; without it they raise TypeError.

    Raises TypeError, with the keys that lead there, for other types than None, bool, int, float, str, bytes, list, tuple, dict, Counter and tensors.
    """
    return json.dumps(_encode(value, tensors, ""))


def loads(text: str, tensors: Sequence[torch.Tensor] = ()) -> Any:
    """The value again; `tensors` as dumps() filled it. Plain JSON text is read as it is."""
    return _decode(json.loads(text), tensors)


def _encode(value: Any, tensors: Optional[list[torch.Tensor]], path: str) -> Any:
    if isinstance(value, (tuple, list)):
        items = [_encode(item, tensors, f"{path}[{index}]") for index, item in enumerate(value)]
        return {_TAG: "tuple", "items": items} if isinstance(value, tuple) else items
    if isinstance(value, dict):
        counter = isinstance(value, collections.Counter)
        if not counter and _TAG not in value and all(isinstance(key, str) for key in value):
            return {key: _encode(item, tensors, f"{path}[{key!r}]") for key, item in value.items()}
        pairs = [[_encode(key, None, f"{path}, the key {key!r}"), _encode(item, tensors, f"{path}[{key!r}]")] for key, item in value.items()]
        return {_TAG: "Counter" if counter else "dict", "items": pairs}
    if isinstance(value, bytes):
        return {_TAG: "bytes", "base64": base64.b64encode(value).decode()}
    if isinstance(value, torch.Tensor) and value.dim() == 0:
        return {_TAG: "number", "dtype": str(value.dtype).removeprefix("torch."), "value": value.item()}
    if isinstance(value, torch.Tensor) and tensors is not None:
        tensors.append(value)
        return {_TAG: "tensor", "index": len(tensors) - 1}
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"{path or 'the value'}: a {type(value).__name__}")
    return value


def _decode(value: Any, tensors: Sequence[torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = value.get(_TAG)
    if tag is None:
        return {key: _decode(item, tensors) for key, item in value.items()}
    if tag == "tuple":
        return tuple(_decode(item, tensors) for item in value["items"])
    if tag in ("dict", "Counter"):
        pairs = {_decode(key, tensors): _decode(item, tensors) for key, item in value["items"]}
        return collections.Counter(pairs) if tag == "Counter" else pairs
    if tag == "bytes":
        return base64.b64decode(value["base64"])
    if tag == "number":
        return torch.tensor(value["value"], dtype=getattr(torch, value["dtype"]))
    if tag == "tensor":
        return tensors[value["index"]]
    raise ValueError(f"a checkpoint of a newer Hydrofoil: it holds a value of the unknown form {tag!r}")
