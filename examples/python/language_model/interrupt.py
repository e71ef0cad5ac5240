"""Ctrl-C as a flag, so that a job ends between two steps and not in the middle of a collective."""

from __future__ import annotations

import signal

EXIT_CODE = 128 + signal.SIGINT


class StopFlag:
    """Set by SIGINT. The ranks agree on it once a step, so that none is left waiting for the others."""

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> None:
        """From here on SIGINT only sets the flag, however often it comes (terminal and launcher both send it)."""
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self.requested = True
