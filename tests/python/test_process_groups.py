"""Gloo's threads end with the process group: one left over can abort the process while the interpreter ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.python.example_ranks import run_ranks

SCRIPT = """
import atexit
import os
import sys

import torch
import torch.distributed as dist

import hydrofoil


def threads():
    names = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/comm", encoding="utf-8") as file:
            names.append(file.read().strip())
    return sum("gloo" in name for name in names)


atexit.register(lambda: print(f"gloo threads left: {threads()}."))  # runs after what init_distributed registers
hydrofoil.init_distributed()
import torch._dynamo  # What a first optimizer or forward does: its imports must not keep the group.

model = torch.nn.Linear(4, 4)
config = {"train_batch_size": 2, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}, "zero_optimization": {"stage": 3}}
engine, *_ = hydrofoil.initialize(model=model, config=config)
engine.backward(engine(torch.ones(1, 4)).sum())
engine.step()
dist.all_reduce(torch.ones(1))
assert threads() > 0
engine.destroy()
del engine
if sys.argv[1] == "destroyed":
    dist.destroy_process_group()
    assert threads() == 0
"""


@pytest.mark.parametrize("group", ["destroyed", "left standing"])
def test_no_gloo_thread_reaches_the_end_of_the_interpreter(tmp_path: Path, group: str) -> None:
    pytest.importorskip("hydrofoil._C", reason="hydrofoil is not installed")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    assert run_ranks(script, group).count("gloo threads left: 0.") == 2
