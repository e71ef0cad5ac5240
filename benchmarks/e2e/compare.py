"""Trains the same model on the same data with Hydrofoil, DeepSpeed, FSDP2 and DDP, two ranks each, and compares them side by side.

    make bench                                    the cells of the targets, under 20 minutes
    make bench-full                               every shape, dtype, stage and accumulation; goes on where it stopped
    python benchmarks/e2e/compare.py --cells compute/bf16/3 --rounds 9

All competitors of a cell live at once, and take turns of a few steps: A B C D A B C D. Only the one whose turn it is uses the CPU.
A step's time is that of its slower rank; medians over all rounds are shown. Peak memory is PSS, which divides what ranks share.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from turns import Ranks  # noqa: E402

RANKS = 2
START_TIMEOUT_S = 300
# Relative to Hydrofoil's, so that nobody is fast by computing something else.
FIRST_LOSS_TOLERANCE, LAST_LOSS_TOLERANCE = 1e-2, 5e-2
TURN_S, MIN_TURN_STEPS, MEMORY_STEPS = 1.5, 2, 4


@dataclass(frozen=True)
class Competitor:
    engine: str  # hydrofoil, deepspeed, fsdp2, ddp
    stage: int

    @property
    def name(self) -> str:
        return f"{self.engine} {self.stage}" if self.engine in ("hydrofoil", "deepspeed") else self.engine


@dataclass
class Cell:
    shape: str
    dtype: str
    accumulation: int
    competitors: list[Competitor]

    @property
    def name(self) -> str:
        stages = "+".join(str(c.stage) for c in self.competitors if c.engine == "hydrofoil")
        return f"{self.shape}/{self.dtype}/{stages}" + (f"/acc{self.accumulation}" if self.accumulation > 1 else "")


@dataclass
class Result:
    times: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    pss_mib: float = 0.0
    rss_mib: float = 0.0
    invalid: str = ""

    def row(self) -> dict[str, Any]:
        return {
            "median_s": statistics.median(self.times), "steps": len(self.times), "cpu_s": statistics.median(self.cpu_s), "pss_mib": self.pss_mib,
            "rss_mib": self.rss_mib, "first_loss": self.losses[0], "last_loss": statistics.mean(self.losses[-4:]), "invalid": self.invalid,
        }


class Job(Ranks):
    """The ranks of one competitor."""

    def __init__(self, competitor: Competitor, cell: Cell, log: Path, persistence_threshold: int | None = None) -> None:
        self.competitor = competitor
        # The venv's own path, not what its link points to, or it would lose its packages.
        python = ROOT / ".venv/bin/python" if competitor.engine == "hydrofoil" else ROOT / "benchmarks/.peers/bin/python"
        command = [str(python), str(HERE / "worker.py"), "--engine", competitor.engine, "--stage", str(competitor.stage), "--shape", cell.shape,
                   "--dtype", cell.dtype, "--accumulation", str(cell.accumulation)]
        if persistence_threshold is not None:
            command += ["--persistence-threshold", str(persistence_threshold)]
        super().__init__(competitor.name, command, RANKS, log)


def mean(values: Iterator[float]) -> float:
    return statistics.mean(values)


def run_cell(cell: Cell, rounds: int, logs: Path) -> dict[str, Result]:
    jobs: list[Job] = []
    results = {competitor.name: Result() for competitor in cell.competitors}
    try:
        for competitor in cell.competitors:  # one after the other: together they would crowd the memory bus and the disk
            job = Job(competitor, cell, logs / f"{cell.name.replace('/', '_')}_{competitor.name.replace(' ', '_')}.log")
            jobs.append(job)
            job.answers()
        steps = MIN_TURN_STEPS
        for job in jobs:
            result = results[job.competitor.name]
            answers = job.turn(f"steps {MIN_TURN_STEPS}")  # warm-up: order recorded, memory touched
            result.losses += [mean(values) for values in zip(*(a["losses"] for a in answers))]
            answers = job.turn(f"memory {MEMORY_STEPS}")
            result.losses += [mean(values) for values in zip(*(a["losses"] for a in answers))]
            result.pss_mib, result.rss_mib = max(a["pss_mib"] for a in answers), max(a["rss_mib"] for a in answers)
            steps = max(steps, round(TURN_S / max(max(a["times"]) for a in answers)))
        steps = min(steps, 20)
        for _ in range(rounds):
            for job in jobs:
                answers = job.turn(f"steps {steps}")
                result = results[job.competitor.name]
                result.times += [max(times) for times in zip(*(a["times"] for a in answers))]
                result.losses += [mean(values) for values in zip(*(a["losses"] for a in answers))]
                result.cpu_s.append(mean(a["cpu_s"] for a in answers))
    finally:
        for job in jobs:
            job.close()
    check_losses(cell, results, logs)
    return results


def check_losses(cell: Cell, results: dict[str, Result], logs: Path) -> None:
    reference = next(results[c.name] for c in cell.competitors if c.engine == "hydrofoil")
    for competitor in cell.competitors:
        result = results[competitor.name]
        if competitor.engine == "ddp" and cell.dtype == "bf16" or competitor.engine == "deepspeed" and competitor.stage == 0 and cell.dtype == "bf16":
            result.invalid = "no fp32 master weights: shown, not compared"
            continue
        losses = result.losses
        if competitor.engine == "deepspeed" and competitor.stage == 3:
            # At its defaults it reads small parameters before they arrive (on the CPU): its losses come from a run without that.
            job = Job(competitor, cell, logs / f"{cell.name.replace('/', '_')}_losses.log", persistence_threshold=0)
            try:
                job.answers()
                losses = [mean(values) for values in zip(*(a["losses"] for a in job.turn(f"steps {min(len(losses), 30)}")))]
            finally:
                job.close()
        for what, tolerance, ours, theirs in (
            ("first", FIRST_LOSS_TOLERANCE, reference.losses[0], losses[0]),
            ("last", LAST_LOSS_TOLERANCE, mean(reference.losses[len(losses) - 4 : len(losses)]), mean(losses[-4:])),
        ):
            if not abs(ours - theirs) <= tolerance * abs(ours):
                result.invalid = f"its {what} loss is {theirs:.4f}, Hydrofoil's {ours:.4f}"


def roofs() -> dict[str, float]:
    """What the machine can do, measured by numpy-free torch of Hydrofoil's environment."""
    code = """
import json, time, torch
torch.set_num_threads(2)
def best(f, n=5):
    times = []
    for _ in range(n):
        started = time.perf_counter(); f(); times.append(time.perf_counter() - started)
    return min(times)
a = torch.ones(64 << 20); b = torch.empty_like(a)
m32, m16 = torch.randn(1024, 1024), torch.randn(1024, 1024).bfloat16()
print(json.dumps({"memcpy_gb_s": 2 * a.nbytes / best(lambda: b.copy_(a)) / 1e9, "fp32_gflops": 2 * 1024**3 / best(lambda: m32 @ m32) / 1e9,
                  "bf16_gflops": 2 * 1024**3 / best(lambda: m16 @ m16) / 1e9}))
"""
    return json.loads(subprocess.run([ROOT / ".venv/bin/python", "-c", code], capture_output=True, text=True, check=True).stdout)


