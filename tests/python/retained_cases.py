"""Units that stay gathered until the step. Run on the ranks by test_retained_units.py."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

import hydrofoil
from tests.python.runtime_models import Network
from tests.support.loops import config, engine_loop, full_values, inputs

ALL = 1 << 30


def network_loss(model: Any, rank: int, step: int) -> torch.Tensor:
    return model(inputs(rank, step, 4, 5)).pow(2).mean()


def _settings(keep: int | None, accumulation: int, backend: str = "c10d") -> dict[str, Any]:
    section = {} if keep is None else {"keep_gathered_bytes": keep}
    return config(3, accumulation, backend=backend, **section)


def _train(loop: Any, steps: int) -> list[float]:
    """Losses; between micro steps an evaluation, a look at a parameter, and a write into one by one rank."""
    losses = []
    for step in range(steps):
        for micro in range(loop.accumulation):
            loss = network_loss(loop.model, loop.rank, step * loop.accumulation + micro)
            loop.engine.backward(loss)
            losses.append(loss.item())
            with torch.no_grad():
                losses.append(loop.model(inputs(loop.rank, step, 4, 5)).sum().item())
            loop.step()
        with hydrofoil.zero.GatheredParameters([loop.module.head.bias], modifier_rank=1), torch.no_grad():
            loop.module.head.bias.add_(0.125 if loop.rank == 1 else 7.0)
    return losses


def same_bits(keep: int | None, accumulation: int) -> float:
    """Bytes gathered between forward and backward, of an engine that trains as one that keeps nothing."""
    results = []
    for bytes_kept in (0, keep):
        torch.manual_seed(3)
        with engine_loop(Network(), _settings(bytes_kept, accumulation)) as loop:
            losses = _train(loop, 5)
            loss = network_loss(loop.model, loop.rank, 99)
            kept = loop.engine.core.memory_report().slot_bytes
            loop.engine.backward(loss)
            results.append((losses, full_values(loop.engine), kept))
    (expected, values, nothing), (losses, kept_values, kept) = results
    assert nothing == 0
    assert losses == expected
    for name, value in values.items():
        assert torch.equal(kept_values[name], value), name
    return kept


def shared_parameters_keep_nothing() -> int:
    with engine_loop(Network(), _settings(None, 1, "shm")) as loop:
        _train(loop, 2)
        network_loss(loop.model, loop.rank, 9)
        return int(loop.engine.core.memory_report().slot_bytes)


def memory_runs_out() -> tuple[int, int]:
    """Bytes that stay gathered, with room for all units, and after the room is gone."""
    os.environ["HYDROFOIL_MEMORY_LIMIT"] = "1TiB"
    kept = []
    try:
        with engine_loop(Network(), _settings(None, 1)) as loop:
            _train(loop, 1)
            network_loss(loop.model, loop.rank, 9)
            kept.append(int(loop.engine.core.memory_report().slot_bytes))
            loop.engine.zero_grad()
        os.environ["HYDROFOIL_MEMORY_LIMIT"] = "1MiB" if loop.rank == 1 else "1TiB"  # a process has more already
        with engine_loop(Network(), _settings(None, 1)) as loop:
            _train(loop, 1)
            network_loss(loop.model, loop.rank, 9)
            kept.append(int(loop.engine.core.memory_report().slot_bytes))
            loop.engine.zero_grad()
    finally:
        del os.environ["HYDROFOIL_MEMORY_LIMIT"]
    return kept[0], kept[1]


def a_write_is_an_error() -> str:
    """In place, between forward and backward, where the gathered unit of each rank would differ."""
    with engine_loop(Network(), _settings(ALL, 1)) as loop:
        loss = network_loss(loop.model, loop.rank, 0)
        with torch.no_grad():
            loop.module.head.bias.add_(1.0)
        with pytest.raises(ValueError) as caught:
            loop.engine.backward(loss)
            loop.step()
        return str(caught.value)


def requires_grad_changes() -> list[int]:
    """Bytes that stay gathered before and after units are laid out anew."""
    kept = []
    with engine_loop(Network(), _settings(ALL, 1)) as loop:
        for step, trainable in enumerate((True, False, True)):
            loop.module.blocks[1].requires_grad_(trainable)
            loss = network_loss(loop.model, loop.rank, step)
            kept.append(int(loop.engine.core.memory_report().slot_bytes))
            loop.engine.backward(loss)
            loop.step()
            assert loop.engine.core.memory_report().slot_bytes == 0
    return kept


def a_wrong_limit_on_one_rank() -> str:
    """The others must not wait for it until the deadline."""
    if torch.distributed.get_rank() == 1:
        os.environ["HYDROFOIL_MEMORY_LIMIT"] = "24 parsecs"
    try:
        with pytest.raises(ValueError) as caught:
            hydrofoil.initialize(model=Network(), config=_settings(None, 1))
        return str(caught.value)
    finally:
        os.environ.pop("HYDROFOIL_MEMORY_LIMIT", None)
