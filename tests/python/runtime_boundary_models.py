"""Models whose boundaries are unusual: checkpointed in part or twice, odd containers in and out, inputs without gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hydrofoil.zero import GatheredParameters
from tests.python.runtime_models import WIDTH, Block, Network

# --- checkpoints --------------------------------------------------------------------------------------------------------


class CheckpointedAround(Network):
    reentrant = False

    def run_block(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(block, x, use_reentrant=self.reentrant)


class CheckpointedAroundReentrant(CheckpointedAround):
    reentrant = True


class CheckpointedTwice(CheckpointedAround):
    """Each block runs twice, each time under a checkpoint."""

    def run_block(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return super().run_block(block, super().run_block(block, x))


class CheckpointedTwiceReentrant(CheckpointedTwice):
    reentrant = True


class InnerCheckpointBlock(Block):
    reentrant = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + checkpoint(self.inner, x, use_reentrant=self.reentrant)

    def inner(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.tanh(self.up(self.norm(x))))


class InnerCheckpointBlockReentrant(InnerCheckpointBlock):
    reentrant = True


class CheckpointedInside(Network):
    block_type = InnerCheckpointBlock


class CheckpointedInsideReentrant(Network):
    block_type = InnerCheckpointBlockReentrant


class CheckpointedSpan(Network):
    """One checkpoint over all blocks, and one more around the last."""

    reentrant = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def span(y: torch.Tensor) -> torch.Tensor:
            for block in self.blocks[:-1]:
                y = block(y)
            return checkpoint(self.blocks[-1], y, use_reentrant=self.reentrant)

        return self.head(checkpoint(span, self.stem(x), use_reentrant=self.reentrant))


class CheckpointedSpanReentrant(CheckpointedSpan):
    reentrant = True

# --- values that go in and out ------------------------------------------------------------------------------------------


@dataclass
class Pair:
    left: torch.Tensor
    right: torch.Tensor | None = None


class NestedBlock(Block):
    """Every container in and out, None, an output that is an input, an output that needs no gradient."""

    def forward(self, pair: Pair, *, extra: dict[str, Any], flag: bool = True) -> Any:
        x = super().forward(pair.left) * extra["list"][0]
        return {"pair": Pair(x), "same": pair.left, "more": (x * 2, [None, x.detach()], 3), "none": None}


class Nested(Network):
    block_type = NestedBlock

    def run_block(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        out = block(Pair(x), extra={"list": [torch.tensor(0.5)]}, flag=False)
        assert out["none"] is None and out["more"][2] == 3
        return out["pair"].left + out["same"] + 0.1 * out["more"][0] + out["more"][1][1]


class NoneBlock(Block):
    def forward(self, x: torch.Tensor, memory: list[torch.Tensor]) -> None:  # type: ignore[override]
        memory.append(super().forward(x))


class ReturnsNone(Network):
    """The result leaves by an argument that was changed in place: no boundary sees it come out."""

    block_type = NoneBlock

    def run_block(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        memory: list[torch.Tensor] = []
        assert block(x, memory) is None
        return memory[0]


class Identity(nn.Module):
    """A block that may hand its input through."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.passes = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.passes else self.inner(x)


class PassesThrough(Network):
    block_type = Identity

    def __init__(self) -> None:
        super().__init__()
        self.blocks[1].passes = True


class NoGradientInputs(nn.Module):
    """Blocks whose inputs need no gradient, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(5, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(sum(block(x) for block in self.blocks)))


class LeafInputBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(F.linear(self.inner(torch.tanh(x)), weight))


class LeafInputs(nn.Module):
    """A parameter as an argument of a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.shared = nn.Parameter(torch.randn(WIDTH, WIDTH) * 0.1)
        self.blocks = nn.ModuleList(LeafInputBlock() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, self.shared)
        return x


class Box:
    """Neither tuple nor dict nor dataclass."""

    def __init__(self, value: Any) -> None:
        self.value = value


class BoxedBlock(Block):
    def forward(self, x: Any) -> Box:  # type: ignore[override]
        return Box({"x": {super().forward(x.value["x"].pop())}})


class Boxed(Network):
    """Tensors travel in sets in dicts in plain objects."""

    block_type = BoxedBlock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        box = Box({"x": {self.stem(x)}})
        for block in self.blocks:
            box = block(box)
        return self.head(box.value["x"].pop())


class WeightHolder(nn.Module):
    """A module that only hands its parameter on, whole or in part."""

    def __init__(self, part: bool) -> None:
        super().__init__()
        self.part = part
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH)

    def forward(self) -> torch.Tensor:
        return self.weight[:, 1:] if self.part else self.weight


class HandsParametersOn(Network):
    def __init__(self) -> None:
        super().__init__()
        self.holders = nn.ModuleList(WeightHolder(part) for part in (False, True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.stem(x) @ self.holders[0]())
        x = F.pad(torch.tanh(x @ self.holders[1]()), (1, 0))
        for block in self.blocks:
            x = self.run_block(block, x)
        return self.head(x)


class GathersInForward(Network):
    """A penalty on all parameters, inside forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with GatheredParameters(list(self.parameters())):
            penalty = sum((parameter.pow(2).sum() for parameter in self.parameters()), start=torch.zeros(()))
        return super().forward(x) + 0.01 * penalty
