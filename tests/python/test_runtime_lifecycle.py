"""Several engines in one process, and what is left when one is destroyed."""

from __future__ import annotations

import pytest

from tests.support.world import world

MODULE = "tests.python.runtime_order_cases"


@pytest.mark.parametrize(("size", "stages"), [(1, [0, 3]), (2, [0, 1, 2, 3]), (2, [3, 3]), (3, [3, 2])])
def test_engines_take_turns(size: int, stages: list[int]) -> None:
    world(size).run(f"{MODULE}:alternating", stages=stages)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_adversaries(stage: int) -> None:
    world(2).run(f"{MODULE}:adversaries", stage=stage)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_fifty_engines_leave_nothing_behind(stage: int) -> None:
    world(2).run(f"{MODULE}:built_and_destroyed", stage=stage, times=50)


@pytest.mark.parametrize(("size", "stages", "backend"), [(1, [3, 3], "shm"), (2, [3, 3, 3, 3], "shm"), (2, [3, 3, 3, 3], "c10d"), (3, [3, 1, 3, 0], "shm")])
def test_a_model_under_one_engine_after_another(size: int, stages: list[int], backend: str) -> None:
    world(size).run(f"{MODULE}:reinitialised", stages=stages, backend=backend)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_use_after_destroy(stage: int) -> None:
    world(2).run(f"{MODULE}:used_after_destroy", stage=stage)


@pytest.mark.parametrize("stage", [0, 2])
def test_an_engine_that_is_forgotten(stage: int) -> None:
    world(2).run(f"{MODULE}:dropped_without_destroy", stage=stage)


def test_a_view_that_outlives_the_engine_is_guarded() -> None:
    world(2).run(f"{MODULE}:view_outlives_the_engine")
