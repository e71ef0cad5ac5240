"""A DeepSpeed script whose module has frozen parameters, a tied head, and an optimizer of its own with two groups.

hydrofoil run --nproc 2 frozen_and_tied.py --deepspeed --deepspeed_config frozen_and_tied.json
"""

import argparse

import torch
import torch.distributed as dist
from torch import nn

import hydrofoil as deepspeed

VOCABULARY, LENGTH = 64, 32


def get_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Frozen and tied parameters under DeepSpeed's API")
    parser.add_argument("--local_rank", type=int, default=-1, help="local rank passed from the launcher")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser = deepspeed.add_config_arguments(parser)
    return parser.parse_args()


class TiedLanguageModel(nn.Module):
    """Two encoder layers, of which the first is frozen, between an embedding and a head that share one weight."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.frozen = self._make_layer(width).requires_grad_(False)
        self.layer = self._make_layer(width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.head.weight = self.embedding.weight

    @staticmethod
    def _make_layer(width: int) -> nn.Module:
        return nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        hidden = self.embedding(tokens) + self.position[:length]
        hidden = self.frozen(hidden, src_mask=mask, is_causal=True)
        hidden = self.layer(hidden, src_mask=mask, is_causal=True)
        return self.head(self.norm(hidden))


def make_batch(generator: torch.Generator, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences that count up from a random start, and what comes next."""
    starts = torch.randint(0, VOCABULARY, (batch_size, 1), generator=generator)
    tokens = (starts + torch.arange(LENGTH + 1)) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


def main() -> None:
    args = get_args()
    deepspeed.init_distributed()
    torch.manual_seed(0)

    model = TiedLanguageModel()
    frozen_before = [parameter.clone() for parameter in model.frozen.parameters()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": 0.01},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    model_engine, optimizer, _, _ = deepspeed.initialize(
        args=args, model=model, optimizer=torch.optim.AdamW(groups, lr=args.lr)
    )

    generator = torch.Generator().manual_seed(1 + dist.get_rank())
    losses = []
    while model_engine.global_steps < args.steps:
        tokens, targets = make_batch(generator, model_engine.train_micro_batch_size_per_gpu())
        logits = model_engine(tokens.to(model_engine.device))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.to(model_engine.device).flatten())
        model_engine.backward(loss)
        update = model_engine.is_gradient_accumulation_boundary()
        model_engine.step()
        losses.append(loss.item())
        if update and dist.get_rank() == 0 and model_engine.global_steps % 5 == 0:
            print(f"step {model_engine.global_steps:3d}  loss {losses[-1]:.4f}", flush=True)

    with deepspeed.zero.GatheredParameters(list(model.frozen.parameters())):
        frozen_after = [parameter.cpu().clone() for parameter in model.frozen.parameters()]
    assert all(torch.equal(before, after) for before, after in zip(frozen_before, frozen_after))
    assert model.head.weight is model.embedding.weight
    if dist.get_rank() == 0:
        print("frozen weights are as they were, the head is still tied")
        print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
