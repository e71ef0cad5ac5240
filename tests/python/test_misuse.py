"""What would silently train something else is an error that names the thing and the way out."""

from __future__ import annotations

import pytest

from tests.python.misuse_cases import DIFFERENCES
from tests.support.world import world

CASES = "tests.python.misuse_cases:"


@pytest.mark.parametrize("grad_mode", [True, False], ids=["train", "no_grad"])
def test_a_parameter_written_in_forward(grad_mode: bool) -> None:
    world(2).run(CASES + "written_in_forward", grad_mode=grad_mode)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_parameter_written_in_forward_is_kept_below_stage_3(stage: int) -> None:
    world(2).run(CASES + "written_in_forward_without_sharding", stage=stage)


def test_a_parameter_written_in_recomputation() -> None:
    world(2).run(CASES + "written_in_recomputation")


@pytest.mark.parametrize("what", DIFFERENCES)
def test_ranks_that_differ(what: str) -> None:
    world(2).run(CASES + "ranks_differ", what=what)


def test_three_ranks_that_differ() -> None:
    world(3).run(CASES + "ranks_differ", what="lr")


def test_reports_may_differ() -> None:
    world(2).run(CASES + "only_reports_differ")


@pytest.mark.parametrize(("size", "stage"), [(1, 0), (2, 0), (2, 1), (2, 2), (2, 3)])
def test_a_loss_that_was_not_scaled(size: int, stage: int) -> None:
    world(size).run(CASES + "unscaled_loss", stage=stage)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_write_between_forward_and_backward(stage: int) -> None:
    world(2).run(CASES + "written_between_forward_and_backward", stage=stage)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_autocast_in_fp16_scales_its_loss(stage: int) -> None:
    world(2).run(CASES + "autocast_in_fp16", stage=stage)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_loss_through_another_engine(stage: int) -> None:
    world(2).run(CASES + "losses_through_another_engine", stage=stage)


@pytest.mark.parametrize("stage", [0, 3])
def test_unfreezing_what_no_group_lists(stage: int) -> None:
    world(2).run(CASES + "unfrozen_without_a_group", stage=stage)


def test_clients_that_do_not_fit() -> None:
    world(2).run(CASES + "unfit_clients")


def test_models_that_do_not_fit() -> None:
    world(2).run(CASES + "unfit_models")


def test_parameters_listed_twice() -> None:
    world(2).run(CASES + "listed_twice")


def test_arguments_are_named() -> None:
    world(2).run(CASES + "arguments_are_named")
