"""The config's `flops_profiler`: one training step of an engine under the FLOPs profiler."""

from __future__ import annotations

from typing import Any, Callable, Optional

from hydrofoil.profiling.flops_profiler import FlopsProfiler

__all__ = ["StepProfile"]


class StepProfile:
    """Profiles the first micro step of the optimizer step that follows `profile_step` ones, and prints it after that step."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._options = engine.options.flops_profiler
        self._profiler: Optional[FlopsProfiler] = None

    def forward(self, run: Callable[[], Any]) -> Any:
        engine = self._engine
        if self._profiler is not None:
            self._profiler.stop_profile()  # of a program that calls loss.backward() itself
            return run()
        if engine.global_steps != self._options.profile_step or not engine.module.training:
            return run()
        self._profiler = FlopsProfiler(engine.module, ds_engine=engine)
        self._profiler.start_profile()
        try:
            result = run()
        except BaseException:
            self._profiler.stop_profile()
            raise
        if engine.optimizer is None:
            self._finish()
        return result

    def backward(self, run: Callable[[], Any]) -> Any:
        profiler = self._profiler
        if profiler is None or not profiler.running:
            return run()
        try:
            return profiler.run_backward(run)
        finally:
            profiler.stop_profile()  # later micro steps equal this one

    def end_step(self, seconds: float) -> None:
        if self._profiler is None or not self._profiler.started:
            return
        self._profiler.step_seconds = seconds
        self._finish()

    def _finish(self) -> None:
        options = self._options
        self._profiler.stop_profile()
        self._profiler.print_model_profile(self._engine.global_steps, options.module_depth, options.top_modules, options.detailed,
                                           options.output_file)
        self._profiler.end_profile()
