"""How well the planner predicts: bytes of states, peak memory and time of a step, planned against measured.

    accuracy.py                    a table of all cells (docs/plan.md), 2 ranks of this machine and 1
    accuracy.py --roofs FILE       measures the roofs of this machine alone, for `hydrofoil plan --roofs`

Roofs are measured by the ranks of a cell, all at a time, just before the cell: ranks share cores, memory and luck. Peak memory
is PSS, sampled, less what the process had before the model was built (imports, libraries, threads; a small model has
trained before, so the code that training loads is there).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Callable

warnings.filterwarnings("ignore")
os.environ.setdefault("HYDROFOIL_LOG_LEVEL", "warning")

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "e2e"))
from shapes import SHAPES  # noqa: E402
from worker import MemorySampler, rollup, unmapped_memfd_kib  # noqa: E402

MIB = 1 << 20
WARM_UP, STEPS = 3, 8
CELLS = [(shape, dtype, stage, ranks) for shape in ("compute", "communication") for dtype in ("fp32", "bf16")
         for stage, ranks in ((0, 1), (0, 2), (1, 2), (2, 2), (3, 2))]


def seconds_of(call: Callable[[], Any], count: int = 25) -> float:
    """The median of repeated calls, all ranks at a time and equally often: they may be collectives."""
    call()
    dist.barrier()
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    dist.barrier()
    return statistics.median(times)


def measure_roofs(tokens: int, width: int) -> dict[str, float]:
    """Of one rank while the others do the same. Products have the shapes of a block's: a roof of large squares is no roof of theirs."""
    roofs = {}
    small = torch.zeros(8, requires_grad=True)

    def calls() -> None:
        y = small
        for _ in range(100):
            y = y + 1.0
        y.sum().backward()

    roofs["call_s"] = seconds_of(calls) / 200
    for name, dtype in (("fp32_flops", torch.float32), ("bf16_flops", torch.bfloat16)):
        x, weight = torch.randn(tokens, width).to(dtype), torch.randn(width * 8 // 3, width).to(dtype)
        gradient = torch.randn(tokens, width * 8 // 3).to(dtype)
        flops = 3 * 2 * tokens * width * weight.shape[0]

        def products() -> None:
            torch.nn.functional.linear(x, weight)
            gradient @ weight
            gradient.t() @ x

        roofs[name] = flops / seconds_of(products)
        roofs[name.replace("flops", "attention_flops")] = attention_roof(tokens, width, dtype)
        other, scale = torch.randn_like(x), torch.ones(width, dtype=dtype)

        def operators() -> None:
            y = torch.nn.functional.rms_norm(x + other, (width,), scale)
            torch.nn.functional.silu(y) * other

        # As the plan counts: what each operator makes is written once and read once. On a CPU that is 24 bytes an element in
        # either dtype, for rms_norm computes in fp32.
        work = max(seconds_of(operators) - 10 * roofs["call_s"], 1e-9)
        roofs[name.replace("flops", "operator_bytes_per_s")] = 2 * 24 * x.numel() / work
    large = torch.zeros(16 << 20)
    roofs["memory_bytes_per_s"] = 2 * large.nbytes / seconds_of(lambda: large.add_(1.0))
    if dist.get_world_size() > 1:
        roofs |= measure_link()
    return roofs


def attention_roof(tokens: int, width: int, dtype: torch.dtype) -> float:
    """Causal heads of about 48, forward and backward: 2 products and 5, half of each left out."""
    length, head = min(tokens, 256), width // (width // 48)
    query, key, value = (torch.randn(tokens // length, width // head, length, head, dtype=dtype, requires_grad=True) for _ in range(3))

    def attend() -> None:
        output = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        torch.autograd.grad(output, (query, key, value), output)

    return 7 * tokens * length * width / seconds_of(attend)


def measure_link() -> dict[str, float]:
    group = dist.new_group(backend="hydrofoil_shm")
    world = dist.get_world_size()
    times = []
    for numel in (1 << 10, 4 << 20):
        mine, everyone = torch.zeros(numel), torch.zeros(world * numel)
        times.append(seconds_of(lambda: dist.all_gather_into_tensor(everyone, mine, group=group)))
    moved = (world - 1) * 4 * (4 << 20)
    return {"host_latency_s": times[0] / (world - 1), "host_bytes_per_s": moved / max(times[1] - times[0], 1e-9)}


def warm_up(config: dict[str, Any], dtype: torch.dtype) -> None:
    import hydrofoil

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64), torch.nn.Linear(64, 8))
    engine, *_ = hydrofoil.initialize(model=model, config=config)
    for _ in range(2):
        engine.backward(torch.nn.functional.cross_entropy(engine(torch.randn(16, 64).to(dtype)).float(), torch.zeros(16, dtype=torch.long)))
        engine.step()
    engine.destroy()


def rank_main(cell: dict[str, Any]) -> None:
    """One rank of a cell: prints RESULT and JSON on rank 0."""
    import hydrofoil

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // cell["ranks"]) if cell["ranks"] == 1 else 1)
    hydrofoil.init_distributed("gloo")
    shape = SHAPES[cell["shape"]]
    dtype = torch.bfloat16 if cell["dtype"] == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(dist.get_rank())
    measured_roofs = measure_roofs(shape.tokens, 416 if cell["shape"] == "compute" else 640)
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, measured_roofs)
    roofs = hydrofoil._C.Roofs()
    for name in measured_roofs:
        setattr(roofs, name, statistics.mean(r[name] for r in gathered))
    torch.manual_seed(0)
    config = {"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "AdamW", "params": {"lr": shape.lr}},
              "zero_optimization": {"stage": cell["stage"]}, "bf16": {"enabled": cell["dtype"] == "bf16"}}
    with torch.device("meta"):
        outline = shape.build()
    inputs, targets = shape.batch(generator, dtype)
    plan = hydrofoil.plan(outline, config, world_size=cell["ranks"], step=lambda model: shape.loss(model, inputs, targets), roofs=roofs)
    warm_up(config, dtype)
    base = rollup()["Pss"] + unmapped_memfd_kib(cell["ranks"])
    engine, *_ = hydrofoil.initialize(model=shape.build(), config=config)

    def step() -> float:
        batch = shape.batch(generator, dtype)
        dist.barrier()
        begin = time.perf_counter()
        engine.backward(shape.loss(engine, *batch))
        engine.step()
        return time.perf_counter() - begin

    for _ in range(WARM_UP):
        step()
    times = [step() for _ in range(STEPS)]
    with MemorySampler(cell["ranks"]) as sampler:
        for _ in range(4):
            step()
    report = engine.core.memory_report()
    states = report.parameter_bytes + report.gradient_bytes + report.master_bytes + report.optimizer_state_bytes
    mine = {"states": states, "slots": report.peak_slot_bytes, "peak": (sampler.pss_kib - base) * 1024, "step_s": statistics.median(times)}
    dist.all_gather_object(gathered, mine)
    if dist.get_rank() == 0:
        measured = {name: max(r[name] for r in gathered) for name in mine}
        planned = {"states": plan.state_bytes, "slots": plan.peak_slot_bytes, "peak": plan.peak_bytes, "step_s": plan.step_seconds}
        print("RESULT " + json.dumps({"cell": cell, "planned": planned, "measured": measured, "roofs": measured_roofs}), flush=True)
    dist.barrier()
    engine.destroy()
    dist.destroy_process_group()


def run_ranks(argument: str, ranks: int) -> str:
    from hydrofoil.command import find_program

    command = [find_program(), "run", "--nproc", str(ranks), "--", str(HERE), "--rank", argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout.split("RESULT ")[1].splitlines()[0]


def row(result: dict[str, Any]) -> str:
    cell, planned, measured = result["cell"], result["planned"], result["measured"]
    cells = [f"{cell['shape']} {cell['dtype']}", str(cell["stage"]), str(cell["ranks"])]
    exact = planned["states"] == measured["states"] and planned["slots"] == measured["slots"]
    cells.append(f"{planned['states'] / MIB:.1f} MiB, {'exact' if exact else 'NOT EXACT'}")
    for name, scale, unit in (("peak", MIB, "MiB"), ("step_s", 1e-3, "ms")):
        cells.append(f"{planned[name] / scale:.0f} / {measured[name] / scale:.0f} {unit} ({100 * (planned[name] / measured[name] - 1):+.0f} %)")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roofs", metavar="FILE", help="measure the roofs alone and write them as JSON")
    parser.add_argument("--cells", default="", help="only cells whose text holds this, e.g. 'compute bf16 3'")
    parser.add_argument("--json", action="store_true", help="a line of JSON a cell in place of the table")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank_main(json.loads(arguments.rank))
        return
    if arguments.roofs:
        result = json.loads(run_ranks(json.dumps({"shape": "compute", "dtype": "fp32", "stage": 0, "ranks": 2}), 2))
        Path(arguments.roofs).write_text(json.dumps(result["roofs"], indent=2) + "\n")
        return
    if not arguments.json:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n")
        print("| model | stage | ranks | states a rank | peak: planned / measured | step: planned / measured |\n|---|---|---|---|---|---|")
    for shape, dtype, stage, ranks in CELLS:
        if arguments.cells not in f"{shape} {dtype} {stage} {ranks}":
            continue
        cell = {"shape": shape, "dtype": dtype, "stage": stage, "ranks": ranks}
        result = run_ranks(json.dumps(cell), ranks)
        print(result if arguments.json else row(json.loads(result)), flush=True)


if __name__ == "__main__":
    main()
