"""Ten thousand steps: memory, open files and threads are flat after the first thousand."""

from __future__ import annotations

import pytest

from tests.support.world import World

MIB = 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_ten_thousand_steps(stage: int) -> None:
    fresh = World(2)  # of its own: what other tests have left on the heap is not counted
    try:
        ranks = fresh.run("tests.python.steady_cases:trained", timeout=1800.0, stage=stage, steps=10_000)
    finally:
        fresh.close()
    for marks in ranks:
        warm = marks[0]
        for mark in marks[1:]:
            print(f"stage {stage}, step {mark['step']}: {(mark['bytes'] - warm['bytes']) / 1024:+.0f} KiB, {mark['threads']} threads, "
                  f"{mark['files']} files")
            assert mark["bytes"] - warm["bytes"] <= MIB, marks
            assert mark["threads"] <= warm["threads"] and mark["files"] <= warm["files"], marks
