"""Small models for tests of the engine's state, and a few steps of training."""

from __future__ import annotations

import os
from typing import Any, Callable, Optional

import torch
from torch import nn

WIDTH = 12


class Block(nn.Module):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width + 1)
        self.down = nn.Linear(2 * width + 1, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Odd(nn.Module):
    """Blocks between an embedding and a tied head; a frozen layer, a 0-dim, an empty, and a tiny parameter; a buffer."""

    def __init__(self, width: int = WIDTH, blocks: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(blocks)])
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 17, bias=False)
        self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.count += 1
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        x = self.norm((x + self.frozen(x)).flatten(0, 1))
        return self.head(x) * self.scale + self.bias


def rank() -> int:
    return int(os.environ["RANK"])


def world_size() -> int:
    return int(os.environ["WORLD_SIZE"])


def plain(seed: int = 0, make: Callable[[], nn.Module] = Odd) -> nn.Module:
    torch.manual_seed(seed)
    return make()


def config(stage: int, dtype: str = "fp32", accumulation: int = 1, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": accumulation,
        "zero_optimization": {"stage": stage},
        "hydrofoil": {"unit_min_bytes": 0},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.01, "weight_decay": 0.1}},
    }
    if dtype != "fp32":
        result[dtype] = {"enabled": True}
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key].update(value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def batch(step: int, for_rank: Optional[int] = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * step + (rank() if for_rank is None else for_rank))
    return torch.randint(0, 17, (4, 5), generator=generator)


def loss_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(tokens).float(), tokens.flatten().roll(-1))


def train(engine: Any, steps: int, first: int = 0) -> list[float]:
    losses = []
    for step in range(first, first + steps):
        for micro in range(engine.gradient_accumulation_steps()):
            loss = loss_of(engine, batch(100 * step + micro))
            engine.backward(loss)
            engine.step()
        losses.append(loss.item())
    return losses


def full_state(engine: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in engine.module_state_dict().items()}


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], what: str = "") -> None:
    assert left.keys() == right.keys(), f"{what}: {set(left) ^ set(right)}"
    for name in left:
        assert left[name].dtype == right[name].dtype, f"{what} {name}: {left[name].dtype}, {right[name].dtype}"
        assert torch.equal(left[name], right[name]), f"{what} {name} differs: {left[name]}, {right[name]}"


def raises(kind: type[BaseException], action: Callable[[], Any], *fragments: str) -> str:
    """The message of the error; fails where there is none, it is of another type, or lacks a fragment."""
    try:
        action()
    except kind as error:
        for fragment in fragments:
            assert fragment in str(error), f"{fragment!r} is not in: {error}"
        return str(error)
    raise AssertionError(f"no {kind.__name__} was raised")
