"""Ran on every rank by test_engine_groups.py."""

import os

import torch

import hydrofoil


def threads_after_engines(backend: str, count: int) -> list[int]:
    """Threads of this process after each of `count` engines was made, used and destroyed."""
    numbers = []
    for _ in range(count):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        engine, _, _, _ = hydrofoil.initialize(
            model=model,
            config={"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "SGD"}, "zero_optimization": {"stage": 3},
                    "hydrofoil": {"backend": backend}})
        engine.backward(engine(torch.ones(1, 3)).sum())
        engine.step()
        engine.destroy()
        del engine
        numbers.append(len(os.listdir("/proc/self/task")))
    return numbers


def groups_of_torch(backend: str) -> tuple[int, int]:
    """Process groups that torch knows while an engine lives, and after it."""
    hydrofoil.comm.close_left_groups()  # of the tests before
    groups = torch.distributed.distributed_c10d._world.pg_map
    before = len(groups)
    engine, _, _, _ = hydrofoil.initialize(
        model=torch.nn.Linear(3, 2),
        config={"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "SGD"}, "hydrofoil": {"backend": backend}})
    during = len(groups) - before
    engine.destroy()
    return during, len(groups) - before
