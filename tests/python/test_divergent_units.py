"""`zero_optimization.divergent_units: join`: units that only some ranks run. Stages 0 to 2 need no joining; the setting changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.world import world

MODULE = "tests.python.divergent_cases"


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_random_branches_equal_plain_pytorch(stage: int, ranks: int) -> None:
    world(ranks).run(f"{MODULE}:random_branches", stage=stage, steps=60)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_thousand_steps_of_random_branches(stage: int, ranks: int) -> None:
    world(ranks).run(f"{MODULE}:random_branches", timeout=600.0, stage=stage, steps=1000)


@pytest.mark.parametrize("own", [{"overlap": False}, {"unit_min_bytes": 1 << 12}, {"backend": "c10d"}], ids=str)
def test_random_branches_with(own: dict) -> None:
    world(2).run(f"{MODULE}:random_branches", stage=3, steps=30, **own)


def test_random_branches_accumulated() -> None:
    world(2).run(f"{MODULE}:random_branches", stage=3, steps=20, accumulation=2)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_mixture_of_experts(stage: int) -> None:
    world(2).run(f"{MODULE}:mixture", stage=stage)


def test_other_calls_between_the_steps() -> None:
    world(2).run(f"{MODULE}:other_calls_between")


def test_a_collective_of_the_user_after_forward() -> None:
    world(2).run(f"{MODULE}:collective_of_the_user")


def test_an_exception_in_forward() -> None:
    world(2).run(f"{MODULE}:exception_in_forward", stage=3)


def test_an_exception_in_backward_is_an_error_everywhere() -> None:
    for message in world(2).run(f"{MODULE}:exception_in_backward"):
        assert "rank 0" in message and "rank 1" in message, message


def test_a_rank_that_leaves_out_a_step() -> None:
    for message in world(2).run(f"{MODULE}:one_rank_steps_less"):
        assert "rank 0 waits for" in message and "rank 1 waits for" in message or "end of backward" in message, message


def test_a_rank_that_leaves() -> None:
    assert "rank 0 has left the group" in world(2).run(f"{MODULE}:one_rank_leaves")[1]


def test_checkpoints(tmp_path: Path) -> None:
    world(2).run(f"{MODULE}:checkpoint_files", directory=str(tmp_path))
