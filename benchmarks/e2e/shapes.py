"""The models of the benchmark, the same code for every competitor: plain torch, and Transformers for the pretrained one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import torch
from torch import nn
from torch.nn import functional as F

VOCABULARY = 2048


class Block(nn.Module):
    """A pre-norm transformer block: causal attention and a SwiGLU of 8/3 the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        inner = width * 8 // 3 // 64 * 64
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class SmallModules(nn.Module):
    """1,000 linear layers of 32 x 32 in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + 0.1 * torch.tanh(layer(x))
        return x


@dataclass
class Shape:
    name: str
    description: str
    build: Callable[[], nn.Module]
    tokens: int  # of a rank and micro step
    lr: float
    block_type: str  # class of the blocks that FSDP2 wraps

    def batch(self, generator: torch.Generator, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        if self.name == "small":
            return torch.randn(self.tokens, 32, generator=generator).to(dtype), torch.randn(self.tokens, 32, generator=generator).to(dtype)
        # Text with something to learn: each token follows from the one before, with noise.
        length = min(self.tokens, 256)
        tokens = torch.randint(VOCABULARY, (self.tokens // length, length + 1), generator=generator)
        noise = torch.rand(tokens.shape, generator=generator) < 0.2
        for i in range(1, length + 1):
            tokens[:, i] = torch.where(noise[:, i], tokens[:, i], (tokens[:, i - 1] * 5 + 7) % VOCABULARY)
        return tokens[:, :-1], tokens[:, 1:]

    def loss(self, model: Any, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        output = model(inputs)
        if self.name == "small":
            return F.mse_loss(output.float(), targets.float())
        logits = output if isinstance(output, torch.Tensor) else output.logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def smollm2() -> nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype=torch.float32, attn_implementation="sdpa")


SMOLLM2 = Path(__file__).parents[2] / "build" / "smollm2"  # made by examples/python/smollm2/convert.py

SHAPES = {
    shape.name: shape
    for shape in (
        Shape("compute", "compute-bound: transformer of 4 x 416, 512 tokens a rank", lambda: Transformer(416, 4, 8), 512, 1e-3, "Block"),
        Shape("communication", "communication-bound: transformer of 10 x 640, 64 tokens a rank", lambda: Transformer(640, 10, 10), 64, 3e-4, "Block"),
        Shape("small", "1,000 linear layers of 32 x 32, 64 rows a rank", SmallModules, 64, 1e-4, "Linear"),
        Shape("smollm2", "fine-tuning SmolLM2-135M, 256 tokens a rank", smollm2, 256, 1e-5, "LlamaDecoderLayer"),
    )
}
