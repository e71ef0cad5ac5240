"""Fixtures for tests of `hydrofoil run`: a program that runs, or is started and killed at the end of the test."""

import contextlib
import os
import pathlib
import subprocess
import sys
import textwrap
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
WAIT_SECONDS = 20  # until something that takes milliseconds counts as missing; nothing sleeps that long


def find_program():
    candidates = [
        os.environ.get("HYDROFOIL_PROGRAM"),
        str(pathlib.Path(sys.executable).parent / "hydrofoil"),
        str(REPOSITORY / "build/dev/apps/hydrofoil"),
    ]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    pytest.skip("no hydrofoil program: set HYDROFOIL_PROGRAM or build the target hydrofoil_cli")


@pytest.fixture(scope="module")
def program():
    return find_program()


@pytest.fixture
def environment():
    """The tests' own variables do not reach the ranks; the interpreter is the plain one, which starts fast."""
    ours = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    return {**ours, "HYDROFOIL_PYTHON": sys.executable}


@pytest.fixture
def write(tmp_path):
    def write_script(text, name="script.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write_script


@pytest.fixture
def run(program, environment):
    def run_program(*arguments, **options):
        options = {"env": environment, "capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run([program, "run", *arguments], **options)

    return run_program


@pytest.fixture
def start(program, environment):
    """Starts a launcher and kills it, and its group, at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start_program(*arguments, **options):
            options = {
                "env": environment,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                "start_new_session": True,
                **options,
            }
            process = subprocess.Popen([program, "run", *arguments], **options)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start_program


def wait_until(condition, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_SECONDS} s"
        time.sleep(0.01)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_in(folder, count):
    """Process ids that `count` processes wrote as names of files."""
    wait_until(lambda: len(list(folder.glob("pid_*"))) >= count, f"{count} processes")
    return [int(path.name.removeprefix("pid_")) for path in folder.glob("pid_*")]


# A rank with a child in its group and one that left it; all of them write their ids and stay.
FAMILY = """
    cd {folder}
    trap '{trap}' TERM
    ( touch pid_$BASHPID; exec sleep 1000 ) &
    setsid bash -c 'touch pid_$$; trap "" TERM HUP; while true; do sleep 1000; done' &
    touch pid_$$
    while true; do wait; done
"""
