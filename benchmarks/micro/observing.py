"""What observing costs a step at world 1: engines alike but for their log lines and monitors, step by step in turns.

    python benchmarks/micro/observing.py [--rounds 2000] [--width 64]

A small model, so that microseconds show. Medians over the rounds; a difference is the median of the differences of neighbours.
CPU time is the training thread's alone: what waits for the processor beside it, the monitors' thread too, shows in wall time only.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from typing import Any

import torch

import hydrofoil


def settings(directory: str) -> dict[str, dict[str, Any]]:
    files = {"enabled": True, "output_path": directory}
    return {
        "silent": {"timers": {"throughput": {"enabled": False}}},
        "silent again": {"timers": {"throughput": {"enabled": False}}},  # how far equal engines differ
        "default": {},
        "breakdown": {"wall_clock_breakdown": True, "steps_per_print": 10**9},
        "json": {"hydrofoil": {"json_monitor": {**files, "job_name": "json"}}},
        "csv": {"csv_monitor": {**files, "job_name": "csv"}},
        "tensorboard": {"tensorboard": {**files, "job_name": "tensorboard"}},
    }


def build(width: int, more: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(8)))
    config = {"train_batch_size": 16, "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}, **more}
    return hydrofoil.initialize(model=model, config=config)[0]


def step(engine: Any, batch: torch.Tensor) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.thread_time()
    engine.backward(engine(batch).pow(2).mean())
    engine.step()
    return 1e6 * (time.perf_counter() - wall), 1e6 * (time.thread_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--width", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        engines = {name: build(arguments.width, more) for name, more in settings(directory).items()}
        batch = torch.randn(16, arguments.width)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for round_number in range(arguments.rounds + 20):
            for name in random.sample(list(engines), len(engines)):
                measured = step(engines[name], batch)
                if round_number >= 20:
                    times[name].append(measured)
        for engine in engines.values():
            engine.destroy()
    for name, rows in times.items():
        wall, cpu = (statistics.median(row[kind] for row in rows) for kind in range(2))
        more = [statistics.median(row[kind] - base[kind] for row, base in zip(rows, times["silent"])) for kind in range(2)]
        print(f"{name:14} {wall:8.1f} us a step ({more[0]:+6.1f}), {cpu:8.1f} us of CPU ({more[1]:+6.1f})")


if __name__ == "__main__":
    main()
