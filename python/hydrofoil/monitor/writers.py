"""What events are written to. Each class has DeepSpeed's name and `write_events([(name, value, step), ...])`, which writes at once."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import time
from typing import Any, Optional, Sequence

from hydrofoil import _C

__all__ = ["CometMonitor", "Event", "JsonMonitor", "Monitor", "TensorBoardMonitor", "WandbMonitor", "csvMonitor"]

Event = tuple[str, float, int]  # name, value, samples trained on so far


class Monitor:
    """One library or file format. `modules`: what has to be importable; `package`: the pip package that brings it.

    `writes_folder`: it writes into a folder that the config names, so that an OSError at the start is the config's fault.
    """

    section = ""
    writes_folder = False
    package = ""
    modules: Sequence[str] = ()

    @classmethod
    def missing(cls) -> Optional[str]:
        """What is not installed, as a sentence; None where everything is."""
        for module in cls.modules:
            if importlib.util.find_spec(module) is None:
                return f"{cls.section}.enabled is true, but the package {cls.package} is not installed: pip install {cls.package}"
        return None

    def write_events(self, event_list: Sequence[Event], flush: bool = True) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _directory(options: _C.FileMonitorOptions) -> str:
    directory = os.path.join(options.output_path, options.job_name)
    os.makedirs(directory or ".", exist_ok=True)
    return directory


class TensorBoardMonitor(Monitor):
    section, package, modules = "tensorboard", "tensorboard", ("tensorboard",)
    writes_folder = True

    def __init__(self, options: _C.FileMonitorOptions) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import SummaryWriter

        self._summary = Summary
        self.summary_writer = SummaryWriter(log_dir=_directory(options))

    def write_events(self, event_list: Sequence[Event], flush: bool = True) -> None:
        for step, values in _by_step(event_list).items():  # one record a step costs a quarter of add_scalar's one a value
            summary = self._summary(value=[self._summary.Value(tag=name, simple_value=value) for name, value in values.items()])
            self.summary_writer._get_file_writer().add_summary(summary, step)
        if flush:
            self.flush()

    def flush(self) -> None:
        self.summary_writer.flush()

    def close(self) -> None:
        self.summary_writer.close()


class csvMonitor(Monitor):  # noqa: N801  (DeepSpeed's name)
    """A file `<name>.csv` an event name ('/' and ' ' become '_') with the columns step and the last part of the name."""

    section = "csv_monitor"
    writes_folder = True

    def __init__(self, options: _C.FileMonitorOptions) -> None:
        self.log_dir = _directory(options)
        self._files: dict[str, Any] = {}

    def _file(self, name: str) -> Any:
        if name not in self._files:
            path = os.path.join(self.log_dir, name.replace("/", "_").replace(" ", "_") + ".csv")
            self._files[name] = open(path, "a", newline="", encoding="utf-8")  # a run that goes on appends to its own file
            if self._files[name].tell() == 0:
                csv.writer(self._files[name]).writerow(["step", name.rsplit("/", 1)[-1]])
        return self._files[name]

    def write_events(self, event_list: Sequence[Event], flush: bool = True) -> None:
        for name, value, step in event_list:
            csv.writer(self._file(name)).writerow([step, value])
        if flush:
            self.flush()

    def flush(self) -> None:
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()


class JsonMonitor(Monitor):
    """`events.jsonl`: one JSON object a step, {"time": Unix seconds, "samples": ..., <name>: <value>, ...}; null: not a finite number."""

    section = "hydrofoil.json_monitor"
    writes_folder = True

    def __init__(self, options: _C.FileMonitorOptions) -> None:
        self.path = os.path.join(_directory(options), "events.jsonl")
        self._file = open(self.path, "a", encoding="utf-8")

    def write_events(self, event_list: Sequence[Event], flush: bool = True) -> None:
        for step, values in _by_step(event_list).items():
            line = {"time": round(time.time(), 3), "samples": step}
            line.update((name, value if math.isfinite(value) else None) for name, value in values.items())
            self._file.write(json.dumps(line) + "\n")
        if flush:
            self.flush()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class WandbMonitor(Monitor):
    """A run of W&B, or the one that the program has started. W&B ends it with the process."""

    section, package, modules = "wandb", "wandb", ("wandb",)

    def __init__(self, options: _C.WandbOptions) -> None:
        import wandb

        self.run = wandb.run or wandb.init(project=options.project, group=options.group, entity=options.team)

    def write_events(self, event_list: Sequence[Event], flush: bool = True) -> None:
        for step, values in _by_step(event_list).items():
            self.run.log(values, step=step)


class CometMonitor(Monitor):
    section, package, modules = "comet", "comet_ml", ("comet_ml",)

    def __init__(self, options: _C.CometOptions) -> None:
        import comet_ml

        given = {name: getattr(options, name) for name in ("api_key", "project", "workspace", "experiment_key", "mode", "online")}
        self.experiment = comet_ml.start(**{name: value for name, value in given.items() if value is not None})
        if options.experiment_name is not None:
            self.experiment.set_name(options.experiment_name)
        self._interval = options.samples_log_interval
        self._last: dict[str, int] = {}

    def write_events(self, event_list: Sequence[Event], flush: bool = True) -> None:
        for name, value, step in event_list:
            if name in self._last and self._last[name] <= step < self._last[name] + self._interval:
                continue
            self._last[name] = step
            self.experiment.log_metric(name, value, step=step)

    def close(self) -> None:
        self.experiment.end()


def _by_step(event_list: Sequence[Event]) -> dict[int, dict[str, float]]:
    steps: dict[int, dict[str, float]] = {}
    for name, value, step in event_list:
        steps.setdefault(step, {})[name] = value
    return steps
