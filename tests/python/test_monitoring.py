"""What users see while training: log lines, timers, and monitors through the libraries they are written by."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from tests.support.world import World, world

CASES = "tests.python.monitoring_cases:"
STEPS = 4
SAMPLES = 8  # a step, two ranks


@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_breakdown_counts_waits_within_phases(stage: int, accumulation: int) -> None:
    world(2).run(CASES + "breakdown", stage=stage, accumulation=accumulation)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("case", ["timers", "no_breakdown", "throughput", "memory_lines", "see_memory", "rank_of_lines", "log_level", "groups"])
def test_case(case: str, size: int) -> None:
    world(size).run(CASES + case)


def test_progress_after_an_overflow() -> None:
    world(2).run(CASES + "progress_after_an_overflow")


def _train(tmp_path: Path, **more: object) -> list[dict[str, float]]:
    """Trains on two ranks; what rank 0 knows of each step: samples, loss, lr, norm."""
    return world(2).run(CASES + "train_with", steps=STEPS, directory=str(tmp_path), **more)[0]


def _check(values: dict[str, list[tuple[int, float]]], expected: list[dict[str, float]]) -> None:
    """Events by name against what the program itself saw."""
    for name in ("train_loss", "lr", "grad_norm"):
        seen = values[f"Train/Samples/{name}"]
        assert [step for step, _ in seen] == [SAMPLES * (i + 1) for i in range(STEPS)], name
        assert [value for _, value in seen] == pytest.approx([row[name] for row in expected], rel=1e-6), name
    for phase in ("forward", "backward", "backward_inner", "backward_allreduce", "step", "gather_wait"):
        assert len(values[f"Train/Samples/elapsed_time_ms_{phase}"]) == STEPS
    assert len(values["Train/Samples/samples_per_second"]) == STEPS - 2, "the first two steps are left out"
    assert all(value > 1 << 20 for _, value in values["Train/Memory/rss_bytes"])
    assert values["Train/Program/own"] == [(3, 1.5)]


def test_tensorboard(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    expected = _train(tmp_path, tensorboard={"enabled": True, "output_path": str(tmp_path), "job_name": "job"})
    accumulator = reader.EventAccumulator(str(tmp_path / "job"))
    accumulator.Reload()
    events = {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}
    _check(events, expected)


def test_csv(tmp_path: Path) -> None:
    settings = {"enabled": True, "output_path": str(tmp_path), "job_name": "job"}
    expected = _train(tmp_path, csv_monitor=settings)
    names = {path.stem: path for path in (tmp_path / "job").iterdir()}
    values = {}
    for name in ["train_loss", "lr", "grad_norm", "samples_per_second"] + [
            f"elapsed_time_ms_{phase}" for phase in ("forward", "backward", "backward_inner", "backward_allreduce", "step", "gather_wait")]:
        header, *rows = list(csv.reader(names[f"Train_Samples_{name}"].open()))
        assert header == ["step", name]
        values[f"Train/Samples/{name}"] = [(int(step), float(value)) for step, value in rows]
    for key, file in (("Train/Memory/rss_bytes", "Train_Memory_rss_bytes"), ("Train/Program/own", "Train_Program_own")):
        values[key] = [(int(step), float(value)) for step, value in list(csv.reader(names[file].open()))[1:]]
    _check(values, expected)
    _train(tmp_path, csv_monitor=settings)  # goes on in the same files, with one header
    assert len(list(csv.reader(names["Train_Samples_lr"].open()))) == 1 + 2 * STEPS


def _json_values(path: Path) -> dict[str, list[tuple[int, float]]]:
    values: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines():
        event = json.loads(line)
        samples, _ = event.pop("samples"), event.pop("time")
        for name, value in event.items():
            values.setdefault(name, []).append((samples, value))
    return values


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_json_lines(tmp_path: Path, stage: int, accumulation: int) -> None:
    settings = {"json_monitor": {"enabled": True, "output_path": str(tmp_path)}}
    expected = world(2).run(CASES + "train_with", steps=STEPS, directory=str(tmp_path), stage=stage, accumulation=accumulation,
                            hydrofoil=settings)[0]
    values = _json_values(tmp_path / "DeepSpeedJobName" / "events.jsonl")
    for events in values.values():
        events[:] = [(step // accumulation if step != 3 else 3, value) for step, value in events]
    _check(values, expected)


def test_wandb_offline(tmp_path: Path) -> None:
    """In a process of its own: W&B has one run a process and ends it at exit."""
    pytest.importorskip("wandb")
    group = World(2, env={"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"})
    try:
        expected = group.run(CASES + "train_with", steps=STEPS, directory=str(tmp_path), wandb={"enabled": True, "project": "p", "group": "g"})[0]
    finally:
        group.close()
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 1, "rank 0 alone has a run"
    values = _wandb_values(files[0])
    assert values["Train/Program/own"] == [(STEPS * SAMPLES, 1.5)]
    values["Train/Program/own"] = [(3, 1.5)]
    _check(values, expected)


def _wandb_values(path: Path) -> dict[str, list[tuple[int, float]]]:
    """From W&B's own records in its file."""
    from wandb.proto import wandb_internal_pb2

    values: dict[str, list[tuple[int, float]]] = {}
    for data in _log_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") != "history":
            continue
        row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for name, value in row.items():
            if name.startswith("Train/"):
                values.setdefault(name, []).append((row["_step"], value))
    return values


