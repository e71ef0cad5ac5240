"""A DeepSpeed script with a plain module: classify points by the nearest of ten hidden centers.

hydrofoil run --nproc 2 plain_module.py --deepspeed --deepspeed_config plain_module.json
"""

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

import hydrofoil as deepspeed

NUM_FEATURES, NUM_CLASSES = 32, 10


def get_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A plain module under DeepSpeed's API")
    parser.add_argument("--local_rank", type=int, default=-1, help="local rank passed from the launcher")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=42)
    parser = deepspeed.add_config_arguments(parser)
    return parser.parse_args()


class Classifier(nn.Module):
    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NUM_FEATURES, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, NUM_CLASSES)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features)


def make_dataset(num_points: int = 960) -> Dataset:
    centers = torch.randn(NUM_CLASSES, NUM_FEATURES)
    labels = torch.randint(0, NUM_CLASSES, (num_points,))
    return TensorDataset(centers[labels] + 0.7 * torch.randn(num_points, NUM_FEATURES), labels)


def main() -> None:
    args = get_args()
    deepspeed.init_distributed()
    torch.manual_seed(args.seed)

    model = Classifier()
    dataset = make_dataset()
    model_engine, optimizer, _, scheduler = deepspeed.initialize(
        args=args, model=model, model_parameters=model.parameters()
    )

    sampler = DistributedSampler(dataset, shuffle=True, seed=args.seed)
    loader = DataLoader(dataset, batch_size=model_engine.train_micro_batch_size_per_gpu(), sampler=sampler)
    losses = []
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for features, labels in loader:
            logits = model_engine(features.to(model_engine.device, torch.bfloat16))
            loss = nn.functional.cross_entropy(logits.float(), labels.to(model_engine.device))
            model_engine.backward(loss)
            model_engine.step()
            losses.append(loss.item())
            if dist.get_rank() == 0 and model_engine.global_steps % 5 == 0:
                lr = model_engine.get_lr()[0]
                print(f"step {model_engine.global_steps:3d}  loss {losses[-1]:.4f}  lr {lr:.2e}", flush=True)

    if dist.get_rank() == 0:
        print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
