"""Ranks that run different units get an error that names rank and unit, soon, in place of a hang."""

from __future__ import annotations

import re

import pytest

from tests.support.world import world

MODULE = "tests.python.runtime_order_cases"


@pytest.mark.parametrize("backend", ["shm", "c10d"])
@pytest.mark.parametrize("on_rank", [0, 1])
def test_a_unit_that_one_rank_runs_alone(backend: str, on_rank: int) -> None:
    messages = world(2).run(f"{MODULE}:unit_on_one_rank", backend=backend, on_rank=on_rank)
    for message in messages:
        assert re.search(rf"rank {on_rank}[^;]*experts\.3", message), message
        assert re.search(rf"rank {1 - on_rank}", message), message
        assert f"rank {on_rank} ran experts.3" in message and f"rank {1 - on_rank} ran experts.1" in message, message


@pytest.mark.parametrize("backend", ["shm", "c10d"])
def test_a_unit_more_at_the_end(backend: str) -> None:
    messages = world(2).run(f"{MODULE}:extra_unit_at_the_end", backend=backend)
    assert all("blocks.1" in message and "rank 0" in message for message in messages), messages


@pytest.mark.parametrize("backend", ["shm", "c10d"])
def test_another_order_on_one_rank(backend: str) -> None:
    for message in world(2).run(f"{MODULE}:other_order_on_one_rank", backend=backend):
        # What each ran, not what each had under way: prefetching is one unit ahead on one rank.
        assert "Unit 2 since the last step is the first that differs: rank 0 ran blocks.0; rank 1 ran blocks.1" in message, message


@pytest.mark.parametrize(("backend", "stage"), [("shm", 0), ("shm", 3), ("c10d", 3)])
def test_a_rank_that_does_not_arrive_is_named(backend: str, stage: int) -> None:
    message = world(2).run(f"{MODULE}:one_rank_raises", backend=backend, stage=stage)[0]
    assert "rank 1" in message, message


@pytest.mark.parametrize("backend", ["shm", "c10d"])
def test_a_rank_that_does_not_step_is_named(backend: str) -> None:
    message = world(2).run(f"{MODULE}:only_one_rank_steps", backend=backend)[0]
    assert "rank 1" in message, message


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_backward_more_on_one_rank(stage: int) -> None:
    for message in world(2).run(f"{MODULE}:one_backward_more", stage=stage):
        assert "rank 0" in message and "rank 1" in message and "gradient summary" in message, message


def test_three_ranks_all_learn_of_it() -> None:
    for message in world(3).run(f"{MODULE}:unit_on_one_rank", backend="shm", on_rank=2):
        assert re.search(r"rank 2[^;]*experts\.3", message), message
