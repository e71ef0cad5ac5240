"""Every stage x dtype x accumulation x unit size x clipping x model against plain PyTorch, at world sizes 1, 2 and 3.

All cases run 3 steps (full gradients of step 1, losses, norms, parameters). LONG, a covering subset, runs 30: every stage x dtype x
model with two of the eight (accumulation, units, clipping), chosen so that each pair of values of any two settings occurs.
The cases of one (world size, dtype, model) run in one call into a group of processes that lives through the session.
"""

from __future__ import annotations

import functools
import itertools

import pytest

from tests.parity import compare, models, reference, settings
from tests.parity.settings import Case
from tests.support.world import world

WORLD_SIZES = (1, 2, 3)
DTYPES = ("fp32", "bf16", "fp16")
STAGES = (0, 1, 2, 3)
COMBINATIONS = tuple(itertools.product((1, 3), (settings.SMALL_UNITS, settings.LARGE_UNITS), (0.0, settings.CLIP)))
SHORT_STEPS, LONG_STEPS = 3, 30

GRADIENT_TOLERANCE = {"fp32": 1e-6, "bf16": 1e-6, "fp16": 1e-6}  # step 1: the 16-bit arithmetic is the same, sums are fp32
NORM_TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 5e-3}  # relative, steps 1 to 3
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2, "fp16": 5e-3}
PARAMETER_TOLERANCE = {"fp32": 1e-5, "bf16": 1e-3, "fp16": 1e-3}  # relative, after 3 steps
LONG_PARAMETER_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 1e-2}


def is_long(case: Case) -> bool:
    turn = STAGES.index(case.stage) + DTYPES.index(case.dtype) + models.NAMES.index(case.model)
    number = COMBINATIONS.index((case.accumulation, case.unit_min_bytes, case.clipping))
    return number in ((turn % 4), 7 - turn % 4)  # two complementary combinations


def cases_of(dtype: str, model: str) -> list[Case]:
    return [
        Case(model=model, dtype=dtype, stage=stage, accumulation=accumulation, unit_min_bytes=units, clipping=clipping)
        for stage in STAGES for accumulation, units, clipping in COMBINATIONS
    ]


def num_steps(case: Case) -> int:
    return LONG_STEPS if is_long(case) else SHORT_STEPS


@functools.lru_cache(maxsize=2)
def run_all(world_size: int, dtype: str, model: str) -> dict[Case, list[dict]]:
    """Results of each rank by case."""
    cases = cases_of(dtype, model)
    of_rank = world(world_size).run("tests.parity.cases:run_cases", timeout=240.0, cases=[(c, num_steps(c)) for c in cases])
    return {case: [results[i] for results in of_rank] for i, case in enumerate(cases)}


@functools.lru_cache(maxsize=8)
def expected(world_size: int, dtype: str, model: str, accumulation: int, clipping: float, steps: int) -> reference.History:
    return compare.expected(Case(model=model, dtype=dtype, accumulation=accumulation, clipping=clipping), world_size, steps)


@pytest.mark.parametrize(
    ("world_size", "case"),
    [
        pytest.param(world_size, case, id=f"world{world_size}-{case}")
        for world_size in WORLD_SIZES for dtype in DTYPES for model in models.NAMES for case in cases_of(dtype, model)
    ],
)
def test_equals_plain_pytorch(world_size: int, case: Case) -> None:
    results = run_all(world_size, case.dtype, case.model)[case]
    for rank, result in enumerate(results):
        assert "error" not in result, f"rank {rank}:\n{result['error']}"
    steps = num_steps(case)
    history = expected(world_size, case.dtype, case.model, case.accumulation, case.clipping, steps)
    compare.same_on_all_ranks(results)
    compare.losses_close(results, history, LOSS_TOLERANCE[case.dtype])
    got = results[0]
    released = case.stage == 3 and world_size > 1
    assert bool(got["readable"]) != released, f"readable between steps: {got['readable']}"
    distance = compare.relative(got["gradients"], history.gradients)
    assert distance <= GRADIENT_TOLERANCE[case.dtype], f"gradients: {distance:.3g}, {compare.worst(got['gradients'], history.gradients)}"
    for step in range(SHORT_STEPS):
        assert got["norms"][step] == pytest.approx(history.norms[step], rel=NORM_TOLERANCE[case.dtype]), f"global norm, step {step + 1}"
    distance = compare.relative(got["parameters"], history.parameters)
    tolerance = (PARAMETER_TOLERANCE if steps == SHORT_STEPS else LONG_PARAMETER_TOLERANCE)[case.dtype]
    assert distance <= tolerance, f"parameters: {distance:.3g}, {compare.worst(got['parameters'], history.parameters)}"
    assert got["scales"] == history.scales and got["skipped"] == history.skipped == 0
