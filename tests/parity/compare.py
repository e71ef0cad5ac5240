"""Assertions on what the ranks return against the plain reference."""

from __future__ import annotations

from typing import Any

import numpy
import torch

from tests.parity import models, reference, settings


def relative(got: dict[str, Any], expected: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm, all tensors together. Names and shapes must be the same."""
    assert set(got) == set(expected), f"names differ: {sorted(set(got) ^ set(expected))}"
    difference = norm = 0.0
    for name, value in expected.items():
        assert got[name].shape == tuple(value.shape), f"{name}: shape {got[name].shape}, expected {tuple(value.shape)}"
        want = value.double().numpy()
        difference += float(numpy.square(got[name].astype(numpy.float64) - want).sum())
        norm += float(numpy.square(want).sum())
    return (difference / norm) ** 0.5 if norm else difference**0.5


def worst(got: dict[str, Any], expected: dict[str, torch.Tensor]) -> str:
    """The tensor that differs most, for a message."""
    distances = {name: float(numpy.abs(got[name] - value.numpy()).max(initial=0.0)) for name, value in expected.items()}
    name = max(distances, key=distances.__getitem__)
    return f"{name} differs by {distances[name]:.3g}"


def loss_scale(dtype: str) -> reference.LossScale:
    if dtype != "fp16":
        return reference.LossScale()
    return reference.LossScale(scale=2.0**settings.FP16_SCALE_POWER, dynamic=True, window=settings.FP16_WINDOW)


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=settings.LR, betas=settings.BETAS, eps=settings.EPS, weight_decay=settings.WEIGHT_DECAY,
                             foreach=False)


def expected(case: settings.Case, world_size: int, steps: int, **options: Any) -> reference.History:
    """The plain run of a case; stage, units, backend and overlap change nothing in it."""
    torch.set_num_threads(1)  # as the ranks: 16-bit sums depend on it
    values = dict(make_optimizer=adamw, loss_scale=loss_scale(case.dtype))
    values.update(options)
    if case.groups:
        make = values["make_optimizer"]
        values["group_of"] = lambda name: settings.group_of(name, True)
        values["make_optimizer"] = lambda groups: make([{**g, **settings.GROUP_VALUES[i]} for i, g in enumerate(groups)])
    return reference.train(models.build(case.model, case.dtype), models.batch, dtype=case.dtype, world_size=world_size,
                           accumulation=case.accumulation, clipping=case.clipping, steps=steps, **values)


def same_on_all_ranks(results: list[dict[str, Any]]) -> None:
    for rank, result in enumerate(results[1:], 1):
        assert result["norms"] == results[0]["norms"], f"global norm of rank {rank} is not rank 0's"
        for key in ("parameters", "model"):
            for name, value in results[0][key].items():
                assert value.tobytes() == result[key][name].tobytes(), f"{key}: {name} of rank {rank} is not rank 0's"


def losses_close(results: list[dict[str, Any]], history: reference.History, tolerance: float) -> None:
    for step, of_step in enumerate(history.losses):
        for rank, of_rank in enumerate(of_step):
            for micro, loss in enumerate(of_rank):
                got = results[rank]["losses"][step][micro]
                assert abs(got - loss) <= tolerance, f"step {step + 1}, rank {rank}, micro step {micro}: loss {got}, expected {loss}"
