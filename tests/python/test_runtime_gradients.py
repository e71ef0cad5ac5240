"""Gradients under ZeRO 0-3 equal those of plain PyTorch, whatever users do to them."""

from __future__ import annotations

import pytest

from tests.python.runtime_gradient_cases import CASES
from tests.support.world import world

MODULE = "tests.python.runtime_gradient_cases"
# World size and stage: every stage on two ranks, the ends elsewhere.
PLACES = [(1, 0), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3), (3, 1), (3, 3)]


@pytest.mark.parametrize(("size", "stage"), PLACES)
@pytest.mark.parametrize("name", CASES)
def test_equals_plain_pytorch(name: str, size: int, stage: int) -> None:
    if stage not in CASES[name].stages:
        pytest.skip("the case speaks of other stages")
    world(size).run(f"{MODULE}:run", name=name, stage=stage)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_reduced_gradient_is_guarded(stage: int) -> None:
    world(2).run(f"{MODULE}:sharded_gradient", stage=stage)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_dtype_that_cannot_be_reduced_is_an_error_with_the_name(stage: int) -> None:
    world(2).run(f"{MODULE}:unsupported_dtype", stage=stage)
