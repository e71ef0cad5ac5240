"""What is said after an optimizer step: progress and breakdown lines, and the events of the monitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import torch

from hydrofoil import _C, utils

if TYPE_CHECKING:
    from hydrofoil.engine import Engine

__all__ = ["StepLog"]


class StepLog:
    """Of one engine; every rank calls it alike, rank 0 says something."""

    def __init__(self, engine: Engine) -> None:
        self._report = engine.core.report
        self._speaks = engine.global_rank == 0
        self._collects_losses = self._speaks and engine.monitor.enabled
        self._loss: Optional[torch.Tensor] = None
        self._num_losses = 0

    def add_loss(self, loss: torch.Tensor) -> None:
        """The loss of a micro step. Tensors are added, so that nothing waits for an accelerator."""
        if not self._collects_losses or loss.numel() != 1:
            return
        loss = loss.detach().float().reshape(())
        self._loss = loss.clone() if self._loss is None else self._loss + loss
        self._num_losses += 1

    def after_step(self, engine: Engine, result: _C.StepResult) -> None:
        """After an optimizer step and its schedule."""
        self._report.end_step()
        if not self._speaks:
            return
        step = engine.global_steps
        if self._report.is_due(step, False):
            utils.logger.info("%s", self._progress(engine, result))
        if self._report.measures_phases and self._report.is_due(step, True):
            utils.logger.info("%s", _C.breakdown_line(step, self._report.take_mean()))
        if engine.monitor.enabled:
            engine.monitor.write_step(self._events(engine, result), engine.device)
        self._loss, self._num_losses = None, 0

    def _progress(self, engine: Engine, result: _C.StepResult) -> str:
        scaled = engine.loss_scale != 1.0 or engine.dynamic_loss_scale()
        return _C.progress_line(
            engine.global_steps, engine.skipped_steps, [float(lr) for lr in engine.get_lr()], [_numbers(m) for m in engine.get_mom()],
            result.grad_norm, engine.loss_scale if scaled else None, self._report.throughput.take_recent(), engine.world_size)

    def _events(self, engine: Engine, result: _C.StepResult) -> list[tuple[str, Any, int]]:
        values: dict[str, Any] = {"lr": float(engine.get_lr()[0]), "grad_norm": result.grad_norm}
        if self._loss is not None:
            values["train_loss"] = self._loss / self._num_losses
        if engine.fp16_enabled() or engine.dynamic_loss_scale():
            values["loss_scale"] = engine.loss_scale
        average = self._report.throughput.average
        if average is not None:
            values["samples_per_second"] = average
        if self._report.measures_phases:
            times = self._report.last_step
            values.update({
                "elapsed_time_ms_forward": times.forward_ms, "elapsed_time_ms_backward": times.backward_ms,
                "elapsed_time_ms_backward_inner": max(0.0, times.backward_ms - times.reduce_wait_ms),
                "elapsed_time_ms_backward_allreduce": times.reduce_wait_ms, "elapsed_time_ms_step": times.step_ms,
                "elapsed_time_ms_gather_wait": times.gather_wait_ms,
            })
        return [(f"Train/Samples/{name}", value, engine.global_samples) for name, value in values.items()]


def _numbers(momentum: Any) -> list[float]:
    if momentum is None:
        return []
    return [float(value) for value in momentum] if isinstance(momentum, (tuple, list)) else [float(momentum)]