def cpu_name() -> str:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


def target_cells() -> list[Cell]:
    cells = []
    for shape in ("compute", "communication"):
        for stage in (1, 2):
            cells.append(Cell(shape, "bf16", 1, [Competitor("hydrofoil", stage), Competitor("deepspeed", stage)]))
        cells.append(Cell(shape, "bf16", 1, [Competitor("hydrofoil", 3), Competitor("hydrofoil", 0), Competitor("deepspeed", 3),
                                             Competitor("fsdp2", 3), Competitor("ddp", 0)]))
        cells.append(Cell(shape, "fp32", 1, [Competitor("hydrofoil", 0), Competitor("ddp", 0)]))
    cells.append(Cell("small", "fp32", 1, [Competitor("hydrofoil", 3), Competitor("hydrofoil", 0), Competitor("deepspeed", 3), Competitor("ddp", 0)]))
    for stage in (1, 2):
        cells.append(Cell("smollm2", "bf16", 1, [Competitor("hydrofoil", stage), Competitor("deepspeed", stage)]))
    cells.append(Cell("smollm2", "bf16", 1, [Competitor("hydrofoil", 3), Competitor("deepspeed", 3), Competitor("fsdp2", 3)]))
    return cells


def full_cells() -> list[Cell]:
    cells = []
    for shape in ("compute", "communication", "small", "smollm2"):
        for dtype in ("bf16", "fp32"):
            for accumulation in (1, 4):
                for stage in range(4):
                    peers = {0: [Competitor("ddp", 0)], 3: [Competitor("fsdp2", 3)]}.get(stage, [])
                    cells.append(Cell(shape, dtype, accumulation, [Competitor("hydrofoil", stage), Competitor("deepspeed", stage), *peers]))
    return cells


