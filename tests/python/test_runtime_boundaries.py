"""Forward and backward in every order that users write: ZeRO 0-3 equals plain PyTorch, or says clearly why not."""

from __future__ import annotations

import pytest

from tests.python.runtime_boundary_cases import CASES
from tests.support.world import world

MODULE = "tests.python.runtime_boundary_cases"
GRADIENTS = "tests.python.runtime_gradient_cases"
PLACES = [(1, 0), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)]


@pytest.mark.parametrize(("size", "stage"), PLACES)
@pytest.mark.parametrize("name", CASES)
def test_equals_plain_pytorch(name: str, size: int, stage: int) -> None:
    if stage not in CASES[name].stages:
        pytest.skip("the case speaks of other stages")
    world(size).run(f"{MODULE}:run", name=name, stage=stage)


@pytest.mark.parametrize("name", ["plain_backward", "checkpoint_twice_reentrant", "checkpoint_span", "other_order", "cross_reader"])
def test_gloo_too(name: str) -> None:
    world(2).run(f"{MODULE}:run", name=name, stage=3, backend="c10d")


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize(("module", "name"), [
    (MODULE, "several_backwards_accumulated"), (MODULE, "checkpoint_twice_reentrant"), (MODULE, "other_order"),
    (MODULE, "cross_reader"), (MODULE, "inference_between"), (GRADIENTS, "tied_accumulated"), (GRADIENTS, "odd"),
    (GRADIENTS, "unused_on_one_rank"), (GRADIENTS, "gradient_penalty"),
])
def test_overlap_and_unit_size_do_not_change_bits(module: str, name: str, stage: int) -> None:
    world(2).run(f"{MODULE}:same_bits", module=module, name=name, stage=stage)


@pytest.mark.parametrize("stage", [2, 3])
def test_no_sync_is_an_error_where_gradients_are_sharded(stage: int) -> None:
    world(2).run(f"{MODULE}:no_sync_error", stage=stage)


@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize("function", ["step_without_backward", "non_boundary_step", "version_counters"])
def test_steps(function: str, stage: int) -> None:
    world(2).run(f"{MODULE}:{function}", stage=stage)


def test_access_to_a_released_parameter_names_it_and_the_way_out() -> None:
    world(2).run(f"{MODULE}:released_access", stage=3)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_wrapped_model_is_copied_and_pickled_as_an_ordinary_one(stage: int) -> None:
    world(2).run(f"{MODULE}:boundary_is_transparent", stage=stage)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_one_rank_may_evaluate_alone(stage: int) -> None:
    world(2).run(f"{MODULE}:evaluation_on_one_rank", stage=stage)
