"""comms_logger, flops_profiler, ranges of torch.profiler, and hydrofoil.trace, in engines of two ranks."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.launcher import REPOSITORY, program  # noqa: F401
from tests.support.world import world


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_comm_log_counts_a_steps_collectives(stage: int) -> None:
    steps = 3
    ranks = world(2).run("tests.python.profiling_cases:comm_rows", stage=stage, micro_steps=steps, debug=True)
    assert ranks[0] == ranks[1]
    rows = {(op, unit): count for op, unit, _, count in ranks[0]}
    reduce = "all_reduce" if stage == 0 else "reduce_scatter"
    for unit in ("layers.0", "layers.1", "layers.2"):
        assert rows[reduce, unit] == steps
    assert rows["all_gather", "gradient summary"] == steps
    if stage == 3:
        assert all(count % steps == 0 for count in rows.values())
    by_size = world(2).run("tests.python.profiling_cases:comm_rows", stage=stage, micro_steps=steps)[0]
    assert {unit for _, unit, _, _ in by_size} == {""}
    assert sum(count for *_, count in by_size) == sum(rows.values())


def test_comm_log_counts_the_named_operations_only() -> None:
    rows = world(2).run("tests.python.profiling_cases:comm_rows", stage=2, micro_steps=1, prof_all=False,
                        prof_ops=["reduce_scatter_tensor"])[0]
    assert {op for op, *_ in rows} == {"reduce_scatter"}
    assert {op for op, *_ in world(2).run("tests.python.profiling_cases:comm_rows", stage=2, micro_steps=1, prof_ops=["barrier"])[0]} > {
        "reduce_scatter"}, "prof_all is true unless it is given"


@pytest.mark.parametrize("backend", ["gloo", "hydrofoil_shm"])
def test_comm_log_counts_a_scripts_calls(backend: str) -> None:
    ranks = world(2).run("tests.python.profiling_cases:script_calls", backend=backend)
    rows = [("all_gather", 32, 1), ("all_reduce", 16, 2), ("all_to_all", 32, 1), ("barrier", 0, 1), ("broadcast_object_list", 0, 1), ("gather", 16, 1),
            ("recv", 16, 1), ("reduce_scatter", 32, 1), ("send", 16, 1)]
    expected = {(op, "(script)", size, 2, count) for op, size, count in rows} | {("all_reduce", "loss", 16, 2, 1)}
    alone = ("all_reduce", "(script)", 16, 1, 1)
    assert set(ranks[1]) == expected
    gathered = {("gather", "(script)", 32, 2, 1) if row[0] == "gather" else row for row in expected}  # rank 0 has what comes
    assert set(ranks[0]) == gathered | {alone}


def test_without_comms_logger_there_is_no_summary() -> None:
    assert all('"comms_logger": {"enabled": true}' in text for text in world(2).run("tests.python.profiling_cases:no_comm_log"))


@pytest.mark.parametrize("stage", [1, 3])
def test_torch_profiler_sees_units(stage: int) -> None:
    for names in world(2).run("tests.python.profiling_cases:profiler_ranges", stage=stage):
        expected = {f"hydrofoil {what} layers.{i}" for i in range(3) for what in ("reduce", "reduce wait", "update")}
        expected |= {"hydrofoil gradient norm", "hydrofoil publish", "hydrofoil optimizer step"}
        if stage == 3:
            expected |= {f"hydrofoil {what} layers.{i}" for i in range(3) for what in ("gather wait", "release")}
        assert set(names) == expected


@pytest.mark.parametrize("stage", [0, 3])
def test_trace_names_modules_and_hydrofoil_trace_sums_it_up(stage: int, tmp_path: Path, program: str) -> None:  # noqa: F811
    file = tmp_path / "trace.json"
    world(2).run("tests.python.profiling_cases:trace", stage=stage, path=str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    events = [event for event in json.loads(file.read_text())["traceEvents"] if event["ph"] == "X"]
    for rank in range(2):
        names = [event["name"] for event in events if event["pid"] == rank]
        for name in ("step 2", "step 3", "forward (root)", "forward layers.2", "backward layers.0", "recompute layers.1", "optimizer step"):
            assert name in names, name
        assert names.count("forward layers.0") == 2 and "step 4" not in names
        assert names.count("optimizer step") == 2
    run = subprocess.run([program, "trace", str(file)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    rows = [line.split() for line in run.stdout.splitlines()]
    assert rows[0][:3] == ["rank", "lane", "what"]
    assert [row for row in rows if row[:3] == ["1", "compute", "forward"]] and [row for row in rows if row[:3] == ["0", "step", "a"]]
    wrong = subprocess.run([program, "trace", __file__], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2 and "invalid JSON" in wrong.stderr


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_engine_profiles_the_step_that_follows(stage: int, tmp_path: Path) -> None:
    file = tmp_path / "profile.txt"
    world(2).run("tests.python.profiling_cases:profile_step", stage=stage, path=str(file))
    text = file.read_text()
    # 4 samples of 6 -> 8 -> 8 -> 2, a linear each; the first one's input needs no gradient; layer 1 is checkpointed.
    forward = 2 * 4 * (6 * 8 + 8 * 8 + 8 * 2)
    backward = 2 * forward - 2 * 4 * 6 * 8 + 2 * 4 * 8 * 8
    numbers = {name: float(value) for name, value in re.findall(r"^(fwd|bwd) FLOPs: +([0-9.]+) KFLOPS$", text, re.MULTILINE)}
    assert numbers == {"fwd": pytest.approx(forward / 1e3, abs=0.005), "bwd": pytest.approx(backward / 1e3, abs=0.005)}
    params = (6 + 1) * 8 + (8 + 1) * 8 + (8 + 1) * 2
    assert re.search(rf"^params: +{params}(\.0)?$", text, re.MULTILINE), text
    assert "Profile of step 2." in text and re.search(r"^world size: +2$", text, re.MULTILINE)
    assert re.search(r"^samples/second: +[0-9.]+$", text, re.MULTILINE) and "step latency" in text


@pytest.mark.parametrize("number", range(5))
def test_examples_of_the_documentation_run(number: int, tmp_path: Path, program: str) -> None:  # noqa: F811
    blocks = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "docs/profiling.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    (tmp_path / "example.py").write_text(blocks[number])
    run = subprocess.run([program, "run", "--nproc", "2", "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(["example.py", *re.findall(r'"([a-z]+\.(?:txt|json))"', blocks[number])])
