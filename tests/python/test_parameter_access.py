"""GatheredParameters, released parameters, writes from outside, destroy, and full values of what is sharded."""

from __future__ import annotations

import pytest

from tests.support.world import world

CASES = "tests.python.access_cases:"
VALUES = "tests.python.value_cases:"
STAGES = [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_gathered_reads(stage: int, dtype: str) -> None:
    world(2).run(CASES + "gathered_reads", stage=stage, dtype=dtype)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_gathered_writes(stage: int, dtype: str) -> None:
    for modifier in (0, 1):
        world(2).run(CASES + "gathered_writes", stage=stage, dtype=dtype, modifier=modifier)


@pytest.mark.parametrize("size", [1, 3])
def test_gathered_at_other_world_sizes(size: int) -> None:
    world(size).run(CASES + "gathered_reads", stage=3, dtype="bf16")
    world(size).run(CASES + "gathered_writes", stage=3, dtype="bf16", modifier=size - 1)


@pytest.mark.parametrize("size", [1, 2])
def test_gathered_errors(size: int) -> None:
    world(size).run(CASES + "gathered_errors")


@pytest.mark.parametrize("stage", STAGES)
def test_gathered_inside_forward(stage: int) -> None:
    world(2).run(CASES + "gathered_inside_forward", stage=stage)


def test_released_access_is_a_named_error() -> None:
    world(2).run(CASES + "released_access_is_a_named_error")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_load_state_dict(stage: int, dtype: str) -> None:
    world(2).run(CASES + "load_state_dict", stage=stage, dtype=dtype)


@pytest.mark.parametrize("stage", STAGES)
def test_data_writes(stage: int) -> None:
    world(2).run(CASES + "data_writes", stage=stage)


@pytest.mark.parametrize("stage", STAGES)
def test_lost_parameters(stage: int) -> None:
    world(2).run(CASES + "lost_parameters", stage=stage)


@pytest.mark.parametrize(("stage", "gather", "size"), [(0, False, 2), (1, False, 2), (2, False, 2), (2, True, 2), (3, False, 2), (3, True, 2), (3, False, 1),
                                                       (3, True, 3)])
def test_destroy(stage: int, gather: bool, size: int) -> None:
    world(size).run(CASES + "destroy", stage=stage, gather=gather)


@pytest.mark.parametrize("stage", STAGES)
def test_full_values(stage: int) -> None:
    world(2).run(VALUES + "full_values", stage=stage)


@pytest.mark.parametrize("client", [False, True], ids=["config", "client"])
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "Adagrad", "Lion"])
def test_state_names(optimizer: str, client: bool) -> None:
    if client and optimizer == "Lion":
        pytest.skip("torch.optim has no Lion")
    world(2).run(VALUES + "state_names", optimizer=optimizer, client=client)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_setters(stage: int, dtype: str) -> None:
    world(2).run(VALUES + "setters", stage=stage, dtype=dtype)


@pytest.mark.parametrize(("stage", "size"), [(0, 2), (2, 2), (3, 2), (3, 1)])
def test_masters_after_freezing(stage: int, size: int) -> None:
    world(size).run(VALUES + "masters_after_freezing", stage=stage)
