"""All monitors of a config behind one queue and one thread of rank 0."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
from typing import Any, Callable, Optional, Sequence

import torch

from hydrofoil import _C, utils
from hydrofoil.monitor.writers import CometMonitor, Event, JsonMonitor, Monitor, TensorBoardMonitor, WandbMonitor, csvMonitor

__all__ = ["MonitorMaster"]

MAX_QUEUED = 10_000  # calls of write_events that wait for a library that stands still
CLOSE_SECONDS = 60.0
GATHER_SECONDS = 0.1  # the longest that events wait for those of the next steps
FLUSH_SECONDS = 2.0  # the longest that what was written stays in a buffer


class MonitorMaster:
    """`write_events` hands events to a thread that writes them to every monitor that the config enables; rank 0 only.

    Opened monitors: `tb_monitor`, `csv_monitor`, `wandb_monitor`, `comet_monitor`, `json_monitor`; None where not enabled, and on
    other ranks. What a library throws is warned about once a monitor, and training goes on.
    """

    def __init__(self, options: _C.EngineOptions, rank: int) -> None:
        self._kinds: list[tuple[str, type[Monitor], Any]] = [
            ("tb_monitor", TensorBoardMonitor, options.tensorboard),
            ("csv_monitor", csvMonitor, options.csv_monitor),
            ("wandb_monitor", WandbMonitor, options.wandb),
            ("comet_monitor", CometMonitor, options.comet),
            ("json_monitor", JsonMonitor, options.json_monitor),
        ]
        self.enabled = any(section.enabled for _, _, section in self._kinds)
        self._writes = rank == 0 and self.enabled
        self.tb_monitor: Optional[TensorBoardMonitor] = None
        self.csv_monitor: Optional[csvMonitor] = None
        self.wandb_monitor: Optional[WandbMonitor] = None
        self.comet_monitor: Optional[CometMonitor] = None
        self.json_monitor: Optional[JsonMonitor] = None
        self._open: list[Monitor] = []
        self._failed: set[str] = set()
        self._dropped = 0
        self._queue: queue.Queue[Any] = queue.Queue(MAX_QUEUED)
        self._hurry = threading.Event()  # somebody waits for the thread
        self._thread: Optional[threading.Thread] = None

    def open(self) -> str:
        """Opens the monitors on rank 0. Returns what the user has to mend before training, or ""."""
        if not self._writes:
            return ""
        for _, kind, section in self._kinds:
            problem = kind.missing() if section.enabled else None
            if problem:
                return problem
        for name, kind, section in self._kinds:
            if not section.enabled:
                continue
            try:
                monitor = kind(section)
            except Exception as error:  # noqa: BLE001  (of a library: the service may be away, the job is not)
                if isinstance(error, OSError) and kind.writes_folder:
                    self.close()
                    return f"{kind.section}: cannot write there: {error}"
                self._warn(kind.section, error)
                continue
            setattr(self, name, monitor)
            self._open.append(monitor)
        atexit.register(self.close)  # later than the libraries' own exit hooks, and so run before them
        self._thread = threading.Thread(target=self._serve, name="hydrofoil-monitor", daemon=True)
        self._thread.start()
        return ""

    def write_events(self, event_list: Sequence[tuple[str, Any, int]]) -> None:
        """Events (name, value, step): values are numbers or tensors of one element, step is the number of samples."""
        if self._thread is None:
            return
        self._put([_checked(event) for event in event_list])

    def flush(self, timeout: Optional[float] = None) -> bool:
        """Waits until everything is written that was handed over before; False where `timeout` seconds were too few."""
        if self._thread is None:
            return True
        done = threading.Event()
        try:
            self._queue.put(done, timeout=timeout)
        except queue.Full:
            return False
        self._hurry.set()
        return done.wait(timeout)

    def close(self) -> None:
        """Writes what is left and closes the monitors; nothing can be written afterwards. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.close)
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=CLOSE_SECONDS)
            self._hurry.set()
            thread.join(CLOSE_SECONDS)
            if thread.is_alive():
                utils.logger.warning("monitors: not all events were written within %g s", CLOSE_SECONDS)
                return
        for monitor in self._open:
            self._try(monitor.section, monitor.close)
        self._open.clear()

    def write_step(self, event_list: list[tuple[str, Any, int]], device: torch.device) -> None:
        """The engine's own events, with the memory of the process and device, which the thread reads."""
        if self._thread is not None:
            self._put((event_list, device))

    def _put(self, item: Any) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1:
                utils.logger.warning("monitors: %d calls wait for a monitor that stands still: newer events are dropped", MAX_QUEUED)

    def _serve(self) -> None:
        flush_at: Optional[float] = None  # None: nothing is in a buffer
        while True:
            try:
                items = [self._queue.get(timeout=None if flush_at is None else max(0.0, flush_at - time.monotonic()))]
            except queue.Empty:
                self._flush_all()
                flush_at = None
                continue
            # The steps of a while are written together: this thread and the one that trains share the interpreter.
            self._hurry.wait(GATHER_SECONDS)
            self._hurry.clear()
            with contextlib.suppress(queue.Empty):
                while True:
                    items.append(self._queue.get_nowait())
            waiting = [item for item in items if isinstance(item, threading.Event)]
            written = [item for item in items if item is not None and not isinstance(item, threading.Event)]
            if written:
                self._try("monitors", self._write, written)
                flush_at = flush_at or time.monotonic() + FLUSH_SECONDS
            if waiting:
                self._flush_all()
                flush_at = None
            for done in waiting:
                done.set()
            if None in items:
                return

    def _write(self, items: list[Any]) -> None:
        steps = [item for item in items if isinstance(item, tuple)]
        if steps:
            events, device = steps[-1]
            items.append(_memory_events(events[0][2], device))
        numbers: list[Event] = [(name, float(value), step) for item in items for name, value, step in (item[0] if isinstance(item, tuple) else item)]
        for monitor in self._open:
            self._try(monitor.section, monitor.write_events, numbers, False)

    def _flush_all(self) -> None:
        for monitor in self._open:
            self._try(monitor.section, monitor.flush)

    def _try(self, section: str, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001  (a monitor never ends the training)
            self._warn(section, error)

    def _warn(self, section: str, error: Exception) -> None:
        if section not in self._failed:
            self._failed.add(section)
            utils.logger.warning("%s: %s: %s; training goes on, and this monitor is not warned about again", section, type(error).__name__,
                                 error)


def _checked(event: Any) -> tuple[str, Any, int]:
    if len(event) != 3 or not isinstance(event[0], str):
        raise ValueError(f"write_events: got {event!r}, expected (name, value, step)")
    name, value, step = event
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"write_events: {name}: got a tensor of shape {tuple(value.shape)}, expected one element")
        value = value.detach().clone()  # the program may write it before the thread reads it
    else:
        value = float(value)
    return name, value, int(step)


def _memory_events(step: int, device: torch.device) -> list[tuple[str, float, int]]:
    process = _C.resident_memory()
    events = [("Train/Memory/rss_bytes", process.rss_bytes, step), ("Train/Memory/peak_rss_bytes", process.peak_rss_bytes, step)]
    if device.type == "cuda":
        events += [("Train/Memory/device_bytes", torch.cuda.memory_allocated(device), step),
                   ("Train/Memory/peak_device_bytes", torch.cuda.max_memory_allocated(device), step)]
    return events
