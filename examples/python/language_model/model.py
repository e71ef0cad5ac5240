"""A small Llama-style language model over bytes: RMSNorm, rotary positions, SwiGLU. Plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model. The defaults make 3.15 million parameters."""

    layers: int = 4
    width: int = 256
    heads: int = 4
    hidden: int = 640  # inner width of the feed-forward part
    context: int = 256  # bytes that the model sees
    vocabulary: int = 256
    rotary_base: float = 10_000.0
    norm_epsilon: float = 1e-5


class RMSNorm(nn.Module):
    """Scales every vector to root mean square 1, then by a learned weight."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key_value = nn.Linear(config.width, 3 * config.width, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.query_key_value(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """SwiGLU: a linear layer gated by the SiLU of another."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalized input and added to what came in."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cosine, sine)
        return x + self.feed_forward(self.feed_forward_norm(x))


class LanguageModel(nn.Module):
    """Byte values, int64 [batch, length], to logits of the next byte, [batch, length, vocabulary]."""

    def __init__(self, config: ModelConfig = ModelConfig()) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_epsilon)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.apply(_init_weights)
        for name, parameter in self.named_parameters():
            # The residual stream adds 2 * layers outputs: each starts smaller, so that depth does not make the sum grow.
            if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                nn.init.normal_(parameter, std=0.02 / (2 * config.layers) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.shape[-1] > self.config.context:
            raise ValueError(f"got {tokens.shape[-1]} bytes, expected at most {self.config.context}")
        x = self.embedding(tokens)
        cosine, sine = rotary_table(tokens.shape[-1], self.config, x)
        for block in self.blocks:
            x = block(x, cosine, sine)
        return self.head(self.norm(x))


def next_byte_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy in nats, taken in fp32 for every dtype of the model."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def rotary_table(length: int, config: ModelConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position x frequency, [length, head width / 2] each, in the dtype and on the device of `like`.

    They are computed in fp32 for each forward rather than kept as buffers, which an engine would cast to 16 bits.
    """
    head_width = config.width // config.heads
    exponents = torch.arange(0, head_width, 2, device=like.device, dtype=torch.float32) / head_width
    positions = torch.arange(length, device=like.device, dtype=torch.float32)
    angles = torch.outer(positions, config.rotary_base**-exponents)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns each pair (x[i], x[i + half]) of the last dim by its position's angle."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
