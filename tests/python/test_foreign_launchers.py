"""Hydrofoil scripts under other launchers than `hydrofoil run`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("foreign_launcher_script.py")


def run(command: list[str]) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(output: str) -> None:
    assert "rank 0 of 2, local 0, sum 3" in output
    assert "rank 1 of 2, local 1, sum 3" in output


def test_torchrun() -> None:
    check(run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]))


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed (Debian: openmpi-bin)")
def test_mpirun() -> None:
    check(run(["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2", sys.executable, str(SCRIPT)]))


def test_plain_python_is_a_world_of_one() -> None:
    assert "rank 0 of 1, local 0, sum 1" in run([sys.executable, str(SCRIPT)])
