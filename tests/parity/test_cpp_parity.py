"""The same weights, data and config through Python and through `hydrofoil train`: the same losses, and the same bits.

Both run the same operators in the same order, so parameters, masters and optimizer states after 50 steps are compared for equality.
"""

from __future__ import annotations

import csv
import json
import os
import pathlib
import subprocess

import pytest
import torch

from tests.support.launcher import find_program
from tests.support.world import world

transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

STEPS, CONTEXT, SEED = 50, 32, 3
SIZES = dict(vocab_size=256, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=CONTEXT, tie_word_embeddings=True)
WORLD_SIZES, ACCUMULATIONS, STAGES = (1, 2), (1, 3), (0, 1, 2, 3)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpp_parity")
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(folder / "model")
    words = "shard gather reduce step unit tier rank and the loss falls".split()
    text = " ".join(words[(7 * i * i + 3 * i) % len(words)] for i in range(4000))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return folder


def config_of(stage, accumulation, dtype="fp32"):
    return {
        "train_batch_size": 12,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": dtype == "bf16"},
        "optimizer": {"type": "AdamW", "params": {"lr": 5e-3, "betas": [0.9, 0.95], "weight_decay": 0.1}},
        "scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": STEPS, "warmup_num_steps": 5}},
        "zero_optimization": {"stage": stage},
        "hydrofoil": {"unit_min_bytes": 0},
    }


def run_cpp(inputs, config, world_size, out, *arguments, steps=STEPS):
    program = find_program()
    if not os.access(pathlib.Path(program).parent / "hydrofoil-train", os.X_OK):
        pytest.skip(f"no program hydrofoil-train beside {program}: build the target hydrofoil_train")
    path = out.parent / f"{out.name}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    command = [program, "run", "--no-python", "--nproc", str(world_size), program, "train", "--config", path, "--model", inputs / "model",
               "--data", inputs / "text.txt", "--steps", str(steps), "--seed", str(SEED), "--eval-windows", "4", "--out", out, *arguments]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stdout + result.stderr
    with open(out / "loss.csv", newline="", encoding="ascii") as file:
        return list(csv.DictReader(file)), result.stdout


def run_python(inputs, config, world_size, save, load=None, steps=STEPS):
    results = world(world_size).run("tests.parity.cpp_cases:train", timeout=240, directory=str(inputs / "model"), text=str(inputs / "text.txt"),
                                    config=config, steps=steps, save=str(save), context=CONTEXT, seed=SEED, load=load)
    losses = [sum(values) / world_size for values in zip(*(result["losses"] for result in results))]
    return losses, results[0]["norms"]


def stored_tensors(checkpoint):
    tensors = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        for name, tensor in safetensors_torch.load_file(file).items():
            tensors[f"{file.name}/{name}"] = tensor
    assert tensors
    return tensors


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("accumulation", ACCUMULATIONS)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_python_and_cpp_train_alike(inputs, tmp_path, world_size, accumulation, stage):
    config = config_of(stage, accumulation)
    rows, _ = run_cpp(inputs, config, world_size, tmp_path / "run", "--init", inputs / "model")
    losses, norms = run_python(inputs, config, world_size, tmp_path / "python")
    assert len(rows) == STEPS
    assert losses[-1] < losses[0] - 1
    # The file keeps six digits.
    assert [float(row["loss"]) for row in rows] == pytest.approx(losses, rel=1e-5)
    assert [float(row["grad_norm"]) for row in rows] == pytest.approx(norms, rel=1e-5)
    ours, theirs = (stored_tensors(path) for path in (tmp_path / "run/checkpoint/step50", tmp_path / "python/step50"))
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_trains_alike(inputs, tmp_path, stage):
    config = config_of(stage, 1, "bf16")
    rows, _ = run_cpp(inputs, config, 2, tmp_path / "run", "--init", inputs / "model", steps=10)
    losses, _ = run_python(inputs, config, 2, tmp_path / "python", steps=10)
    assert [float(row["loss"]) for row in rows] == pytest.approx(losses, rel=1e-2)


@pytest.mark.parametrize("stage", [0, 3])
def test_each_goes_on_from_the_others_checkpoint(inputs, tmp_path, stage):
    config = config_of(stage, 1)
    whole, _ = run_cpp(inputs, config, 2, tmp_path / "whole", "--init", inputs / "model", steps=20)
    expected = [float(row["loss"]) for row in whole]

    run_cpp(inputs, config, 2, tmp_path / "cpp", "--init", inputs / "model", steps=10)
    losses, _ = run_python(inputs, config, 2, tmp_path / "python_after", load=str(tmp_path / "cpp/checkpoint"), steps=20)
    assert losses == pytest.approx(expected[10:], rel=1e-5)

    run_python(inputs, config, 2, tmp_path / "python/checkpoint", steps=10)
    rows, output = run_cpp(inputs, config, 2, tmp_path / "cpp_after", "--resume", tmp_path / "python", steps=20)
    assert [float(row["loss"]) for row in rows] == pytest.approx(expected[10:], rel=1e-5)
    assert "the held-out loss is the same" in output


def test_cpp_programs_link_no_python():
    program = pathlib.Path(find_program())
    for name in ("hydrofoil", "hydrofoil-train"):
        libraries = subprocess.run(["ldd", str(program.parent / name)], capture_output=True, text=True, check=True).stdout
        assert "libpython" not in libraries
        assert "not found" not in libraries
