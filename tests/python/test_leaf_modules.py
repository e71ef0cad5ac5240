"""zero_optimization.leaf_module: modules that stay one unit, by class, name and end of a name."""

from __future__ import annotations

import pytest

from tests.support.world import world

CASES = "tests.python.leaf_cases:"


@pytest.mark.parametrize("stage", [2, 3])
def test_config_marks_units(stage: int) -> None:
    world(2).run(CASES + "config_marks_units", stage=stage)


def test_config_warns_of_what_matches_nothing() -> None:
    world(2).run(CASES + "config_warns_of_what_matches_nothing")


def test_plan_marks_units() -> None:
    world(1).run(CASES + "plan_marks_units")
