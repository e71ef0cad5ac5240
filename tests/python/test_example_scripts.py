"""The DeepSpeed-style scripts and the PyTorch port run on two ranks, learn, and lose nothing by the port."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest
from tests.python.example_ranks import run_ranks

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"
SCRIPTS, PORT = EXAMPLES / "deepspeed_scripts", EXAMPLES / "pytorch_port"


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


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plain_module", []),
        ("frozen_and_tied", []),
        ("huggingface_llama", ["--gradient_checkpointing", "--save_dir"]),
    ],
    ids=["plain_module", "frozen_and_tied", "huggingface_llama"],
)
def test_a_deepspeed_script_learns(name: str, arguments: list[str], tmp_path: Path) -> None:
    pytest.importorskip("hydrofoil._C", reason="hydrofoil is not installed")
    if name == "huggingface_llama":
        pytest.importorskip("transformers", reason="the script trains a model of the package transformers")
    folder = [str(tmp_path / "checkpoint")] if "--save_dir" in arguments else []
    output = run_ranks(SCRIPTS / f"{name}.py", "--deepspeed", "--deepspeed_config", f"{name}.json", *arguments, *folder)
    first, last = (float(loss) for loss in re.search(r"^loss (\S+) -> (\S+)$", output, re.MULTILINE).groups())
    assert last < first / 2
    assert not folder or "went on from" in output
