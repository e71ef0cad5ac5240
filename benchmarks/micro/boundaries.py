"""What the engine adds to the call of a unit in Python: 64 tiny units with and without it, forward, backward and without gradients.

    python benchmarks/micro/boundaries.py --json FILE
    hydrofoil run --nproc 2 benchmarks/micro/boundaries.py --json FILE

bench_boundaries is the same chain in C++. A time is a whole pass's; the bare chain and the engines take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Optional

import torch
import torch.distributed as dist

import hydrofoil

NUM_UNITS, NUMEL = 64, 16
DIRECTIONS = ("forward", "backward", "no_grad")


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(NUMEL))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class Chain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.units = torch.nn.ModuleList(Scale() for _ in range(NUM_UNITS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for unit in self.units:
            x = unit(x)
        return x


def engine(stage: int) -> Any:
    model = Chain()
    config = {"train_micro_batch_size_per_gpu": 1, "steps_per_print": 10**9, "optimizer": {"type": "SGD", "params": {"lr": 0.0}},
              "zero_optimization": {"stage": stage}, "hydrofoil": {"unit_min_bytes": 0}}
    return hydrofoil.initialize(model=model, model_parameters=model.parameters(), config=config)[0]


def timed(body: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = body()
    return time.perf_counter() - started, result


def one_pass(model: torch.nn.Module, with_engine: Optional[Any], x: torch.Tensor) -> dict[str, float]:
    forward, output = timed(lambda: model(x))
    loss = output.sum()
    backward, _ = timed(lambda: with_engine.backward(loss)) if with_engine else timed(loss.backward)
    if with_engine:
        with_engine.step()
    else:
        model.zero_grad()
    with torch.no_grad():
        no_grad, _ = timed(lambda: model(x))
    return {"forward": forward, "backward": backward, "no_grad": no_grad}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    hydrofoil.init_distributed("gloo")
    world = dist.get_world_size()
    models: dict[str, tuple[torch.nn.Module, Optional[Any]]] = {"bare": (Chain(), None)}
    for stage in (0, 3) if world > 1 else (0,):
        trained = engine(stage)
        models[f"stage{stage}"] = (trained, trained)
    x = torch.ones(NUMEL)
    times: dict[str, dict[str, list[float]]] = {name: {direction: [] for direction in DIRECTIONS} for name in models}
    for round_number in range(arguments.rounds + 5):
        for name, (model, with_engine) in models.items():
            passed = one_pass(model, with_engine, x)
            if round_number >= 5:
                for direction, seconds in passed.items():
                    times[name][direction].append(seconds)
    rows = [{"name": f"boundaries/{direction}/{name}", "world": world, "num_units": NUM_UNITS, "seconds": statistics.median(values)}
            for name, of_name in times.items() for direction, values in of_name.items()]
    if dist.get_rank() == 0:
        arguments.json.write_text(json.dumps(rows, indent=1))
        for row in rows:
            print(f"{row['name']:<28} {row['seconds'] / NUM_UNITS * 1e6:>8.2f} us a unit", flush=True)
    for _, with_engine in models.values():
        if with_engine:
            with_engine.destroy()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
