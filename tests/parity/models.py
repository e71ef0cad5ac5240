"""Small models of the parity tests. Each is called as model(tokens, targets, turn, rank) and returns its loss in fp32."""

from __future__ import annotations

import torch
from torch import nn

NAMES = ("plain", "tied", "frozen", "odd")
VOCABULARY = 29
LENGTH = 6
MICRO_BATCH = 2


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Model(nn.Module):
    """Embedding, blocks, head. `turn` and `rank` change nothing here; OddModel uses them."""

    def __init__(self, width: int = 16, hidden: int = 24, num_blocks: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.3)  # losses near log(29), tied head or not

    def hidden(self, tokens: torch.Tensor, turn: int, rank: int) -> torch.Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor, turn: int = 0, rank: int = 0) -> torch.Tensor:
        logits = self.head(self.hidden(tokens, turn, rank))
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


class OddModel(Model):
    """Sizes that no alignment or rank count divides, and parameters that are not used in every turn or on every rank."""

    def __init__(self, mixed_dtypes: bool) -> None:
        super().__init__(width=7, hidden=13, num_blocks=3)
        self.gain = nn.Parameter(torch.tensor(1.5))  # 0-dim
        self.empty = nn.Parameter(torch.empty(0, 5))  # numel 0
        self.single = nn.Parameter(torch.tensor([0.25]))  # numel 1: fewer than ranks
        self.sometimes = nn.Linear(7, 7)  # used in even turns
        self.elsewhere = nn.Parameter(torch.full((7,), 0.5))  # used on odd ranks
        self.never = nn.Parameter(torch.ones(3))
        self.strided = nn.Parameter(torch.randn(7, 5).t())  # not contiguous
        # A 16-bit parameter in an fp32 model has a master of its own.
        self.shift = nn.Parameter(torch.full((7,), 0.125, dtype=torch.bfloat16 if mixed_dtypes else torch.float32))

    def hidden(self, tokens: torch.Tensor, turn: int, rank: int) -> torch.Tensor:
        x = self.embedding(tokens) * self.gain + self.empty.sum() + self.shift.to(self.gain.dtype)
        for block in self.blocks:
            x = block(x)
        if turn % 2 == 0:
            x = x + self.sometimes(x)
        if rank % 2 == 1:
            x = x * (1 + self.elsewhere)
        x = x + (x @ self.strided.t()) @ self.strided * 0.1
        return self.norm(x) + self.single


def build(name: str, dtype: str = "fp32", seed: int = 0) -> nn.Module:
    """The same values in every process. `dtype` is what the model will train in; the parameters come in fp32."""
    torch.manual_seed(seed)
    if name == "odd":
        return OddModel(mixed_dtypes=dtype == "fp32")
    model = Model()
    if name == "tied":
        model.head.weight = model.embedding.weight
        model.blocks[1].up.weight = model.blocks[0].up.weight
    elif name == "frozen":
        for frozen in (model.embedding.weight, model.blocks[0].norm.weight, model.blocks[0].up.weight, model.blocks[1].down.bias):
            frozen.requires_grad_(False)
    elif name != "plain":
        raise ValueError(f"got model {name!r}, expected one of {NAMES}")
    return model


def batch(step: int, micro: int, rank: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Arguments of the model: a function of its arguments alone. Targets follow from tokens, so that there is something to learn."""
    generator = torch.Generator().manual_seed(1000003 * step + 1009 * micro + rank)
    tokens = torch.randint(VOCABULARY, (MICRO_BATCH, LENGTH), generator=generator)
    return tokens, (tokens * 3 + 1) % VOCABULARY, step + micro, rank