def _log_records(data: bytes) -> Iterator[bytes]:
    """LevelDB's log format behind a header of 7 bytes: blocks of 32 KiB, pieces of checksum (4), length (2), kind (1)."""
    at, record = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4:at + 6], "little"), data[at + 6]
        record += data[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def test_comet_offline(tmp_path: Path) -> None:
    pytest.importorskip("comet_ml")
    group = World(2, env={"COMET_OFFLINE_DIRECTORY": str(tmp_path), "COMET_API_KEY": "none", "COMET_LOGGING_CONSOLE": "ERROR"})
    try:
        expected = group.run(CASES + "train_with", steps=STEPS, directory=str(tmp_path),
                             comet={"enabled": True, "online": False, "project": "p", "samples_log_interval": 2 * SAMPLES})[0]
    finally:
        group.close()
    values = _comet_values(tmp_path)
    name = "Train/Samples/train_loss"
    assert [step for step, _ in values[name]] == [SAMPLES, 3 * SAMPLES], "every second step: samples_log_interval"
    assert [value for _, value in values[name]] == pytest.approx([expected[0]["train_loss"], expected[2]["train_loss"]], rel=1e-6)


def _comet_values(directory: Path) -> dict[str, list[tuple[int, float]]]:
    import zipfile

    values: dict[str, list[tuple[int, float]]] = {}
    (archive,) = directory.glob("*.zip")
    with zipfile.ZipFile(archive) as files:
        for line in files.read("messages.json").decode().splitlines():
            metric = json.loads(line).get("payload", {}).get("metric")
            if metric and metric["metricName"].startswith("Train/"):
                values.setdefault(metric["metricName"], []).append((metric["step"], float(metric["metricValue"])))
    return values


@pytest.mark.parametrize("case", ["missing_package", "unwritable", "failing_library", "standing_still", "arguments", "not_finite", "after_destroy"])
def test_monitor(case: str, tmp_path: Path) -> None:
    world(2).run(CASES + case, directory=str(tmp_path))


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise ValueError('x')"])
def test_events_are_written_when_a_script_just_ends(tmp_path: Path, end: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + end + "\n")
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=_alone(), capture_output=True, text=True, timeout=120)
    assert [step for step, _ in _json_values(tmp_path / "job" / "events.jsonl")["Train/Samples/lr"]] == [2, 4, 6]


def test_the_page_runs(tmp_path: Path) -> None:
    """Both blocks of docs/monitoring.md: the config, and the program."""
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    settings = json.loads(page.split("```json\n")[1].split("```")[0])
    world(2).run(CASES + "runs_with", settings={**settings, "tensorboard": {**settings["tensorboard"], "output_path": str(tmp_path)}})
    (tmp_path / "page.py").write_text(page.split("```python\n")[1].split("```")[0])
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, env=_alone(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ms forward" in done.stdout and "samples/s" in done.stdout and "after training | memory" in done.stderr, done.stdout + done.stderr
    assert (tmp_path / "runs" / "csv" / "Train_Samples_mine.csv").exists()
    assert len(_json_values(tmp_path / "runs" / "json" / "events.jsonl")["Train/Samples/lr"]) == 5


def _alone() -> dict[str, str]:
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {**{k: v for k, v in os.environ.items() if k not in ranks}, "PYTHONPATH": os.pathsep.join(sys.path)}


SCRIPT = """
import torch, hydrofoil
config = {"train_batch_size": 2, "optimizer": {"type": "SGD", "params": {"lr": 0.1}},
          "hydrofoil": {"json_monitor": {"enabled": True, "job_name": "job"}}}
engine = hydrofoil.initialize(model=torch.nn.Linear(3, 1), config=config)[0]
for step in range(3):
    engine.backward(engine(torch.ones(2, 3)).mean())
    engine.step()
"""
