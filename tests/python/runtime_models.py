"""Small models with what real models have: blocks, tied, frozen, unused, odd and empty parameters."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

WIDTH = 12


class Block(nn.Module):
    def __init__(self, width: int = WIDTH, hidden: int = 17) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Network(nn.Module):
    """Three blocks between two linears."""

    block_type: type[nn.Module] = Block

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.blocks = nn.ModuleList(self.block_type() for _ in range(depth))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = self.run_block(block, x)
        return self.head(x)

    def run_block(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return block(x)


class Tied(nn.Module):
    """The head reads the embedding's weight by attribute; another head shares it as its own parameter."""

    def __init__(self, sparse: bool = False, shared_head: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, WIDTH, sparse=sparse)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.out = nn.Linear(WIDTH, 11, bias=False) if shared_head else None
        if shared_head:
            self.out.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        if self.out is not None:
            return self.out(x)
        return F.linear(x, self.embed.weight)


class Odd(nn.Module):
    """0-dim, empty, smaller than the ranks, non-contiguous and channels-last parameters, two dtypes in one module, one frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.single = nn.Parameter(torch.ones(1))
        self.transposed = nn.Parameter(torch.randn(4, 5).t())
        self.strided = nn.Parameter(torch.randn(5, 8)[:, ::2])
        self.brain = nn.Parameter(torch.randn(5, 7).bfloat16())
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, self.transposed) * self.scale + self.single + F.linear(x, self.strided)
        z = F.linear(y.bfloat16(), self.brain.t()).float()
        image = x[:, :3, None, None].expand(-1, 3, 5, 5) * self.frozen[None, :, None, None]
        return z.pow(2).mean() + self.conv(image).pow(2).mean() + self.empty.sum()


class Routed(nn.Module):
    """Each step uses the experts that it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.experts = nn.ModuleList(Block() for _ in range(4))
        self.blocks = nn.ModuleList(TwoPaths() for _ in range(6))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor, experts: list[int], paths: list[bool]) -> torch.Tensor:
        x = self.stem(x)
        for number in experts:
            x = self.experts[number](x)
        for block, both in zip(self.blocks, paths):
            x = block(x, both)
        return self.head(x)


class TwoPaths(nn.Module):
    """The unit runs in every call, its second linear only in some."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.third = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor, both: bool) -> torch.Tensor:
        y = torch.tanh(self.first(x))
        return x + (self.second(y) + self.third if both else y)
