"""Fits a small network to a function of two variables on as many processes as the launcher starts."""

import math

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def make_dataset(num_points: int = 1024) -> TensorDataset:
    inputs = 2 * torch.rand(num_points, 2) - 1
    targets = torch.sin(math.pi * inputs[:, :1]) * torch.cos(math.pi * inputs[:, 1:])
    return TensorDataset(inputs, targets)


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    dataset = make_dataset()
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model = DistributedDataParallel(model)

    loader = DataLoader(
        dataset, batch_size=64 // dist.get_world_size(), sampler=DistributedSampler(dataset, shuffle=False)
    )
    step = 0
    for _ in range(5):
        for inputs, targets in loader:
            loss = nn.functional.mse_loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 10 == 0 and dist.get_rank() == 0:
                print(f"step {step:3d}  loss {loss.item():.5f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
