"""Rank side of the long run."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

import hydrofoil
from hydrofoil.zero import GatheredParameters
from tests.parity import models, settings


def digest(model: torch.nn.Module) -> str:
    """Of all full parameters as this rank sees them."""
    parameters = list(model.parameters())
    with GatheredParameters(parameters), torch.no_grad():
        values = torch.cat([parameter.detach().float().reshape(-1) for parameter in parameters])
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


def train(case: settings.Case, steps: int) -> dict[str, Any]:
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = models.build(case.model, case.dtype)
    engine, _, _, _ = hydrofoil.initialize(model=model, config=settings.config(case, size))
    losses, digests = [], []
    for step in range(steps):
        loss = engine(*models.batch(step, 0, rank))
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
        digests.append(digest(model))
    engine.destroy()
    return {"losses": losses, "digests": digests}
