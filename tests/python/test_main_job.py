"""The main job from end to end on two ranks, a few steps long."""

from __future__ import annotations

import csv
import re
import signal
from pathlib import Path

import pytest
from tests.python.example_ranks import TwoRanks, run_ranks

# The engine by name: from the root of the repository the folder of C++ sources answers to `hydrofoil` as well.
pytest.importorskip("hydrofoil._C", reason="hydrofoil is not installed")
pytest.importorskip("tqdm", reason="the main job shows its progress with tqdm")
pytest.importorskip("matplotlib", reason="the main job draws its loss curve with matplotlib")

TRAIN = Path(__file__).resolve().parents[2] / "examples" / "python" / "language_model" / "train.py"
SHORT = ("--dtype", "fp32", "--eval-windows", "6", "--print-interval", "1", "--sample-bytes", "3")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{number} times {number} is {number * number}.\n" for number in range(1500)))
    return path


def read_steps(path: Path) -> list[int]:
    with path.open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("stage", [0, 3])
def test_a_run_learns_and_leaves_numbers_curve_and_checkpoint(text: Path, tmp_path: Path, stage: int) -> None:
    out = tmp_path / "run"
    options = ("--stage", str(stage), "--steps", "8", "--eval-interval", "4", "--data", str(text), "--out", str(out))
    output = run_ranks(TRAIN, *SHORT, *options)
    assert read_steps(out / "loss.csv") == list(range(1, 9))
    assert read_steps(out / "held_out.csv") == [0, 4, 8]
    assert (out / "loss.png").stat().st_size > 5_000
    assert (out / "loss.svg").stat().st_size > 5_000
    assert (out / "checkpoint").is_dir()
    assert "the held-out loss is the same" in output
    assert "a sample of its text" in output
    held_out = [float(loss) for loss in re.findall(r"held out after step \d+: loss (\S+),", output)]
    assert held_out[-1] < held_out[0] - 0.5


def test_ctrl_c_ends_all_ranks_in_order_and_the_run_can_go_on(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--steps", "16", "--eval-interval", "8", "--data", str(text), "--no-sample")
    with TwoRanks(TRAIN, *SHORT, *options, "--out", str(out)) as ranks:
        for line in ranks.processes[0].stdout:
            if line.startswith("step     2/"):
                break
        for _ in range(2):  # The terminal and the launcher both send it; one rank is enough for all to stop.
            ranks.processes[1].send_signal(signal.SIGINT)
        codes, outputs = ranks.finish()
    assert codes == [130, 130], outputs
    assert "Traceback" not in "".join(outputs)
    assert "interrupted after step" in outputs[0]
    done = read_steps(out / "loss.csv")
    assert done == list(range(1, len(done) + 1))
    assert 2 <= len(done) < 16
    assert (out / "loss.png").exists()
    run_ranks(TRAIN, *SHORT, *options, "--resume", str(out))
    assert read_steps(out / "loss.csv") == list(range(1, 17))
    assert read_steps(out / "held_out.csv")[-1] == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "/nowhere"), "/nowhere does not exist"),
        (("--resume", "/nowhere"), "/nowhere holds no checkpoint"),
        (("--deepspeed_config", "/nowhere.json"), "cannot read /nowhere.json"),
        (("--steps", "0"), "got 0, expected at least 1"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: tuple[str, str], message: str) -> None:
    with TwoRanks(TRAIN, *SHORT, *arguments) as ranks:
        codes, outputs = ranks.finish()
    assert all(codes)
    assert message in outputs[0]
    assert "Traceback" not in "".join(outputs)
