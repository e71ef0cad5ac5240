"""What a long run keeps: memory, files, threads. Run on the ranks by test_steady_state.py."""

from __future__ import annotations

import os

import torch

from tests.python.runtime_models import Network
from tests.support.loops import config, engine_loop, inputs


def _private_bytes() -> int:
    """Resident memory without the pages of libraries, whose share changes with the processes around."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB\n")}
    return 1024 * (kib["Pss_Anon"] + kib["Pss_Shmem"])


def trained(stage: int, steps: int, marks: int = 10) -> list[dict[str, int]]:
    """What the process holds after each of `marks` equal parts of the steps."""
    result = []
    torch.manual_seed(0)
    with engine_loop(Network(), config(stage)) as loop:
        batches = [inputs(loop.rank, step, 4, 5) for step in range(8)]
        for step in range(1, steps + 1):
            loop.engine.backward(loop.model(batches[step % 8]).pow(2).mean())
            loop.step()
            if step % (steps // marks) == 0:
                result.append({"step": step, "bytes": _private_bytes(), "threads": len(os.listdir("/proc/self/task")),
                               "files": len(os.listdir("/proc/self/fd"))})
    return result
