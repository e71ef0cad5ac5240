"""A rank of test_memory.py in a process of its own: prints JSON of what the engine and the kernel count, phase by phase.

Arguments: JSON with mode ("train" or "construct"), stage, dtype, init.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

import torch
from torch import nn

import hydrofoil
from hydrofoil import _C
from hydrofoil.zero import Init

WIDTH, BLOCKS = 512, 6


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Model(nn.Module):
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width) for _ in range(blocks)])
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def _file_pss_bytes() -> int:
    """Pages of libraries: they come in with the first call of an operator, and their share changes with the processes around."""
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_File:"))


def _unmapped_memfd_bytes() -> int:
    """Shared memory of this job that this process holds open; an equal share of it is this rank's, mapped or not."""
    total = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith("/memfd:"):
                total += os.fstat(int(descriptor)).st_blocks * 512
        except OSError:
            pass  # the descriptor of the listing itself
    return total


def measure() -> dict[str, int]:
    gc.collect()
    _C.trim_heap()  # holes that autograd's temporaries left are no state
    memory = _C.process_memory()
    return {"pss": memory.pss_bytes - _file_pss_bytes(), "rss": memory.rss_bytes, "peak_rss": memory.peak_rss_bytes, "memfd": _unmapped_memfd_bytes()}


def _config(stage: int, dtype: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}, "hydrofoil": {"unit_min_bytes": 0},
        "optimizer": {"type": "Adam", "params": {"lr": 1e-4}}}
    if dtype != "fp32":
        config[dtype] = {"enabled": True}
    return config


def report(engine: Any) -> dict[str, int]:
    memory = engine.memory_report()
    names = ("parameter_bytes", "gradient_bytes", "master_bytes", "optimizer_state_bytes", "slot_bytes", "peak_slot_bytes", "largest_unit_bytes",
             "host_tensor_bytes")
    return {name: getattr(memory, name) for name in names}


def _warm(stage: int, dtype: str, element: torch.dtype) -> None:
    """What torch and the package load and allocate at their first step is no state either."""
    engine = hydrofoil.initialize(model=Model(8, 1), config=_config(stage, dtype))[0]
    engine.backward(engine(torch.ones(1, 8, dtype=element)).float().sum())
    engine.step()
    engine.destroy()


def train(stage: int, dtype: str) -> dict[str, Any]:
    hydrofoil.init_distributed()
    element = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    _warm(stage, dtype, element)
    result: dict[str, Any] = {"base": measure()}
    model = Model(WIDTH, BLOCKS)
    result["numel"] = sum(p.numel() for p in model.parameters())
    engine = hydrofoil.initialize(model=model, config=_config(stage, dtype))[0]
    x = torch.ones(1, WIDTH, dtype=element)
    for step in range(2):
        loss = engine(x).float().square().mean()
        result["after forward"] = measure()
        engine.backward(loss)
        del loss
        result["after backward"], result["report"] = measure(), report(engine)
        engine.step()
        result["after step"] = measure()
    for name in ("optimizer_state_bytes", "host_tensor_bytes"):
        result["report"][name] = report(engine)[name]
    engine.destroy()
    return result


def construct(stage: int, dtype: str, init: bool) -> dict[str, Any]:
    """Peak resident memory of building and initialising a model of 300 MB."""
    hydrofoil.init_distributed()
    width, blocks = 1024, 9
    with Init(config_dict_or_path=_config(stage, dtype), enabled=init):
        nn.Linear(64, 64)
        torch.distributed.barrier()
        result: dict[str, Any] = {"base": measure()}
        model = Model(width, blocks)
    result["numel"] = sum(p.numel() for p in model.parameters())
    result["built"] = measure()
    engine = hydrofoil.initialize(model=model, config=_config(stage, dtype))[0]
    result["initialized"], result["report"] = measure(), report(engine)
    engine.destroy()
    return result


def main() -> None:
    arguments = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    result = {"train": train, "construct": construct}[arguments.pop("mode")](**arguments)
    print("RESULT " + json.dumps(result), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
