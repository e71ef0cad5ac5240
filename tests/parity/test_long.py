"""2,000 steps at every stage: ranks never differ, no NaN, and the model learns."""

from __future__ import annotations

import math

import pytest

from tests.parity.settings import SMALL_UNITS, Case
from tests.support.world import world

STEPS = 2000


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_ranks_never_differ(stage: int, dtype: str) -> None:
    case = Case(model="tied", dtype=dtype, stage=stage, unit_min_bytes=SMALL_UNITS, clipping=1.0)
    first, second = world(2).run("tests.parity.long_cases:train", timeout=500.0, case=case, steps=STEPS)
    assert len(first["digests"]) == STEPS
    differ = [step + 1 for step, (a, b) in enumerate(zip(first["digests"], second["digests"])) if a != b]
    assert not differ, f"parameters of the ranks differ from step {differ[0]} on"
    for result in (first, second):
        assert all(math.isfinite(loss) for loss in result["losses"])
        assert sum(result["losses"][-100:]) / 100 < 0.1 < result["losses"][0]
