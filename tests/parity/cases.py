"""What a rank runs for the parity tests: train a model under the engine, return plain numbers."""

from __future__ import annotations

import traceback
from typing import Any, Callable, Optional

import numpy
import torch

import hydrofoil
from hydrofoil.utils import safe_get_full_fp32_param, safe_get_full_grad
from hydrofoil.zero import GatheredParameters
from tests.parity import models, settings


def to_numpy(tensor: torch.Tensor) -> numpy.ndarray:
    return tensor.detach().float().contiguous().numpy().copy()


def full_parameters(model: torch.nn.Module) -> dict[str, numpy.ndarray]:
    """fp32 masters of trainable parameters, the model's values of frozen ones: full, on every rank."""
    values = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            values[name] = to_numpy(safe_get_full_fp32_param(parameter))
        else:
            with GatheredParameters([parameter]):
                values[name] = to_numpy(parameter)
    return values


def model_parameters_in_model_dtype(model: torch.nn.Module) -> dict[str, numpy.ndarray]:
    with GatheredParameters(list(model.parameters())):
        return {name: to_numpy(parameter) for name, parameter in model.named_parameters()}


def readable_parameters(model: torch.nn.Module) -> list[str]:
    """Names of the parameters whose values can be read now; reading a released one raises."""
    readable = []
    for name, parameter in model.named_parameters():
        try:
            parameter.detach().sum()
        except RuntimeError as error:
            if name not in str(error):
                raise
        else:
            if parameter.numel():
                readable.append(name)
    return readable


def train(
    case: settings.Case,
    steps: int,
    *,
    config: Optional[dict[str, Any]] = None,
    make_optimizer: Optional[Callable[[list[dict[str, Any]]], Any]] = None,
    make_scheduler: Optional[Callable[[Any], Any]] = None,
    on_micro_step: Callable[[Any, int, int], None] = lambda engine, step, micro: None,
    on_step: Callable[[Any, int], None] = lambda engine, step: None,
    with_gradients: bool = True,
    seed: int = 0,
    prepare: Callable[[torch.nn.Module], None] = lambda model: None,
) -> dict[str, Any]:
    """Trains case.model under case's config (updated by `config`); `on_micro_step` runs before each backward."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = models.build(case.model, case.dtype, seed)
    prepare(model)
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    numbers = sorted({settings.group_of(n, case.groups) for n, _ in trainable})
    groups = [
        {"params": [p for n, p in trainable if settings.group_of(n, case.groups) == g], **settings.GROUP_VALUES[g]} for g in numbers
    ] if case.groups else [{"params": [p for _, p in trainable]}]
    client = make_optimizer(groups) if make_optimizer else None
    engine, optimizer, _, _ = hydrofoil.initialize(
        model=model, optimizer=client, model_parameters=groups, lr_scheduler=make_scheduler,
        config={**settings.config(case, world_size, native=client is None), **(config or {})})
    result: dict[str, Any] = {"losses": [], "norms": [], "scales": [], "lrs": [], "overflows": [], "reports": [], "gradients": {}}
    for step in range(steps):
        losses = []
        for micro in range(case.accumulation):
            loss = engine(*models.batch(step, micro, rank))
            losses.append(loss.item())
            on_micro_step(engine, step, micro)
            engine.backward(loss)
            if step == 0 and micro == case.accumulation - 1 and with_gradients:
                result["gradients"] = {n: to_numpy(safe_get_full_grad(p)) for n, p in trainable}
            engine.step()
        on_step(engine, step)
        result["losses"].append(losses)
        result["norms"].append(engine.get_global_grad_norm())
        result["scales"].append(engine.loss_scale)
        result["lrs"].append(engine.get_lr())
        result["overflows"].append(optimizer.overflow)
        result["reports"].append(engine.core.overflow_report)
    result["readable"] = readable_parameters(model)
    result["parameters"] = full_parameters(model)
    result["model"] = model_parameters_in_model_dtype(model)
    result["skipped"] = engine.skipped_steps
    result["global_steps"] = engine.global_steps
    engine.destroy()
    return result


def run_cases(cases: list[tuple[settings.Case, int]]) -> list[dict[str, Any]]:
    """Results in the order of the cases; a case that raises has its traceback under "error"."""
    results = []
    for case, steps in cases:
        try:
            results.append(train(case, steps))
        except Exception:  # noqa: BLE001  (the test of that case shows it)
            results.append({"error": traceback.format_exc()})
    return results
