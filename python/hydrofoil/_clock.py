"""Wall-clock time of the phases of a step, for `wall_clock_breakdown`."""

from __future__ import annotations

import contextlib
import time
from typing import Iterator

from hydrofoil import utils

__all__ = ["PhaseClock"]


class PhaseClock:
    """Adds up forward, backward and step; report() logs their milliseconds a step and begins again."""

    def __init__(self, enabled: bool, logs: bool) -> None:
        self._enabled = enabled
        self._logs = logs
        self._seconds: dict[str, float] = {}
        self._steps = 0

    @contextlib.contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def phase(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._measured(name) if self._enabled else contextlib.nullcontext()

    def report(self, step: int, every: int) -> None:
        """At the end of an optimizer step; logs at every `every`-th."""
        self._steps += 1
        if not self._enabled or step % every:
            return
        if self._logs:
            times = " | ".join(f"{name}: {1000 * seconds / self._steps:.2f}" for name, seconds in self._seconds.items())
            utils.logger.info("step %d time (ms) | %s", step, times)
        self._seconds.clear()
        self._steps = 0
