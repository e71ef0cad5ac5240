"""DeepSpeed's timers over the engine's own clocks: `engine.timers`, `engine.tput_timer`."""

from __future__ import annotations

from typing import Any, Iterable, Optional

from hydrofoil import _C, utils

__all__ = ["SynchronizedWallClockTimer", "ThroughputTimer", "Timer"]


class Timer:
    """A named stopwatch, in milliseconds."""

    def __init__(self, name: str, watch: Optional[_C.Stopwatch] = None) -> None:
        self.name_ = name
        self._watch = watch if watch is not None else _C.Stopwatch()

    @property
    def started_(self) -> bool:
        return self._watch.running

    def start(self) -> None:
        self._watch.start()

    def stop(self, reset: bool = False, record: bool = False) -> None:
        """`reset`: only this interval counts. `record` is taken and ignored: the mean is over all stops."""
        self._watch.stop(alone=reset)

    def reset(self) -> None:
        self._watch.reset()

    def elapsed(self, reset: bool = True) -> float:
        value = self._watch.elapsed_ms
        if reset:
            self._watch.reset()
        return value

    def mean(self) -> float:
        return self._watch.mean_ms


class SynchronizedWallClockTimer:
    """`timers(name)` is the timer of that name, made at its first use.

    With `wall_clock_breakdown` the engine itself runs `fwd`, `bwd`, `step`, `bwd_allreduce` (reduce wait) and `gather_wait`;
    `fwd_microstep` and the like are the same timers. The log lines do not depend on who resets them.
    """

    def __init__(self, report: Optional[_C.StepReport] = None) -> None:
        self.timers: dict[str, Timer] = {}
        if report is None:
            return
        watches = {"fwd": report.watch(_C.Phase.FORWARD), "bwd": report.watch(_C.Phase.BACKWARD), "step": report.watch(_C.Phase.STEP),
                   "bwd_allreduce": report.reduce_wait, "gather_wait": report.gather_wait}
        for name, watch in watches.items():
            self.timers[name] = Timer(name, watch)
            if name != "gather_wait":
                self.timers[f"{name}_microstep"] = self.timers[name]

    def __call__(self, name: str) -> Timer:
        if name not in self.timers:
            self.timers[name] = Timer(name)
        return self.timers[name]

    def has_timer(self, name: str) -> bool:
        return name in self.timers

    def get_timers(self) -> dict[str, Timer]:
        return self.timers

    def log(self, names: Iterable[str], normalizer: float = 1.0, reset: bool = True, memory_breakdown: Any = None,
            ranks: Optional[list[int]] = None) -> None:
        """Logs the named timers in milliseconds on the given ranks (none given: rank 0)."""
        if normalizer <= 0:
            raise ValueError(f"timers.log: normalizer: got {normalizer}, expected a number > 0")
        values = (f"{name}: {self.timers[name].elapsed(reset) / normalizer:.2f}" for name in names if name in self.timers)
        utils.log_dist("time (ms) | " + " | ".join(values), ranks=ranks or [0])

    def get_mean(self, names: Iterable[str], normalizer: float = 1.0, reset: bool = True) -> dict[str, float]:
        """Mean milliseconds of the stops of each timer."""
        means = {}
        for name in names:
            if name in self.timers:
                means[name] = self.timers[name].mean() / normalizer
                if reset:
                    self.timers[name].reset()
        return means


class ThroughputTimer:
    """Samples a second of the whole job, as the engine measures them; the first steps are left out."""

    def __init__(self, engine: Any) -> None:
        self._core = engine.core
        self._throughput = engine.core.report.throughput
        self.batch_size = engine.options.train_batch_size
        self.num_workers = engine.world_size
        self.start_step = self._throughput.warm_up_steps
        self.steps_per_output = engine.options.steps_per_print
        self.enabled = engine.options.throughput_enabled
        self.epoch_count = 0

    @property
    def global_step_count(self) -> int:
        return self._core.counters.global_steps

    @property
    def micro_step_count(self) -> int:
        return self._core.counters.micro_steps

    @property
    def total_elapsed_time(self) -> float:
        """Seconds of the counted steps."""
        return self._throughput.seconds

    def update_epoch_count(self) -> None:
        self.epoch_count += 1

    def avg_samples_per_sec(self) -> float:
        """0.0 before the first counted step."""
        return self._throughput.average or 0.0
