"""A step with the engine against a bare PyTorch loop at world 1: the compute-bound shape of benchmarks/e2e/shapes.py, in turns.

    python benchmarks/micro/engine_overhead.py --json FILE [--threads 1]

The bare loop does what such a loop has to: forward, backward, clipping, fused AdamW, in bf16 on fp32 masters with a 16-bit copy. Beside
the whole step stands forward and backward alone, where the engine can only add. One thread: CPU time, which others on the machine
disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import hydrofoil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from shapes import SHAPES  # noqa: E402

SHAPE = SHAPES["compute"]
CLIP, DECAY = 1.0, 0.01


class Bare:
    def __init__(self, model: torch.nn.Module, dtype: torch.dtype) -> None:
        self.model = model.to(dtype)
        self.parameters = list(self.model.parameters())
        self.masters = self.parameters if dtype == torch.float32 else [torch.nn.Parameter(p.detach().float()) for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.masters, lr=SHAPE.lr, weight_decay=DECAY, fused=True)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        if self.masters is not self.parameters:
            for master, parameter in zip(self.masters, self.parameters):
                master.grad = parameter.grad.float()
                parameter.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, CLIP)
        self.optimizer.step()
        if self.masters is not self.parameters:
            torch._foreach_copy_([p.detach() for p in self.parameters], [p.detach() for p in self.masters])
        self.optimizer.zero_grad()


def engine(model: torch.nn.Module, dtype: torch.dtype) -> Any:
    config = {"train_micro_batch_size_per_gpu": 1, "gradient_clipping": CLIP, "steps_per_print": 10**9, "bf16": {"enabled": dtype == torch.bfloat16},
              "optimizer": {"type": "AdamW", "params": {"lr": SHAPE.lr, "weight_decay": DECAY}}}
    return hydrofoil.initialize(model=model, model_parameters=model.parameters(), config=config)[0]


def step(model: Any, trained: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float, float]:
    """Seconds of forward and backward, of the whole step, and the loss."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    loss = SHAPE.loss(model, *batch)
    trained.backward(loss)
    half = clock() - started
    trained.step()
    return half, clock() - started, loss.item()


def measure(dtype: torch.dtype, rounds: int) -> dict[str, float]:
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(SHAPE.build())
    bare, ours = Bare(models[0], dtype), engine(models[1], dtype)
    competitors = {"bare": (bare.model, bare), "engine": (ours, ours)}
    halves: dict[str, list[float]] = {name: [] for name in competitors}
    wholes: dict[str, list[float]] = {name: [] for name in competitors}
    generator = torch.Generator().manual_seed(1)
    for round_number in range(rounds + 2):
        batch = SHAPE.batch(generator, dtype)
        losses = {}
        for name, (model, trained) in competitors.items():
            half, whole, losses[name] = step(model, trained, batch)
            if round_number >= 2:
                halves[name].append(half)
                wholes[name].append(whole)
        if abs(losses["bare"] - losses["engine"]) > 1e-2 * losses["bare"]:
            raise RuntimeError(f"step {round_number}: the engine's loss is {losses['engine']:.4f}, the bare loop's {losses['bare']:.4f}")
    ours.destroy()
    result = {"bare_s": statistics.median(wholes["bare"]), "engine_s": statistics.median(wholes["engine"]),
              "bare_passes_s": statistics.median(halves["bare"]), "engine_passes_s": statistics.median(halves["engine"])}
    # Medians of the ratios of neighbours: the machine's speed drifts.
    return result | {"ratio": statistics.median(b / a for a, b in zip(wholes["bare"], wholes["engine"])),
                     "passes_ratio": statistics.median(b / a for a, b in zip(halves["bare"], halves["engine"]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        row = {"dtype": name, "threads": arguments.threads, **measure(dtype, arguments.rounds)}
        rows.append(row)
        print(f"{name}: bare {row['bare_s'] * 1e3:.1f} ms, engine {row['engine_s'] * 1e3:.1f} ms ({(row['ratio'] - 1) * 100:+.1f} %); forward and backward "
              f"{row['bare_passes_s'] * 1e3:.1f} and {row['engine_passes_s'] * 1e3:.1f} ms ({(row['passes_ratio'] - 1) * 100:+.1f} %)", flush=True)
    arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
