"""`hydrofoil doctor`: this machine, and what a wrong setting or limit makes of it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.launcher import REPOSITORY, environment, program  # noqa: F401

Report = dict[str, dict[str, str]]
Doctor = Callable[..., tuple[int, Report]]

# What depends on the machine that the tests run on.
LINES_OF_THE_MACHINE = ["memory", "cores", "temporary", "this folder", "of shared memory"]


@pytest.fixture
def doctor(program: str, environment: dict[str, str]) -> Doctor:  # noqa: F811
    """Runs it with --json; returns the exit code and the findings by name."""

    def run(limits: dict[int, int] | None = None, **settings: str) -> tuple[int, Report]:
        def set_limits() -> None:
            for kind, soft in (limits or {}).items():
                resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))

        result = subprocess.run([program, "doctor", "--json"], env={**environment, **settings}, capture_output=True, text=True,
                                timeout=600, preexec_fn=set_limits)
        assert result.stderr == ""
        report = json.loads(result.stdout)
        levels = [finding["level"] for finding in report["findings"]]
        assert (report["problems"], report["warnings"]) == (levels.count("problem"), levels.count("warning"))
        assert (result.returncode == 1) == (report["problems"] > 0)
        for finding in report["findings"]:
            assert bool(finding["advice"]) == (finding["level"] != "ok"), finding
        return result.returncode, {finding["name"]: finding for finding in report["findings"]}

    return run


def test_this_machine_has_no_problem(doctor: Doctor) -> None:
    import torch

    import hydrofoil

    status, lines = doctor()
    problems = {name: line for name, line in lines.items() if line["level"] == "problem"}
    assert not problems and status == 0
    assert torch.__version__ in lines["torch"]["value"]
    assert sys.version.split()[0] in lines["Python"]["value"]
    assert hydrofoil.__version__ in lines["hydrofoil"]["value"]
    assert "none is needed" in lines["compiler"]["value"]
    assert str(len(os.sched_getaffinity(0))) in lines["cores"]["value"]
    for name in ("model", "kernels", "NUMA", "memory", "/dev/shm", "shared memory", "huge pages", "open files", "locked memory",
                 "io_uring", "GPUs", "NCCL", "MPI", "temporary"):
        assert lines[name]["value"]


def test_text_has_the_same_lines(program: str, environment: dict[str, str], doctor: Doctor) -> None:  # noqa: F811
    _, lines = doctor()
    result = subprocess.run([program, "doctor"], env=environment, capture_output=True, text=True, timeout=600)
    said = [text.split() for text in result.stdout.splitlines()]
    for name, line in lines.items():
        if name not in LINES_OF_THE_MACHINE:
            assert f"{line['level']} {name} {line['value']}".split() in said
    assert f"HYDROFOIL_PYTHON={sys.executable}" in result.stdout
    assert result.stdout.splitlines()[-1].endswith(("warning", "warnings"))


@pytest.mark.parametrize("python, said", [("/nowhere/python3", "No such file"), ("/bin/true", "exit code 0")])
def test_a_python_that_is_none_is_a_problem(doctor: Doctor, python: str, said: str) -> None:
    status, lines = doctor(HYDROFOIL_PYTHON=python)
    assert status == 1
    assert lines["Python"]["level"] == "problem" and said in lines["Python"]["value"]
    assert "torch" not in lines


def test_torch_that_does_not_import_is_a_problem(doctor: Doctor, tmp_path) -> None:  # noqa: ANN001
    (tmp_path / "torch.py").write_text("print('noise')\nraise OSError('libtorch_cpu.so: cannot open\\nshared object')\n")
    status, lines = doctor(PYTHONPATH=str(tmp_path))
    assert status == 1
    assert lines["torch"]["value"] == "OSError: libtorch_cpu.so: cannot open\nshared object"
    assert "pip install" in lines["torch"]["advice"]


def test_a_crash_at_the_import_is_a_problem(doctor: Doctor, tmp_path) -> None:  # noqa: ANN001
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    status, lines = doctor(PYTHONPATH=str(tmp_path))
    assert status == 1
    assert "SIGSEGV at import torch" in lines["imports"]["value"]


@pytest.mark.parametrize(
    "line, level, limits, settings",
    [
        ("kernels", "problem", {}, {"HYDROFOIL_CPU_ISA": "sse"}),
        ("kernels", "warning", {}, {"HYDROFOIL_CPU_ISA": "scalar"}),
        ("threads", "warning", {}, {"OMP_NUM_THREADS": "5000"}),
        ("temporary", "problem", {}, {"TMPDIR": "/proc"}),
        ("open files", "warning", {resource.RLIMIT_NOFILE: 300}, {}),
        ("open files", "problem", {resource.RLIMIT_NOFILE: 100}, {}),
        ("address space", "warning", {resource.RLIMIT_FSIZE: 1 << 40}, {}),
    ],
)
def test_limits_and_settings(doctor: Doctor, line: str, level: str, limits: dict[int, int], settings: dict[str, str]) -> None:
    _, lines = doctor(limits, HYDROFOIL_PYTHON="/nowhere/python3", **settings)
    assert lines[line]["level"] == level and lines[line]["advice"]


def test_a_kernel_that_forbids_memfd_is_a_warning(program: str, environment: dict[str, str]) -> None:  # noqa: F811
    """A file-size limit of one page stands for what a sandbox does: the memfd cannot be sized."""
    result = subprocess.run(
        [program, "doctor", "--json"], env={**environment, "HYDROFOIL_PYTHON": "/nowhere/python3"}, capture_output=True, text=True,
        timeout=600, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
    assert result.returncode == 1, result.stderr
    line = next(finding for finding in json.loads(result.stdout)["findings"] if finding["name"] == "shared memory")
    assert line["level"] == "warning" and "memfd" in line["value"]


def test_problems_are_counted_where_they_are_hidden(program: str, environment: dict[str, str]) -> None:  # noqa: F811
    broken = {**environment, "HYDROFOIL_PYTHON": "/nowhere/python3"}
    result = subprocess.run([program, "doctor", "--hide-problems"], env=broken, capture_output=True, text=True, timeout=600)
    assert result.returncode == 1 and "/nowhere" not in result.stdout.partition("Set in the environment")[0]
    assert result.stdout.splitlines()[-1].startswith("1 problem, ")
    result = subprocess.run([program, "doctor", "--hide-problems", "--json"], env=broken, capture_output=True, text=True, timeout=600)
    report = json.loads(result.stdout)
    assert report["problems"] == 1 and {finding["level"] for finding in report["findings"]} == {"ok"}


def test_wrong_use(program: str) -> None:  # noqa: F811
    result = subprocess.run([program, "doctor", "--jsn"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and "--json" in result.stderr
    result = subprocess.run([program, "docter"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and "doctor" in result.stderr


def test_the_program_needs_no_torch(program: str) -> None:  # noqa: F811
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    assert "torch" not in libraries and "libpython" not in libraries
