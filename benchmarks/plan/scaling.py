"""Draws docs/images/plan_scaling.svg: ZeRO 1-3 on Llama-2-70B to 4,096 ranks, as `hydrofoil plan --scaling` has it. Nothing is measured.

The links and the machine are assumptions, stated in the figure: 8 ranks a node, 450 GB/s inside, 50 GB/s a rank between nodes, half the peak of an H100.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LLAMA_70B = {"model_type": "llama", "vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
             "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 4096}
CONFIG = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}, "optimizer": {"type": "AdamW"}, "bf16": {"enabled": True}}
ROOFS = {"bf16_flops": 5e14, "fp32_flops": 3e13, "memory_bytes_per_s": 2.5e12, "call_s": 3e-6, "host_latency_s": 3e-6, "host_bytes_per_s": 4.5e11,
         "network_latency_s": 5e-6, "network_bytes_per_s": 5e10, "overlaps": True}
COLORS = {1: "#1f4e8c", 2: "#e08214", 3: "#2a9d72"}


def scaling(program: str, collectives: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.json" for name in ("config", "model", "roofs")}
        for name, value in (("config", CONFIG), ("model", LLAMA_70B), ("roofs", ROOFS)):
            files[name].write_text(json.dumps(value))
        command = [program, "plan", "--config", str(files["config"]), "--model", str(files["model"]), "--roofs", str(files["roofs"]), "--device", "cuda",
                   "--world-size", "8", "--checkpointing", "--scaling", "--max-ranks", "4096", "--collectives", collectives, "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=os.environ.get("HYDROFOIL_PROGRAM", str(Path(sys.executable).parent / "hydrofoil")))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "plan_scaling.svg")
    arguments = parser.parse_args()
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "plan"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6))
    for collectives, style in (("ring", "--"), ("recursive", "-")):
        points = scaling(arguments.program, collectives)["points"]
        for stage, color in COLORS.items():
            curve = [p for p in points if p["stage"] == stage]
            ranks = [p["world_size"] for p in curve]
            # Stage 2 lies on stage 1 where a step has one micro step.
            left.plot(ranks, [100 * p["efficiency"] for p in curve], style, color=color, linewidth=3.5 if stage == 1 else 1.6,
                      alpha=0.45 if stage == 1 else 1, label=f"stage {stage}, {collectives}")
            if collectives == "recursive":
                right.plot(ranks, [p["peak_bytes"] / 2**30 for p in curve], style, color=color, linewidth=3.5 if stage == 1 else 1.6,
                           alpha=0.45 if stage == 1 else 1, label=f"stage {stage}")
    left.set(title="forward and backward, share of a step", ylabel="%", ylim=(0, 102))
    right.set(title="peak of a rank", ylabel="GiB", yscale="log")
    right.set_yticks([25, 50, 100, 200, 400, 800], ["25", "50", "100", "200", "400", "800"])
    right.minorticks_off()
    ticks = [2 ** k for k in range(1, 13)]
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [str(t) if t < 1024 else f"{t // 1024}k" for t in ticks])
        axis.set_xlabel("ranks, 8 a node")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle("Llama-2-70B, 4,096 tokens a rank, checkpointing; planned, not measured: 5 us and 50 GB/s a rank between nodes", fontsize=9)
    figure.tight_layout()
    figure.savefig(arguments.out, metadata={"Date": None})
    print(arguments.out)


if __name__ == "__main__":
    main()
