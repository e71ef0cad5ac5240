"""Writes docs/performance.md, its plots and benchmarks/results/ from what the benchmarks measured.

    make bench bench-micro
    .venv/bin/python benchmarks/report.py
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from micro_report import sections  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
COLORS = {"hydrofoil": "#1f77b4", "deepspeed": "#ff7f0e", "fsdp2": "#2ca02c", "ddp": "#7f7f7f"}


def bars(cells: dict[str, Any], key: str, label: str, scale: float, path: Path) -> None:
    figure, axes = plt.subplots((len(cells) + 3) // 4, min(4, len(cells)), figsize=(14, 3 * ((len(cells) + 3) // 4)), squeeze=False)
    for axis in axes.flat[len(cells):]:
        axis.axis("off")
    for axis, (name, cell) in zip(axes.flat, cells.items()):
        names = list(cell["rows"])
        axis.barh(names[::-1], [cell["rows"][n][key] * scale for n in names[::-1]], color=[COLORS[n.split()[0]] for n in names[::-1]])
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(label, fontsize=8)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def e2e_table(cells: dict[str, Any]) -> list[str]:
    lines = ["| cell | competitor | step, ms | Hydrofoil's / its | PSS, MiB | Hydrofoil's / its | CPU s a step | losses |", "|---|---|---|---|---|---|---|---|"]
    for name, cell in cells.items():
        base = cell["rows"][cell["competitors"][0]]
        for competitor in cell["competitors"]:
            row = cell["rows"][competitor]
            lines.append(f"| {name} | {competitor} | {row['median_s'] * 1e3:.1f} | {base['median_s'] / row['median_s']:.2f} | {row['pss_mib']:.0f} | "
                         f"{base['pss_mib'] / row['pss_mib']:.2f} | {row['cpu_s']:.3f} | {row['first_loss']:.4f} to {row['last_loss']:.4f}"
                         + (f" ({row['invalid']})" if row["invalid"] else "") + " |")
    return lines


def write_results(what: str, machine: dict[str, Any], lines: list[str]) -> None:
    hardware = re.sub(r"[^a-z0-9]+", "-", machine["cpu"].lower()).strip("-")
    results = ROOT / "benchmarks/results"
    results.mkdir(exist_ok=True)
    text = "\n".join(lines) + "\n"
    (results / f"{what}_{hardware}_{machine['date'][:4]}{machine['date'][5:7]}.md").write_text(text.replace("(images/", "(../../docs/images/"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--e2e", type=Path, default=ROOT / "build/bench/e2e.json")
    parser.add_argument("--micro", type=Path, default=ROOT / "build/bench/micro.json", help="of make bench-micro; left out where there is none")
    arguments = parser.parse_args()
    measured = json.loads(arguments.e2e.read_text())
    machine, cells = measured["machine"], measured["cells"]
    images = ROOT / "docs/images"
    images.mkdir(parents=True, exist_ok=True)
    bars(cells, "median_s", "ms a step (median)", 1e3, images / "step_time.svg")
    bars(cells, "pss_mib", "peak MiB a rank (PSS)", 1.0, images / "peak_memory.svg")
    roofs = (f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}. Roofs of the same run: copy {machine['memcpy_gb_s']:.1f} GB/s (read and "
             f"written), {machine['fp32_gflops']:.0f} GFLOP/s in fp32, {machine['bf16_gflops']:.0f} in bf16.")
    lines = ["# Performance", "", "Written by `benchmarks/report.py` from `make bench`: the same model, data, seed and global batch, two ranks of one machine, the "
             "competitors in turns in one run. The machines are shared and differ; only the ratios hold.", "", roofs, "",
             "Rows that say so are not comparable: DDP and DeepSpeed's stage 0 in bf16 keep no fp32 master weights.", "",
             "![step time](images/step_time.svg)", "", "![peak memory](images/peak_memory.svg)", "", *e2e_table(cells)]
    write_results("e2e", machine, lines)
    if arguments.micro.exists():
        micro = json.loads(arguments.micro.read_text())
        micro_lines = sections(micro, images)
        write_results("micro", micro["machine"], ["# Micro-benchmarks", *micro_lines[1:]])
        lines += ["", *micro_lines]
    (ROOT / "docs/performance.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
