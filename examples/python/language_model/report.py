"""What a run shows and writes: the progress bar or lines, two CSV files, and the memory that a process takes."""

from __future__ import annotations

import csv
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

TRAIN_COLUMNS = ("step", "tokens", "loss", "bits_per_byte", "lr", "grad_norm", "tokens_per_s", "memory_mib")
HELD_OUT_COLUMNS = ("step", "tokens", "loss", "bits_per_byte")


def bits_per_byte(nats: float) -> float:
    """A token is a byte here, so a loss in nats a token is only a change of unit away."""
    return nats / math.log(2)


def memory_mib() -> float:
    """Memory of this process in MiB: proportional set size, where a page shared by n processes counts 1/n.

    Where the kernel does not tell it, the peak resident set size.
    """
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
            for line in rollup:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass  # Not Linux, or a sandbox that hides it: the next line answers instead.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class CsvLog:
    """Rows appended to a CSV file; each is on disk before the next step starts."""

    def __init__(self, path: Path, columns: tuple[str, ...], keep_before_step: int = 0) -> None:
        """Starts the file anew, or keeps the rows of a resumed run whose step is below `keep_before_step`."""
        kept = [row for row in read_csv(path) if row["step"] < keep_before_step] if path.exists() else []
        self._file = path.open("w", newline="", encoding="ascii")
        self._writer = csv.DictWriter(self._file, columns)
        self._writer.writeheader()
        for row in kept:
            self.write(row)

    def write(self, row: Mapping[str, float]) -> None:
        self._writer.writerow(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
        )
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_csv(path: Path) -> list[dict[str, float]]:
    """Rows of a file that CsvLog wrote; `step` and `tokens` are integers."""
    with path.open(newline="", encoding="ascii") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [{**row, "step": int(row["step"]), "tokens": int(row["tokens"])} for row in rows]


def terminal_columns() -> int | None:
    """Width of the terminal behind standard output, None where it goes to a file or pipe.

    A launcher that pipes its ranks' output to a terminal says so in HYDROFOIL_TERMINAL.
    """
    behind_pipe = os.environ.get("HYDROFOIL_TERMINAL", "")
    if behind_pipe.isdigit() and int(behind_pipe) > 0:
        return int(behind_pipe)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class Progress:
    """The state of the run on standard output: a bar on a terminal, a line every `interval` steps elsewhere."""

    def __init__(self, first_step: int, num_steps: int, interval: int, visible: bool) -> None:
        self._first_step, self._num_steps, self._interval, self._visible = first_step, num_steps, interval, visible
        self._started = time.perf_counter()
        self._bar: tqdm | None = None
        columns = terminal_columns()
        if visible and columns is not None:
            self._bar = tqdm(
                total=num_steps,
                initial=first_step,
                file=sys.stdout,
                ncols=columns - 1,
                smoothing=0.02,
                bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix} [{elapsed}, {remaining} left]",
            )

    def say(self, text: str) -> None:
        """Prints above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif self._visible:
            print(text, flush=True)

    def step(self, row: Mapping[str, float]) -> None:
        """Shows the row of a step that is done; `row["step"]` counts from 1."""
        if not self._visible:
            return
        facts = (
            f"loss {row['loss']:.3f}",
            f"{row['bits_per_byte']:.2f} bits/byte",
            f"{row['tokens_per_s']:,.0f} tokens/s",
            f"{row['memory_mib']:,.0f} MiB a rank",
        )
        if self._bar is not None:
            self._bar.set_postfix_str(" · ".join(facts), refresh=False)
            self._bar.update()
        elif row["step"] % self._interval == 0 or row["step"] == self._num_steps:
            count, left = f"step {row['step']:>5}/{self._num_steps}", f"{self._time_left(row['step'])} left"
            print("  ".join((count, *facts, left)), flush=True)

    def _time_left(self, step: float) -> str:
        seconds = (time.perf_counter() - self._started) / (step - self._first_step) * (self._num_steps - step)
        return tqdm.format_interval(seconds)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
