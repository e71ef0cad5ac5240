"""Every config optimizer and client optimizers against plain torch, with parameter groups, at stages 0 to 3 and world 2."""

from __future__ import annotations

from typing import Any

import pytest

from tests.parity import compare, reference
from tests.parity.optimizer_cases import CLIENT, CONFIG, WHOLE
from tests.parity.settings import Case
from tests.support.world import world

STEPS, LOW_STEPS = 6, 30
TARGET = "tests.parity.optimizer_cases:train_stages"
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2, "fp16": 5e-3}
PARAMETER_TOLERANCE = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 2e-3}


def check(of_rank: list[list[dict[str, Any]]], history: reference.History, dtype: str) -> None:
    for stage in range(len(of_rank[0])):
        results = [stages[stage] for stages in of_rank]
        compare.same_on_all_ranks(results)
        compare.losses_close(results, history, LOSS_TOLERANCE[dtype])
        distance = compare.relative(results[0]["parameters"], history.parameters)
        assert distance < PARAMETER_TOLERANCE[dtype], f"stage {stage}: {distance:.3g}, {compare.worst(results[0]['parameters'], history.parameters)}"


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CONFIG)
def test_config_optimizer_equals_torch(name: str, dtype: str) -> None:
    section, make = CONFIG[name]
    case = Case(model="odd", dtype=dtype, accumulation=2, clipping=0.5, groups=True, unit_min_bytes=1024)
    of_rank = world(2).run(TARGET, case=case, steps=STEPS, config={"optimizer": section})
    check(of_rank, compare.expected(case, 2, STEPS, make_optimizer=make), dtype)


@pytest.mark.parametrize("name", ["adamw", "adam_l2", "sgd_momentum", "sgd_nesterov", "adagrad", "lion"])
def test_bf16_states_train_as_fp32_ones(name: str) -> None:
    section, make = CONFIG[name]
    case = Case(model="odd", dtype="bf16", accumulation=2, clipping=0.5, groups=True, unit_min_bytes=1024, bf16_states=True)
    of_rank = world(2).run(TARGET, case=case, steps=LOW_STEPS, config={"optimizer": section})
    history = compare.expected(case, 2, LOW_STEPS, make_optimizer=make)
    for stage in range(4):
        results = [stages[stage] for stages in of_rank]
        compare.same_on_all_ranks(results)
        compare.losses_close(results, history, 2 * LOSS_TOLERANCE["bf16"])
        assert compare.relative(results[0]["parameters"], history.parameters) < 5 * PARAMETER_TOLERANCE["bf16"], f"stage {stage}"


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", CLIENT)
def test_client_optimizer_equals_torch(name: str, dtype: str) -> None:
    case = Case(model="tied", dtype=dtype, accumulation=2, clipping=0.5, groups=True, unit_min_bytes=1024)
    of_rank = world(2).run(TARGET, case=case, steps=STEPS, client=name)
    check(of_rank, compare.expected(case, 2, STEPS, make_optimizer=CLIENT[name]), dtype)


@pytest.mark.parametrize(("world_size", "stages"), [(1, (0, 1, 2, 3)), (2, (0,))])
@pytest.mark.parametrize("name", WHOLE)
def test_client_optimizer_of_whole_tensors(name: str, world_size: int, stages: tuple[int, ...]) -> None:
    case = Case(model="tied", accumulation=2, clipping=0.5, unit_min_bytes=1024)
    of_rank = world(world_size).run(TARGET, case=case, steps=STEPS, client=name, stages=stages)
    check(of_rank, compare.expected(case, world_size, STEPS, make_optimizer=WHOLE[name]), "fp32")


@pytest.mark.parametrize("world_size", [1, 3])
def test_client_optimizer_at_other_world_sizes(world_size: int) -> None:
    case = Case(model="odd", clipping=0.5, groups=True, unit_min_bytes=0)  # ranks with empty slices
    of_rank = world(world_size).run(TARGET, case=case, steps=STEPS, client="users")
    check(of_rank, compare.expected(case, world_size, STEPS, make_optimizer=CLIENT["users"]), "fp32")
