"""What must give identical bits: stages, unit sizes and transports (world 2, one micro step, no clipping), and overlap.

With bf16 states the unit size is not among them: where an element lies in its unit decides which way its states are rounded.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest

from tests.parity import models, settings
from tests.parity.settings import Case
from tests.support.world import world

STEPS, OVERLAP_STEPS = 6, 3
UNITS = (settings.SMALL_UNITS, 2048, settings.LARGE_UNITS)  # every module; a few; one
BACKENDS = ("shm", "c10d")
REFERENCE = dict(stage=0, unit_min_bytes=settings.LARGE_UNITS, backend="shm")


def assert_same_bits(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for rank, (a, b) in enumerate(zip(got, expected)):
        for result in (a, b):
            assert "error" not in result, f"rank {rank}:\n{result['error']}"
        assert a["losses"] == b["losses"], f"losses of rank {rank}: {a['losses']}, expected {b['losses']}"
        for key in ("parameters", "model"):
            differ = [name for name, value in b[key].items() if a[key][name].tobytes() != value.tobytes()]
            assert not differ, f"rank {rank}, {key}: {differ} differ"


def run(world_size: int, cases: list[Case], steps: int) -> dict[Case, list[dict[str, Any]]]:
    of_rank = world(world_size).run("tests.parity.cases:run_cases", timeout=240.0, cases=[(case, steps) for case in cases])
    return {case: [results[i] for results in of_rank] for i, case in enumerate(cases)}


def stage_cases(model: str, dtype: str) -> list[Case]:
    """In bf16 stages 1 to 3 over shm sum the 16-bit gradients themselves, the others fp32 copies of them."""
    return [
        Case(model=model, dtype=dtype, stage=stage, unit_min_bytes=units, backend=backend)
        for backend in BACKENDS for units in UNITS for stage in (0, 1, 2, 3)
    ]


@functools.lru_cache(maxsize=1)
def run_stages(model: str, dtype: str) -> dict[Case, list[dict[str, Any]]]:
    return run(2, stage_cases(model, dtype), STEPS)


@pytest.mark.parametrize("case", [pytest.param(c, id=str(c)) for m in models.NAMES for d in ("fp32", "bf16") for c in stage_cases(m, d)])
def test_stage_unit_size_and_transport_change_no_bit(case: Case) -> None:
    results = run_stages(case.model, case.dtype)
    assert_same_bits(results[case], results[Case(model=case.model, dtype=case.dtype, **REFERENCE)])


def bf16_state_cases() -> list[Case]:
    return [Case(model="odd", dtype=dtype, stage=stage, unit_min_bytes=units, backend="shm", bf16_states=True)
            for dtype in ("fp32", "bf16") for units in (settings.SMALL_UNITS, settings.LARGE_UNITS) for stage in (0, 1, 2, 3)]


@functools.lru_cache(maxsize=1)
def run_bf16_states() -> dict[Case, list[dict[str, Any]]]:
    return run(2, bf16_state_cases(), STEPS)


@pytest.mark.parametrize("case", [pytest.param(c, id=str(c)) for c in bf16_state_cases() if c.stage > 0])
def test_stage_changes_no_bit_of_bf16_states(case: Case) -> None:
    results = run_bf16_states()
    assert_same_bits(results[case], results[dataclasses.replace(case, stage=0)])


def overlap_cases(overlap: bool) -> list[Case]:
    """With accumulation and clipping, in every dtype."""
    return [
        Case(model=model, dtype=dtype, stage=stage, accumulation=3, unit_min_bytes=settings.SMALL_UNITS, clipping=settings.CLIP,
             backend=backend, overlap=overlap)
        for model, backend in (("odd", "shm"), ("tied", "c10d")) for dtype in ("fp32", "bf16", "fp16") for stage in (0, 1, 2, 3)
    ]


@functools.lru_cache(maxsize=1)
def run_overlap(world_size: int) -> dict[Case, list[dict[str, Any]]]:
    return run(world_size, overlap_cases(True) + overlap_cases(False), OVERLAP_STEPS)


@pytest.mark.parametrize(
    ("world_size", "number"),
    [pytest.param(w, i, id=f"world{w}-{case}") for w in (2, 3) for i, case in enumerate(overlap_cases(True))])
def test_overlap_changes_no_bit(world_size: int, number: int) -> None:
    results = run_overlap(world_size)
    assert_same_bits(results[overlap_cases(True)[number]], results[overlap_cases(False)[number]])
