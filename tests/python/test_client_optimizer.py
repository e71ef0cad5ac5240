"""Optimizers of the user's: what their groups list, what is theirs while the engine lives, and that they go on after it."""

from __future__ import annotations

import pytest

from tests.support.world import world

CASES = "tests.python.client_cases:"


@pytest.mark.parametrize("size", [1, 2])
def test_clipping_by_hand_at_stage_0(size: int) -> None:
    world(size).run(CASES + "clipped_by_hand")


@pytest.mark.parametrize(("stage", "size"), [(0, 1), (0, 2), (2, 2), (3, 2)])
def test_groups_list_the_models_parameters(stage: int, size: int) -> None:
    world(size).run(CASES + "groups_list_the_models_parameters", stage=stage)


@pytest.mark.parametrize(("stage", "size", "name", "gather"), [
    (0, 1, "adamw", False), (0, 2, "adamw", False), (0, 2, "momentum", True), (0, 3, "adagrad", False), (1, 1, "adamw", False),
    (3, 1, "adamw", True), (1, 2, "sgd", False), (3, 2, "sgd", True),
])
def test_training_goes_on_without_the_engine(stage: int, size: int, name: str, gather: bool) -> None:
    world(size).run(CASES + "goes_on_plainly", stage=stage, name=name, gather=gather)


@pytest.mark.parametrize("case", ["untouched_state_stays", "states_of_slices_are_dropped", "states_get_the_dtype_of_the_parameters",
                                  "calls_around_the_engine"])
def test_case(case: str) -> None:
    world(2).run(CASES + case)
