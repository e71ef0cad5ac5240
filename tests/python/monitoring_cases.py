"""Cases of test_monitoring.py, run on every rank."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import torch

import hydrofoil
from hydrofoil import _C, utils
from hydrofoil.monitor import master, writers
from tests.python.access_cases import Log
from tests.support import models
from tests.support.models import plain, raises, rank, world_size


def _engine(stage: int = 1, accumulation: int = 1, **more: Any) -> Any:
    return hydrofoil.initialize(model=plain(), config=models.config(stage, accumulation=accumulation, **more))[0]


# -- log lines and timers ----------------------------------------------------------------------------------------------
def breakdown(stage: int, accumulation: int) -> None:
    engine = _engine(stage, accumulation, wall_clock_breakdown=True, steps_per_print=3)
    with Log() as log:
        models.train(engine, 3)
    assert log.text.count("time (ms)") == (1 if rank() == 0 else 0), log.text
    times = engine.core.report.last_step
    assert times.forward_ms > 0 and times.backward_ms > 0 and times.step_ms > 0
    assert 0 < times.reduce_wait_ms < times.backward_ms + times.step_ms, "the norm at least is exchanged"
    assert 0 < times.gather_wait_ms < times.forward_ms + times.backward_ms + times.step_ms, "the step's parameters at least are"
    engine.destroy()


def timers() -> None:
    engine = _engine(wall_clock_breakdown=True)
    assert engine.get_wall_clock_timers() is engine.timers and engine.wall_clock_breakdown() is True
    models.train(engine, 2)
    times = engine.core.report.last_step
    for name, ms in (("fwd", times.forward_ms), ("bwd", times.backward_ms), ("step_microstep", times.step_ms)):
        timer = engine.timers(name)
        assert timer.elapsed(reset=False) >= ms > 0, name
        assert abs(timer.mean() - timer.elapsed(reset=False) / 2) < 1e-9, name
        assert timer.elapsed() > 0 and timer.elapsed() == 0.0, name
    with Log() as log:
        models.train(engine, 1)  # the lines do not depend on resets
    assert ("forward: 0.00" not in log.text and "forward:" in log.text) is (rank() == 0), log.text
    own = engine.timers("own")
    own.start()
    assert own.started_
    raises(ValueError, own.start, "runs already")
    own.stop()
    raises(ValueError, own.stop, "does not run")
    assert engine.timers.has_timer("own") and not engine.timers.has_timer("other") and "own" in engine.timers.get_timers()
    with Log() as log:
        engine.timers.log(["own", "fwd", "other"], normalizer=2.0, ranks=[world_size() - 1])
    assert ("time (ms) | own: " in log.text) is (rank() == world_size() - 1), log.text
    raises(ValueError, lambda: engine.timers.log(["own"], normalizer=0), "normalizer")
    assert engine.timers.get_mean(["own", "other"]) == {"own": 0.0}, "log() has reset it"
    engine.destroy()


def no_breakdown() -> None:
    engine = _engine(3)
    models.train(engine, 2)
    times = engine.core.report.last_step
    assert engine.core.report.gather_wait.elapsed_ms == engine.core.report.reduce_wait.elapsed_ms == 0.0
    assert times.forward_ms == times.backward_ms == times.step_ms == 0.0
    assert engine.timers("fwd").elapsed() == 0.0
    engine.destroy()


def throughput() -> None:
    engine = _engine(accumulation=2, steps_per_print=1)
    assert engine.tput_timer.avg_samples_per_sec() == 0.0
    with Log() as log:
        models.train(engine, 2)
    assert "samples/s" not in log.text, "the first two steps are left out"
    with Log() as log:
        models.train(engine, 2, first=2)
        with torch.no_grad():
            engine.eval()
            models.loss_of(engine, models.batch(0))  # no part of a step
            engine.train()
    assert log.text.count("samples/s=") == (2 if rank() == 0 else 0), log.text
    assert ("a rank)" in log.text) is (rank() == 0 and world_size() > 1), log.text
    timer = engine.tput_timer
    assert timer.global_step_count == 4 and timer.micro_step_count == 8 and timer.start_step == 2
    counted = 2 * engine.train_batch_size()
    assert abs(timer.avg_samples_per_sec() - counted / timer.total_elapsed_time) < 1e-6 * timer.avg_samples_per_sec()
    engine.destroy()
    off = _engine(steps_per_print=1, timers={"throughput": {"enabled": False}})
    with Log() as log:
        models.train(off, 4)
    assert "samples/s" not in log.text and off.tput_timer.avg_samples_per_sec() == 0.0
    off.destroy()


def memory_lines() -> None:
    engine = _engine(3, accumulation=2, memory_breakdown=True, steps_per_print=2)
    assert engine.memory_breakdown() is True
    with Log() as log:
        models.train(engine, 3)
    if rank() != 0:
        assert log.text == "", log.text
    else:
        lines = [line for line in log.text.splitlines() if "memory after" in line]
        assert [line.split("memory ")[1].split(" (MiB)")[0] for line in lines] == [f"after {phase} of step 2"
                                                                                 for phase in ("forward", "backward", "step")], log.text
        for part in ("host: parameters", "gradients", "masters", "optimizer states", "RSS", "PSS"):
            assert all(part in line for line in lines), lines
    engine.destroy()


def see_memory() -> None:
    with Log() as log:
        utils.see_memory_usage("quiet")
    assert log.text == ""
    with Log() as log:
        utils.see_memory_usage("here", force=True)
    assert ("here | memory (GiB): RSS " in log.text and "peak RSS" in log.text) is (rank() == 0), log.text


def rank_of_lines() -> None:
    last = world_size() - 1
    with Log() as log:
        utils.logger.info("information")
        utils.logger.warning("warning")
        logging.getLogger("hydrofoil.child").info("child")
        utils.log_dist("of the last", ranks=[last])
        utils.log_dist("of all", ranks=[-1])
        utils.log_dist("of the first")
    assert ("information" in log.text) is ("child" in log.text) is ("of the first" in log.text) is (rank() == 0), log.text
    assert f"[hydrofoil rank {rank()}] warning: warning" in log.text, log.text
    assert ("of the last" in log.text) is (rank() == last), log.text
    assert f"[hydrofoil rank {rank()}] info: of all" in log.text, log.text


def log_level() -> None:
    """The config's log_level, and the logger's own, hold for the lines of Python and of C++."""
    for level, speaks in (("WARNING", False), ("info", True)):
        with Log() as log:
            engine = _engine(log_level=level, steps_per_print=1)
            models.train(engine, 1)
        assert engine.options.log_level.name == level.upper() and engine.log_level() == level
        for line in ("] info: plan: ", "] info: step=1"):
            assert (line in log.text) is (speaks and rank() == 0), (level, line, log.text)
        engine.destroy()
    for set_level in (lambda: utils.set_log_level_from_string("error"), lambda: utils.logger.setLevel(logging.CRITICAL)):
        set_level()
        with Log() as log:
            _engine(steps_per_print=1).destroy()
        assert log.text == "", log.text
    utils.logger.setLevel("INFO")
    raises(ValueError, lambda: _engine(log_level="loud"), "log_level")


def groups() -> None:
    """The progress line of an optimizer without betas, with several groups."""
    model = plain()
    parameters = list(model.parameters())
    config = models.config(0, steps_per_print=1)
    config["optimizer"] = {"type": "SGD", "params": {"lr": 0.01, "momentum": 0.5}}
    engine = hydrofoil.initialize(model=model, model_parameters=[{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:]}],
                                  config=config)[0]
    with Log() as log:
        models.train(engine, 1)
    assert ("step=1, skipped=0, lr=[0.1, 0.01], mom=[0.5, 0.5]" in log.text) is (rank() == 0), log.text
    engine.destroy()


def progress_after_an_overflow() -> None:
    engine = _engine(2, dtype="fp16", fp16={"initial_scale_power": 4, "hysteresis": 1}, steps_per_print=1)
    with Log() as log:
        loss = models.loss_of(engine, models.batch(0))
        engine.backward(loss * float("inf") if rank() == 1 else loss)
        engine.step()
    assert ("step=1, skipped=1, " in log.text and "loss_scale=8" in log.text) is (rank() == 0), log.text
    engine.destroy()


# -- monitors ----------------------------------------------------------------------------------------------------------
def train_with(steps: int, directory: str, stage: int = 1, accumulation: int = 1, **more: Any) -> list[dict[str, float]]:
    own = dict(more.pop("hydrofoil", {}), unit_min_bytes=0)
    schedule = {"type": "WarmupLR", "params": {"warmup_num_steps": 10, "warmup_max_lr": 0.01}}
    engine = _engine(stage, accumulation, wall_clock_breakdown=True, scheduler=schedule, hydrofoil=own, **more)
    assert engine.monitor.enabled
    rows = []
    for step in range(steps):
        losses = []
        for micro in range(accumulation):
            loss = models.loss_of(engine, models.batch(100 * step + micro))
            losses.append(loss.item())
            engine.backward(loss)
            engine.step()
        rows.append({"train_loss": sum(losses) / len(losses), "lr": engine.get_lr()[0], "grad_norm": engine.get_global_grad_norm()})
        if step == 0 and "wandb" not in more and "comet" not in more:
            engine.monitor.write_events([("Train/Program/own", torch.tensor(1.5), 3)])
    if "wandb" in more:  # W&B drops what lies before its last step
        rows_of_own = [("Train/Program/own", 1.5, engine.global_samples)]
        engine.monitor.write_events(rows_of_own)
    assert engine.monitor.flush(60)
    engine.destroy()
    return rows


def runs_with(settings: dict[str, Any]) -> None:
    engine = _engine(**settings)
    models.train(engine, 10)
    engine.destroy()


def missing_package(directory: str) -> None:
    """Rank 0 alone lacks the package: every rank gets the error, and can go on."""
    find = writers.importlib.util.find_spec
    if rank() == 0:
        writers.importlib.util.find_spec = lambda name: None if name == "tensorboard" else find(name)
    try:
        raises(Exception, lambda: _engine(tensorboard={"enabled": True, "output_path": directory}),
               "tensorboard.enabled is true, but the package tensorboard is not installed: pip install tensorboard")
    finally:
        writers.importlib.util.find_spec = find
    models.train(_engine(), 1)


def unwritable(directory: str) -> None:
    file = Path(directory) / "file"
    if rank() == 0:
        file.write_text("")
    hydrofoil.comm.barrier()
    raises(Exception, lambda: _engine(csv_monitor={"enabled": True, "output_path": str(file)}), "csv_monitor: cannot write there", "file")
    models.train(_engine(), 1)


def failing_library(directory: str) -> None:
    """One warning, training goes on, and so do the other monitors."""
    settings = {"enabled": True, "output_path": directory}

    def fail(self: Any, event_list: Any, flush: bool = True) -> None:
        raise ConnectionError("the service is away")

    write = writers.csvMonitor.write_events
    writers.csvMonitor.write_events = fail
    try:
        with Log() as log:
            engine = _engine(csv_monitor=settings, hydrofoil={"json_monitor": settings})
            models.train(engine, 3)
            engine.monitor.flush()
            engine.destroy()
    finally:
        writers.csvMonitor.write_events = write
    assert log.text.count("csv_monitor: ConnectionError: the service is away") == (1 if rank() == 0 else 0), log.text
    hydrofoil.comm.barrier()
    assert len((Path(directory) / "DeepSpeedJobName" / "events.jsonl").read_text().splitlines()) == 3

    start = writers.WandbMonitor.__init__
    writers.WandbMonitor.__init__ = lambda self, options: fail(self, [])
    try:
        with Log() as log:
            engine = _engine(wandb={"enabled": True})
            models.train(engine, 1)
            engine.destroy()
    finally:
        writers.WandbMonitor.__init__ = start
    assert log.text.count("wandb: ConnectionError: the service is away") == (1 if rank() == 0 else 0), log.text


def standing_still(directory: str) -> None:
    """A library that never comes back: the queue is bounded, what is dropped is said once, training goes on."""
    go_on = threading.Event()
    write = writers.JsonMonitor.write_events
    writers.JsonMonitor.write_events = lambda self, event_list, flush=True: (go_on.wait(), write(self, event_list, flush))[1]
    master.MAX_QUEUED, queued = 3, master.MAX_QUEUED
    try:
        with Log() as log:
            engine = _engine(hydrofoil={"json_monitor": {"enabled": True, "output_path": directory}})
            models.train(engine, 8)
            assert engine.monitor.flush(0.01) is (rank() != 0)
            go_on.set()
            engine.destroy()
    finally:
        writers.JsonMonitor.write_events = write
        master.MAX_QUEUED = queued
    assert log.text.count("newer events are dropped") == (1 if rank() == 0 else 0), log.text
    hydrofoil.comm.barrier()
    # Written together while the library stood still: one, and two queues.
    assert 3 <= len((Path(directory) / "DeepSpeedJobName" / "events.jsonl").read_text().splitlines()) <= 7


def arguments(directory: str) -> None:
    engine = _engine(hydrofoil={"json_monitor": {"enabled": True, "output_path": directory}})
    if rank() == 0:
        raises(ValueError, lambda: engine.monitor.write_events([("a", 1.0)]), "(name, value, step)")
        raises(ValueError, lambda: engine.monitor.write_events([("a", torch.ones(2), 1)]), "shape (2,)")
        assert isinstance(engine.monitor.json_monitor, hydrofoil.monitor.JsonMonitor)
    else:
        assert engine.monitor.json_monitor is None
    assert engine.monitor.enabled and engine.monitor.tb_monitor is None
    value = torch.ones(())
    engine.monitor.write_events([("a", value, 1)])
    value.zero_()  # what was handed over stays
    engine.destroy()
    hydrofoil.comm.barrier()
    assert '"a": 1.0' in (Path(directory) / "DeepSpeedJobName" / "events.jsonl").read_text()
    off = _engine()
    assert not off.monitor.enabled
    off.monitor.write_events([("a", 1.0, 1)])
    off.destroy()


def not_finite(directory: str) -> None:
    engine = _engine(hydrofoil={"json_monitor": {"enabled": True, "output_path": directory}})
    engine.monitor.write_events([("a", float("nan"), 1), ("b", float("inf"), 1), ("c", 2, 1)])
    engine.destroy()
    hydrofoil.comm.barrier()
    assert '"a": null, "b": null, "c": 2.0}' in (Path(directory) / "DeepSpeedJobName" / "events.jsonl").read_text()


def after_destroy(directory: str) -> None:
    threads = threading.active_count()
    engine = _engine(hydrofoil={"json_monitor": {"enabled": True, "output_path": directory}})
    assert threading.active_count() == threads + (1 if rank() == 0 else 0)
    engine.destroy()
    assert threading.active_count() == threads
    engine.monitor.write_events([("late", 1.0, 1)])
    engine.monitor.close()
    assert engine.monitor.flush()
    hydrofoil.comm.barrier()
    assert "late" not in (Path(directory) / "DeepSpeedJobName" / "events.jsonl").read_text()
    assert _C.resident_memory().pss_bytes == 0 < _C.resident_memory().rss_bytes
