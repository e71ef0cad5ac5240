"""Draws docs/images/zero_*.svg from `hydrofoil plan`: python docs/make_images.py [--out FOLDER]. Nothing is measured."""

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

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = os.environ.get("HYDROFOIL_PROGRAM", str(Path(sys.executable).parent / "hydrofoil"))
STATES = {"parameters": "#5b8ff9", "gradients": "#f6bd16", "masters": "#5ad8a6", "optimizer_states": "#269a6b"}
LANES = {"compute": "#5d7092", "gather": "#5b8ff9", "reduce": "#f6bd16", "update": "#269a6b"}
LLAMA_7B = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
}
# Of an accelerator, so that compute and links have about the proportion of a real one; only the order is drawn.
ROOFS = {"bf16_flops": 4e14, "fp32_flops": 4e14, "memory_bytes_per_s": 2e12, "call_s": 2e-6, "host_latency_s": 1e-5, "host_bytes_per_s": 1e11,
         "network_latency_s": 1e-5, "network_bytes_per_s": 1e11, "overlaps": True}


def plan(model: dict[str, Any], stage: int, ranks: int, folder: Path, sequence_length: int, accumulation: int) -> dict[str, Any]:
    config = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": accumulation,
              "bf16": {"enabled": True}, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}},
              "zero_optimization": {"stage": stage}, "hydrofoil": {"keep_gathered_bytes": 0}}
    for name, content in (("ds_config.json", config), ("config.json", model), ("roofs.json", ROOFS)):
        (folder / name).write_text(json.dumps(content))
    result = subprocess.run(
        [PROGRAM, "plan", "--config", folder / "ds_config.json", "--model", folder / "config.json", "--roofs", folder / "roofs.json",
         "--world-size", str(ranks), "--device", "cuda", "--sequence-length", str(sequence_length), "--json"],
        check=True, capture_output=True, text=True)
    return dict(json.loads(result.stdout))


def draw_memory(folder: Path, out: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3))
    labels = []
    for group, ranks in enumerate((1, 8, 64)):
        for stage in range(4):
            place, bottom = group * 5 + stage, 0.0
            states = plan(LLAMA_7B, stage, ranks, folder, 128, 4)["bytes"]
            for name, color in STATES.items():
                height = states[name] / 2**30
                axes.bar(place, height, bottom=bottom, color=color, label=name.replace("_", " ") if not labels else None, width=0.8)
                bottom += height
            axes.text(place, bottom + 1, f"{bottom:.0f}", ha="center", fontsize=8)
            labels.append((place, f"{stage}\n{ranks} ranks" if stage == 1 and ranks > 1 else f"{stage}\n1 rank" if stage == 1 else str(stage)))
    axes.set_xticks([place for place, _ in labels], [text for _, text in labels])
    axes.set_ylabel("GiB of states a rank")
    axes.set_title("Llama of 7 billion parameters, by ZeRO stage (bf16, AdamW, accumulation)")
    axes.legend(frameon=False, fontsize=8)
    save(figure, axes, out / "zero_memory.svg")


def draw_step(folder: Path, out: Path) -> None:
    small = {**LLAMA_7B, "num_hidden_layers": 4, "vocab_size": 8000}
    answer = plan(small, 3, 8, folder, 2048, 1)
    units = [unit["name"].replace("model.", "") for unit in answer["units"]]
    figure, axes = plt.subplots(figsize=(7, 2.2))
    lanes = ["reduce", "gather", "compute"]
    for event in answer["timeline"]["events"]:
        row = lanes.index(event["lane"])
        begin, width = event["begin_s"] * 1e3, (event["end_s"] - event["begin_s"]) * 1e3
        color = LANES.get(event["activity"], LANES["compute"])
        axes.barh(row, width, left=begin, color=color, edgecolor="white", height=0.7)
        if event["lane"] != "compute" and 0 <= event["unit"] < len(units) and width > answer["timeline"]["end_s"] * 1e3 / 40:
            axes.text(begin + width / 2, row, units[event["unit"]].split(".")[-1], ha="center", va="center", fontsize=7)
    axes.set_yticks(range(3), lanes)
    axes.set_xlabel("ms; forward, backward, step")
    axes.set_title("One step under stage 3: four blocks (0 to 3), 8 ranks")
    save(figure, axes, out / "zero_step.svg")


def save(figure: Any, axes: Any, path: Path) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images")
    out = parser.parse_args().out
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "zero"})
    with tempfile.TemporaryDirectory() as folder:
        draw_memory(Path(folder), out)
        draw_step(Path(folder), out)


if __name__ == "__main__":
    main()
