"""The DeepSpeed-style scripts and the PyTorch port run on two ranks, learn, and lose nothing by the port."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest
from tests.python.example_ranks import run_ranks
from tests.support.launcher import find_program

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"
Launch = Callable[..., str]
SCRIPTS, PORT = EXAMPLES / "deepspeed_scripts", EXAMPLES / "pytorch_port"


@pytest.fixture
def launch() -> Launch:
    """`hydrofoil run --num_gpus=2 SCRIPT ...`; fails with what it wrote if it failed."""
    program = find_program()

    def run(script: Path, *arguments: str) -> str:
        result = subprocess.run([program, "run", "--num_gpus=2", str(script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, timeout=240, env={**os.environ, "HYDROFOIL_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"})
        assert result.returncode == 0, result.stdout
        return re.sub(r"^\[\S*\d+\S*\] ", "", result.stdout, flags=re.MULTILINE)

    return run


def test_the_port_changes_four_lines() -> None:
    before, after = ((PORT / name).read_text(encoding="utf-8").splitlines() for name in ("before.py", "after.py"))
    changes = [line for line in difflib.ndiff(before, after) if line.startswith(("- ", "+ "))]
    assert sum(line.startswith("- ") for line in changes) == 4
    assert sum(line.startswith("+ ") for line in changes) == 4


def test_the_port_gives_the_same_losses() -> None:
    pytest.importorskip("hydrofoil._C", reason="hydrofoil is not installed")
    before, after = (
        [float(loss) for loss in re.findall(r"loss (\S+)", run_ranks(PORT / name))]
        for name in ("before.py", "after.py")
    )
    assert len(before) == 8
    assert before[-1] < before[0] / 3
    assert after == pytest.approx(before, rel=1e-3, abs=2e-5)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plain_module", []),
        ("frozen_and_tied", []),
        ("huggingface_llama", ["--gradient_checkpointing", "--save_dir"]),
    ],
    ids=["plain_module", "frozen_and_tied", "huggingface_llama"],
)
def test_a_deepspeed_script_learns(name: str, arguments: list[str], stage: int, tmp_path: Path, launch: Launch) -> None:
    pytest.importorskip("hydrofoil._C", reason="hydrofoil is not installed")
    if name == "huggingface_llama":
        pytest.importorskip("transformers", reason="the script trains a model of the package transformers")
    folder = [str(tmp_path / "checkpoint")] if "--save_dir" in arguments else []
    config = json.loads((SCRIPTS / f"{name}.json").read_text(encoding="utf-8"))
    config.setdefault("zero_optimization", {})["stage"] = stage
    (tmp_path / "ds_config.json").write_text(json.dumps(config), encoding="utf-8")
    output = launch(SCRIPTS / f"{name}.py", "--deepspeed", "--deepspeed_config", str(tmp_path / "ds_config.json"), *arguments, *folder)
    first, last = (float(loss) for loss in re.search(r"^loss (\S+) -> (\S+)$", output, re.MULTILINE).groups())
    assert last < first / 2
    assert not folder or "went on from" in output


MANUAL = """
import argparse, torch, hydrofoil as deepspeed
parser = argparse.ArgumentParser()
parser.add_argument("--local_rank", type=int, default=-1)
args = deepspeed.add_config_arguments(parser).parse_args()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
engine, _, _, _ = deepspeed.initialize(args=args, model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2))
x = torch.randn(4, 16, generator=torch.Generator().manual_seed(torch.distributed.get_rank())).half()
for step in range(12):
    loss = (engine(x) - x).float().square().mean()
    engine.backward(loss)
    engine.step()
    if torch.distributed.get_rank() == 0:
        print(f"step {step} loss {loss.item():.5f} stage {engine.zero_optimization_stage()} world {engine.world_size} fp16 {engine.fp16_enabled()}")
"""


def test_the_example_of_the_manual(tmp_path: Path, launch: Launch) -> None:
    config = {"fp16": {"enabled": True}, "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}, "train_batch_size": 8}
    (tmp_path / "ds_config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "train.py").write_text(MANUAL, encoding="utf-8")
    output = launch(tmp_path / "train.py", "--deepspeed_config", str(tmp_path / "ds_config.json"))
    losses = [float(loss) for loss in re.findall(r"loss (\S+) stage 3 world 2 fp16 True", output)]
    assert len(losses) == 12 and losses[-1] < losses[0], output
