"""How gradients are combined: autocast, prescaling, sums, communication and accumulation dtypes."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from tests.parity import compare, reference
from tests.parity.settings import Case
from tests.support.world import world

STEPS = 5
TARGET = "tests.parity.optimizer_cases:train_stages"


@functools.lru_cache
def expected(case: Case, world_size: int, average: bool = True, autocast: torch.dtype | None = None) -> reference.History:
    return compare.expected(case, world_size, STEPS, average=average, autocast=autocast)


def check(case: Case, world_size: int, history: reference.History, config: dict[str, Any], stages: tuple[int, ...] = (0, 1, 2, 3), *,
          gradients: float = 1e-6, parameters: float = 1e-5, losses: float = 1e-4) -> None:
    of_rank = world(world_size).run(TARGET, case=case, steps=STEPS, config=config, stages=stages)
    for number, stage in enumerate(stages):
        results = [of_stage[number] for of_stage in of_rank]
        compare.same_on_all_ranks(results)
        compare.losses_close(results, history, losses)
        got = results[0]
        assert compare.relative(got["gradients"], history.gradients) <= gradients, f"gradients, stage {stage}"
        assert compare.relative(got["parameters"], history.parameters) <= parameters, f"parameters, stage {stage}"
        assert got["norms"][0] == pytest.approx(history.norms[0], rel=10 * gradients), f"norm, stage {stage}"


CASE = Case(model="tied", accumulation=3, clipping=0.5, unit_min_bytes=1024)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("factor", [1.0, 2.0, 5.0])
def test_prescaling_changes_no_result(world_size: int, factor: float) -> None:
    check(CASE, world_size, expected(CASE, world_size), {"prescale_gradients": True, "gradient_predivide_factor": factor})


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_sum_divides_by_nothing(world_size: int) -> None:
    check(CASE, world_size, expected(CASE, world_size, average=False), {"gradient_allreduce_op": "sum"}, stages=(0, 1, 2))


@pytest.mark.parametrize("backend", ["shm", "c10d"])
def test_bf16_communication_is_close(backend: str) -> None:
    config = {"communication_data_type": "bf16", "hydrofoil": {"backend": backend, "unit_min_bytes": 0}}
    history = expected(CASE, 2)
    check(CASE, 2, history, config, gradients=1e-2, parameters=2e-2, losses=2e-2)
    with pytest.raises(AssertionError, match="gradients"):  # it really travels in bf16
        check(CASE, 2, history, config, parameters=2e-2, losses=2e-2)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_16_bit_gradients_travel_in_fp32_unless_told_otherwise(dtype: str) -> None:
    case = Case(model="plain", dtype=dtype, accumulation=3)
    check(case, 3, expected(case, 3), {}, parameters=1e-3, losses=1e-2)


def test_bf16_accumulation_is_close() -> None:
    case = Case(model="odd", dtype="bf16", accumulation=3, clipping=0.5)
    history = expected(case, 2)
    config = {"data_types": {"grad_accum_dtype": "bf16"}}
    check(case, 2, history, config, gradients=1e-2, parameters=2e-2, losses=2e-2)
    with pytest.raises(AssertionError, match="gradients"):
        check(case, 2, history, config, parameters=2e-2, losses=2e-2)


def test_torch_autocast_equals_torch() -> None:
    config = {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
    check(CASE, 2, expected(CASE, 2, autocast=torch.bfloat16), config, parameters=1e-3, losses=1e-2)