def table(cell: Cell, rows: dict[str, dict[str, Any]]) -> str:
    base = rows[cell.competitors[0].name]
    lines = [f"{cell.name}: {len(cell.competitors)} competitors, {RANKS} ranks each",
             f"  {'':<14}{'step':>10}{'ratio':>8}{'CPU s':>8}{'PSS MiB':>9}{'ratio':>8}{'RSS MiB':>9}  losses"]
    for name, row in rows.items():
        lines.append(f"  {name:<14}{row['median_s'] * 1e3:>7.1f} ms{base['median_s'] / row['median_s']:>8.2f}{row['cpu_s']:>8.3f}{row['pss_mib']:>9.0f}"
                     f"{base['pss_mib'] / row['pss_mib']:>8.2f}{row['rss_mib']:>9.0f}  {row['first_loss']:.4f} -> {row['last_loss']:.4f}"
                     + (f"  [{row['invalid']}]" if row["invalid"] else ""))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every shape, dtype, stage and accumulation")
    parser.add_argument("--cells", nargs="+", metavar="CELL", help="only these, such as compute/bf16/3 (see --list)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each competitor (default: 5)")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench/e2e.json", help="results, one entry a cell; cells that are there are kept with --resume")
    parser.add_argument("--resume", action="store_true", help="keep the cells that --out holds")
    parser.add_argument("--list", action="store_true", help="list the cells")
    arguments = parser.parse_args()
    cells = full_cells() if arguments.full else target_cells()
    if arguments.list:
        print("\n".join(f"{cell.name}: {', '.join(c.name for c in cell.competitors)}" for cell in cells))
        return 0
    if arguments.cells:
        unknown = set(arguments.cells) - {cell.name for cell in cells}
        if unknown:
            parser.error(f"no cell {', '.join(sorted(unknown))}; --list shows them")
        cells = [cell for cell in cells if cell.name in arguments.cells]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.resume and arguments.out.exists() else {"cells": {}}
    results["machine"] = {"cpu": cpu_name(), "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d"), **roofs()}
    print(f"{results['machine']['cpu']}, {os.cpu_count()} cores: memcpy {results['machine']['memcpy_gb_s']:.1f} GB/s, "
          f"fp32 {results['machine']['fp32_gflops']:.0f}, bf16 {results['machine']['bf16_gflops']:.0f} GFLOP/s", flush=True)
    failed = 0
    started = time.monotonic()
    for number, cell in enumerate(cells, 1):
        if cell.name in results["cells"] and arguments.resume:
            continue
        try:
            rows = {name: result.row() for name, result in run_cell(cell, arguments.rounds, arguments.out.parent).items()}
        except RuntimeError as error:
            print(f"{cell.name}: {error}", file=sys.stderr, flush=True)
            failed += 1
            continue
        results["cells"][cell.name] = {"competitors": [c.name for c in cell.competitors], "rows": rows}
        temporary = arguments.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(results, indent=1))
        temporary.replace(arguments.out)
        print(f"{table(cell, rows)}\n  [{number} of {len(cells)} cells, {time.monotonic() - started:.0f} s]", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
