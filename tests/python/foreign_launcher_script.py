"""Started by torchrun and mpirun in test_foreign_launchers.py: one step under stage 3, and what each rank thinks it is."""

import torch

import hydrofoil

model = torch.nn.Linear(3, 2)
engine, _, _, _ = hydrofoil.initialize(
    model=model,
    config={"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 3}})
engine.backward(engine(torch.ones(1, 3)).sum())
engine.step()
total = torch.tensor([engine.global_rank + 1])
torch.distributed.all_reduce(total)
# One write a line: the ranks share the pipe.
print(f"rank {engine.global_rank} of {engine.world_size}, local {engine.local_rank}, sum {total.item()}\n", end="", flush=True)
engine.destroy()
