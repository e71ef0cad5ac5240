"""`hydrofoil train` where something is unusual: dropout, a changed config, wrong data, a run that ended early."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.launcher import find_program

GPT2 = dict(model_type="gpt2", vocab_size=256, n_positions=32, n_embd=16, n_layer=1, n_head=2)  # dropout 0.1, as Transformers has it
LLAMA = dict(model_type="llama", vocab_size=256, hidden_size=32, intermediate_size=40, num_hidden_layers=1, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=32)
CONFIG = {"train_batch_size": 4, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}, "zero_optimization": {"stage": 3}}


class Runs:
    """A folder with a model, data and a config, and `hydrofoil train` on them."""

    def __init__(self, folder: Path) -> None:
        self.program, self.folder = find_program(), folder
        if not os.access(Path(self.program).parent / "hydrofoil-train", os.X_OK):
            pytest.skip(f"no program hydrofoil-train beside {self.program}: build the target hydrofoil_train")
        self.set(GPT2)
        (folder / "text.txt").write_text("shard gather reduce step unit tier rank. " * 200)

    def set(self, model: dict, config: dict = CONFIG) -> None:
        (self.folder / "config.json").write_text(json.dumps(model))
        (self.folder / "ds_config.json").write_text(json.dumps(config))

    def start(self, *arguments: object, ranks: int = 1, data: object = "text.txt", config: str = "ds_config.json") -> subprocess.Popen[str]:
        run = ["run", "-q", "--no-python", "--nproc", str(ranks), self.program] if ranks > 1 else []
        command = [self.program, *run, "train", "--config", config, "--model", "config.json", "--data", data, "--eval-windows", "2", *arguments]
        return subprocess.Popen(list(map(str, command)), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})

    def run(self, *arguments: object, **options: object) -> tuple[int, str]:
        process = self.start(*arguments, **options)
        output = process.communicate(timeout=120)[0]
        return process.returncode, output

    def losses(self, run: str) -> list[str]:
        with open(self.folder / run / "loss.csv", newline="", encoding="ascii") as file:
            return [row["loss"] for row in csv.DictReader(file)]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.mark.parametrize("ranks", [1, 2])
def test_dropout_follows_the_seed_through_a_resumed_run(runs: Runs, ranks: int) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert runs.run("--steps", 6, "--seed", seed, "--out", out, ranks=ranks)[0] == 0
    assert runs.losses("a") == runs.losses("b") != runs.losses("c")
    assert runs.run("--steps", 3, "--seed", 1, "--out", "d", ranks=ranks)[0] == 0
    code, output = runs.run("--steps", 6, "--seed", 1, "--resume", "d", ranks=ranks)
    assert code == 0 and runs.losses("d") == runs.losses("a"), output


def test_the_config_is_read_once(runs: Runs) -> None:
    os.mkfifo(runs.folder / "pipe.json")
    process = runs.start("--steps", 2, "--out", "a", config="pipe.json")
    (runs.folder / "pipe.json").write_text(json.dumps(CONFIG))
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and "the held-out loss is the same" in output, output


def test_a_resumed_run_is_of_the_same_model_and_data(runs: Runs) -> None:
    runs.set(LLAMA)
    assert runs.run("--steps", 2, "--out", "a")[0] == 0
    for change in ({"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}, {"rope_theta": 500.0}, {"rms_norm_eps": 1e-3}):
        runs.set(LLAMA | change)
        code, output = runs.run("--steps", 4, "--resume", "a")
        assert code == 2 and "the model is not the one" in output, (change, output)
    runs.set(LLAMA, {**CONFIG, "optimizer": {"type": "AdamW", "params": {"lr": 5e-2}}})
    (runs.folder / "other.txt").write_text((runs.folder / "text.txt").read_text().upper())
    code, output = runs.run("--steps", 4, "--resume", "a", data="other.txt")
    assert code == 2 and "the data is not the one" in output, output
    code, output = runs.run("--steps", 4, "--resume", "a")
    assert code == 0 and "the learning rate of the checkpoint, 0.001, is kept; ds_config.json has 0.05" in output, output


def test_wrong_data_ends_with_its_own_error_on_every_number_of_ranks(runs: Runs) -> None:
    tokens = np.arange(8000, dtype=np.uint16) % 250
    tokens[4321] = 256
    np.save(runs.folder / "tokens.npy", tokens)
    for ranks in (1, 2):
        code, output = runs.run("--steps", 100, "--out", f"run{ranks}", data="tokens.npy", ranks=ranks)
        assert code == 2 and "tokens.npy" in output and "256" in output, output
        assert "has left the group" not in output
    code, output = runs.run("--steps", 100, "--out", "run1", data="tokens.npy")
    assert code == 2 and "ended before its first checkpoint; name another folder with --out" in output, output
    code, output = runs.run("--steps", 100, "--resume", "run1", data="tokens.npy")
    assert code == 2 and "start it again in another folder" in output, output


def test_a_config_without_end_is_refused(runs: Runs) -> None:
    code, output = runs.run("--steps", 1, config="/dev/zero")
    assert code == 2 and "/dev/zero has over 67108864 bytes" in output, output


def test_inspect_finds_the_checkpoint_of_a_run(runs: Runs) -> None:
    assert runs.run("--steps", 1, "--out", "a")[0] == 0
    output = subprocess.run([runs.program, "inspect", runs.folder / "a"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "transformer.wte.weight" in output


def test_inspect_takes_a_tag_named_checkpoint(runs: Runs) -> None:
    assert runs.run("--steps", 1, "--out", "a")[0] == 0
    folder = runs.folder / "a/checkpoint"
    (folder / "step1").rename(folder / "checkpoint")
    for arguments in (["--tag", "checkpoint"], []):
        (folder / "latest").write_text("checkpoint")
        output = subprocess.run([runs.program, "inspect", folder, *arguments], capture_output=True, text=True, timeout=60, check=True).stdout
        assert "transformer.wte.weight" in output
