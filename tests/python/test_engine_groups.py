"""Process groups and threads of engines: made only where they are needed, and gone with the engine."""

import pytest

from tests.support.world import world


@pytest.mark.parametrize("backend", ["shm", "c10d"])
def test_engines_leave_no_threads(backend: str) -> None:
    for numbers in world(2).run("tests.python.engine_group_cases:threads_after_engines", backend=backend, count=5):
        assert numbers[-1] <= numbers[1], numbers


def test_shared_memory_needs_no_process_group() -> None:
    assert world(2).run("tests.python.engine_group_cases:groups_of_torch", backend="auto") == [(0, 0), (0, 0)]


def test_process_groups_end_with_their_engine() -> None:
    assert world(2).run("tests.python.engine_group_cases:groups_of_torch", backend="c10d") == [(2, 0), (2, 0)]
