"""Rank side of the precision tests: gradients that are not finite, injected on one rank in one micro step."""

from __future__ import annotations

from typing import Any, Optional

import torch

import hydrofoil
from hydrofoil.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from tests.parity import cases, models, settings

PARAMETER = "blocks.1.up.weight"
Injections = dict[tuple[int, int, int], float]  # (step, micro step of it, rank) -> value


def exponential(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def full_state(engine: Any) -> dict[str, bytes]:
    """Masters and optimizer states, as bytes."""
    state = {}
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        state[name] = cases.to_numpy(safe_get_full_fp32_param(parameter)).tobytes()
        for key in ("exp_avg", "exp_avg_sq"):
            state[f"{name}.{key}"] = cases.to_numpy(safe_get_full_optimizer_state(parameter, key)).tobytes()
    return state


def train(case: settings.Case, steps: int, injections: Injections, config: Optional[dict[str, Any]] = None) -> dict[str, Any]:
    """As cases.train, with "changed": whether each step changed masters or states."""
    rank = torch.distributed.get_rank()
    handles: list[Any] = []
    states: list[dict[str, bytes]] = []

    def inject(engine: Any, step: int, micro: int) -> None:
        while handles:
            handles.pop().remove()
        value = injections.get((step, micro, rank))
        if value is not None:
            parameter = dict(engine.module.named_parameters())[PARAMETER]
            handles.append(parameter.register_hook(lambda gradient: _with_value(gradient, value)))

    # States exist from the first step that is applied on; no injection at step 0.
    result = cases.train(case, steps, config=config, make_scheduler=exponential, on_micro_step=inject,
                         on_step=lambda engine, step: states.append(full_state(engine)))
    result["changed"] = [True] + [a != b for a, b in zip(states, states[1:])]
    return result


def _with_value(gradient: torch.Tensor, value: float) -> torch.Tensor:
    gradient = gradient.clone()
    gradient.view(-1)[gradient.numel() // 2] = value
    return gradient


def train_stages(case: settings.Case, steps: int, injections: Injections, config: Optional[dict[str, Any]] = None) -> list[dict[str, Any]]:
    """One result a stage."""
    import dataclasses

    return [train(dataclasses.replace(case, stage=stage), steps, injections, config) for stage in (0, 1, 2, 3)]


def overflow_at_minimum(stage: int) -> str:
    """The message of the step that overflows at the minimum loss scale."""
    case = settings.Case(dtype="fp16", stage=stage)
    try:
        train(case, 2, {(1, 0, 1): float("inf")}, {"fp16": {"enabled": True, "initial_scale_power": 4, "min_loss_scale": 16, "hysteresis": 1}})
    except RuntimeError as error:
        return str(error)
    return ""


def dropped_gradient(stage: int) -> tuple[bool, str]:
    """A gradient that is not finite, and that the user drops before the next micro step, is no overflow (stages 0 and 1)."""
    case = settings.Case(stage=stage, accumulation=2)
    model = models.build("plain")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    engine, _, _, _ = hydrofoil.initialize(model=model, config=settings.config(case, size))
    parameter = dict(model.named_parameters())[PARAMETER]
    handle = parameter.register_hook(lambda gradient: _with_value(gradient, float("nan")))
    engine.backward(engine(*models.batch(0, 0, rank)))
    handle.remove()
    engine.step()
    parameter.grad = None
    engine.backward(engine(*models.batch(0, 1, rank)))
    engine.step()
    outcome = engine.was_step_applied(), engine.core.overflow_report
    engine.destroy()
    return outcome
