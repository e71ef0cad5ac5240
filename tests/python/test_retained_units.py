"""Stage 3: what memory is left for stays gathered until the step. The bits are the same."""

from __future__ import annotations

import pytest

from tests.support.world import world

MODULE = "tests.python.retained_cases"
BYTES = 4 * (5 * 12 + 12 + 3 * (24 + 12 * 17 + 17 + 17 * 12 + 12) + 12 * 3 + 3)  # of the network's parameters


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("keep", [None, 400, 1 << 30])
def test_bits_are_the_same(keep: int | None, accumulation: int) -> None:
    for kept in world(2).run(f"{MODULE}:same_bits", keep=keep, accumulation=accumulation):
        if keep == 400:
            assert 0 < kept < BYTES / 4
        else:
            assert kept >= BYTES


def test_shared_parameters_are_not_gathered_at_all() -> None:
    assert world(2).run(f"{MODULE}:shared_parameters_keep_nothing") == [0, 0]


def test_the_leanest_rank_decides() -> None:
    for plenty, none in world(2).run(f"{MODULE}:memory_runs_out"):
        assert plenty >= BYTES and none == 0


def test_a_write_into_what_stays_is_an_error() -> None:
    for message in world(2).run(f"{MODULE}:a_write_is_an_error"):
        assert "head.bias" in message and "GatheredParameters" in message, message


def test_units_stay_after_a_new_layout() -> None:
    for kept in world(2).run(f"{MODULE}:requires_grad_changes"):
        assert all(bytes_kept >= BYTES for bytes_kept in kept), kept


def test_a_wrong_limit_on_one_rank_is_everyones_error() -> None:
    other, wrong = world(2).run(f"{MODULE}:a_wrong_limit_on_one_rank")
    assert "24 parsecs" in wrong and "HYDROFOIL_MEMORY_LIMIT" in wrong, wrong
    assert "another rank" in other, other
