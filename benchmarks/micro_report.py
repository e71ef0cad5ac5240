"""Tables and plots of build/bench/micro.json, for benchmarks/report.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

Rows = list[dict[str, Any]]
GROUP_COLORS = {"arena": "#1f77b4", "copied": "#9ecae1", "hydrofoil_shm": "#17becf", "gloo": "#ff7f0e", "mpi": "#2ca02c", "memcpy": "#bbbbbb"}
GROUP_LABELS = {"arena": "Group, in place", "copied": "Group, copied", "hydrofoil_shm": "hydrofoil_shm", "gloo": "Gloo", "mpi": "MPI", "memcpy": "memcpy"}


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def roofs_section(measured: dict[str, Any]) -> list[str]:
    roofs = measured["roofs"]
    names = {"read": "memory read, GB/s", "write": "memory write past the caches, GB/s", "update": "memory update in place, GB/s (both ways)",
             "memcpy": "memcpy, GB/s (both ways)", "fma_fp32": "multiply-add fp32, GFLOP/s", "fma_bf16": "multiply-add bf16 (vdpbf16ps), GFLOP/s"}
    return ["### Roofs", "", *table(["", *(f"{threads} thread(s)" for threads in sorted(roofs))],
                                    [[label, *(f"{roofs[threads][name] / 1e9:.1f}" for threads in sorted(roofs))]
                                     for name, label in names.items() if name in roofs["1"]])]


def optimizer_section(micro: dict[str, Any]) -> list[str]:
    kernels = [k for k in micro["kernels"]["kernels"] if k["name"].startswith("adamw/")]
    lines = ["### AdamW, the update alone", "", "`bench_kernels`, 16.8 M parameters; torch's is the operator behind `torch.optim.AdamW(fused=True)`, on one flat tensor. The "
             "roof: what is only read, updated and only written, each at its roof above.", ""]
    rows = []
    for kernel in sorted(kernels, key=lambda k: (k["threads"], k["name"])):
        torch = next(k for k in kernels if k["name"].startswith("adamw/torch") and k["threads"] == kernel["threads"])
        rows.append([kernel["name"].removeprefix("adamw/").replace("/", ", ").replace("_", " "), str(kernel["threads"]), f"{kernel['elements_per_s'] / 1e9:.2f}",
                     f"{kernel['bytes_per_s'] / 1e9:.1f}", percent(kernel["roof_share"]), f"{torch['seconds'] / kernel['seconds']:.2f}"])
    lines += table(["", "threads", "Gparam/s", "GB/s", "of the roof", "speed / torch's"], rows)
    measured_threads = {k["threads"] for k in kernels}
    for row in (row for row in micro.get("peer_adam", []) if row["threads"] in measured_threads):
        ours = next(k for k in kernels if k["name"] == "adamw/hydrofoil/fp32_gradient" and k["threads"] == row["threads"])
        torch = next(k for k in kernels if k["name"].startswith("adamw/torch") and k["threads"] == row["threads"])
        lines += ["", f"DeepSpeed's CPUAdam on {row['threads']} thread(s), beside torch's in one process: {row['ratio']:.2f} of torch's speed; Hydrofoil's fp32 update is therefore "
                  f"{torch['seconds'] / ours['seconds'] / row['ratio']:.2f} of CPUAdam's."]
    return lines


def step_section(rows: Rows) -> list[str]:
    return ["### The whole optimizer step", "", "`optimizer_step.py`: overflow check, norm, clipping, AdamW, 16-bit copy, zeroed gradients.", "",
            *table(["", "threads", "torch, ms", "Hydrofoil, ms", "torch / Hydrofoil"],
                   [[row["case"], str(row["threads"]), f"{row['torch_s'] * 1e3:.1f}", f"{row['hydrofoil_s'] * 1e3:.1f}", f"{row['ratio']:.2f}"] for row in rows])]


def kernels_section(measured: dict[str, Any]) -> list[str]:
    kernels = [k for k in measured["kernels"] if not k["name"].startswith("adamw/")]
    rows = [[k["name"].replace("_", " "), str(k["threads"]), f"{k['bytes_per_s'] / 1e9:.1f}", percent(k["roof_share"])]
            for k in sorted(kernels, key=lambda k: (k["name"], k["threads"]))]
    return ["### Statistics, casts, accumulation", "", *table(["", "threads", "GB/s", "of the roof"], rows), "", "![share of the roof](images/roof_share.svg)"]


def boundaries_section(rows: Rows) -> list[str]:
    keys = sorted({(r["world"], r["language"], r["name"].split("/")[2]) for r in rows if not r["name"].endswith("bare")})
    cells = []
    for world, language, stage in keys:
        row = [str(world), stage.removeprefix("stage"), language]
        for direction in ("forward", "backward", "no_grad"):
            found = next(r for r in rows if (r["world"], r["language"], r["name"]) == (world, language, f"boundaries/{direction}/{stage}"))
            row.append(f"{found['added_us_a_unit']:.2f}")
        cells.append(row)
    return ["### Boundaries of units", "", "Microseconds that the engine adds to a unit's pass, over 64 units of 16 parameters (`bench_boundaries`, `boundaries.py`): gathers, releases and "
            "gradient hooks, and with two ranks the collectives.", "", *table(["ranks", "stage", "", "forward", "backward", "no_grad"], cells)]


def programs_section(micro: dict[str, Any]) -> list[str]:
    lines = ["### Whole programs", ""]
    for row in micro.get("engine_overhead", []):
        lines.append(f"- Engine against a bare PyTorch loop, world 1, {row['threads']} thread(s), compute-bound, {row['dtype']}: step {100 * (row['ratio'] - 1):+.1f} %, forward and backward "
                     f"alone {100 * (row['passes_ratio'] - 1):+.1f} % ({row['bare_s'] * 1e3:.0f} ms a bare step).")
    for row in micro.get("small_modules", []):
        what = "forward and backward without an engine" if row["stage"] == "bare" else f"stage {row['stage']}"
        lines.append(f"- 1,000 linears of 32 x 32 in C++ against Python, {row['ranks']} rank(s), {what}: {row['cpp_s'] * 1e3:.1f} and {row['python_s'] * 1e3:.1f} ms a step, "
                     f"{row['ratio']:.2f}x.")
    return lines


def merged(collectives: dict[str, Rows]) -> Rows:
    """One row a collective, dtype and size, with the times of all that were measured."""
    rows = {(r["collective"], r["dtype"], r["bytes"]): dict(r) for r in collectives["group"]}
    for row in collectives["process_group"]:
        target = rows.setdefault((row["collective"], row["dtype"], row["bytes"]), {key: row[key] for key in ("collective", "dtype", "bytes")})
        target |= {"hydrofoil_shm_s": row["shm_s"], "gloo_s": row["gloo_s"]}
    return [rows[key] for key in sorted(rows)]


def collectives_section(collectives: dict[str, Rows]) -> list[str]:
    rows = []
    for row in merged(collectives):
        times = [f"{row[f'{name}_s'] * 1e6:.0f}" if f"{name}_s" in row else "" for name in ("arena", "copied", "hydrofoil_shm", "gloo", "mpi", "hand_over", "sum")]
        ratios = [f"{row[f'{peer}_s'] / row['arena_s']:.1f}" if "arena_s" in row and f"{peer}_s" in row else "" for peer in ("gloo", "mpi")]
        rows.append([row["collective"], row["dtype"], str(row["bytes"] // 1024), *times, *ratios, percent(row["arena_roof_share"]) if "arena_roof_share" in row else ""])
    return ["### Collectives", "", "Two processes of one host, microseconds. `Group` on tensors that the peers read in place, on the processes' own, and MPI (fp32): `bench_collectives`; "
            "`hydrofoil_shm` and Gloo under torch.distributed: `collectives.py`. The roof is memcpy of the same size by both ranks at a time, each in memory of its own; "
            "hand over is what the caches allow where memory changes hands: each rank writes so many bytes that its peer has read, and reads the peer's, as an all_reduce of two ranks does. "
            "Sum is the arithmetic alone: a rank's part, from memory of its own; below it no reduction can come.", "",
            *table(["", "dtype", "KiB", "in place", "copied", "hydrofoil_shm", "Gloo", "MPI", "hand over", "sum", "Gloo / in place", "MPI / in place", "of memcpy"], rows), "",
            "![collectives](images/collectives.svg)"]


def plot_collectives(collectives: dict[str, Rows], path: Path) -> None:
    rows = merged(collectives)
    names = sorted({row["collective"] for row in rows})
    figure, axes = plt.subplots(2, len(names), figsize=(14, 6.5), squeeze=False, sharex=True, sharey=True)
    for line, dtype in zip(axes, ("fp32", "bf16")):
        for axis, name in zip(line, names):
            for who, label in GROUP_LABELS.items():
                points = [(r["bytes"], r["bytes"] / r[f"{who}_s"] / 1e9) for r in rows if r["collective"] == name and r["dtype"] == dtype and f"{who}_s" in r]
                if points:
                    axis.loglog(*zip(*points), marker="o", markersize=3, color=GROUP_COLORS[who], label=label, linestyle="--" if who == "memcpy" else "-")
            axis.set_title(f"{name}, {dtype}", fontsize=9)
            axis.grid(True, which="both", linewidth=0.3)
            axis.tick_params(labelsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("bytes", fontsize=8)
    for line in axes:
        line[0].set_ylabel("size / time, GB/s", fontsize=8)
    axes[0][0].legend(fontsize=7)
    save(figure, path)


def plot_roof_shares(measured: dict[str, Any], path: Path) -> None:
    names = sorted({k["name"] for k in measured["kernels"]}, reverse=True)
    figure, axis = plt.subplots(figsize=(9, 0.34 * len(names) + 1))
    for offset, threads, color in ((0.2, 1, "#9ecae1"), (-0.2, 2, "#1f77b4")):
        shares = {k["name"]: 100 * k["roof_share"] for k in measured["kernels"] if k["threads"] == threads}
        if shares:
            axis.barh([i + offset for i, name in enumerate(names) if name in shares], [shares[name] for name in names if name in shares], height=0.38,
                      color=color, label=f"{threads} thread(s)")
    axis.axvline(100, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("% of the memory roof of the same run", fontsize=8)
    axis.legend(fontsize=8)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def sections(micro: dict[str, Any], images: Path) -> list[str]:
    """The report of what micro.json holds, and its plots in `images`."""
    machine = micro["machine"]
    lines = ["## Micro-benchmarks", "", f"`make bench-micro`; {machine['cpu']}, {machine['cores']} cores, {machine['date']}. Medians; one thread's kernels and steps by CPU time." + (f" {machine['note']}" if machine["note"] else "")]
    if "kernels" in micro:
        plot_roof_shares(micro["kernels"], images / "roof_share.svg")
        lines += ["", *roofs_section(micro["kernels"]), "", *optimizer_section(micro)]
    if "optimizer_step" in micro:
        lines += ["", *step_section(micro["optimizer_step"])]
    if "kernels" in micro:
        lines += ["", *kernels_section(micro["kernels"])]
    if "boundaries" in micro:
        lines += ["", *boundaries_section(micro["boundaries"])]
    if "engine_overhead" in micro or "small_modules" in micro:
        lines += ["", *programs_section(micro)]
    if "collectives" in micro:
        plot_collectives(micro["collectives"], images / "collectives.svg")
        lines += ["", *collectives_section(micro["collectives"])]
    return lines
