"""Loss scaling and skipped steps against plain PyTorch with DeepSpeed's rules, at world 2."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.parity import compare, precision_cases, reference
from tests.parity.settings import Case
from tests.support.world import world

INF, NAN = float("inf"), float("nan")
STAGES = (0, 1, 2, 3)
STEPS = 16


def expected(case: Case, steps: int, injections: precision_cases.Injections, loss_scale: reference.LossScale) -> reference.History:
    def corrupt(step: int, micro: int, rank: int, gradients: dict[str, torch.Tensor]) -> None:
        value = injections.get((step, micro, rank))
        if value is not None:
            gradient = gradients[precision_cases.PARAMETER].view(-1)
            gradient[gradient.numel() // 2] = value

    return compare.expected(case, 2, steps, corrupt=corrupt, loss_scale=loss_scale, make_scheduler=precision_cases.exponential)


def run(case: Case, steps: int, injections: precision_cases.Injections, config: dict[str, Any] | None = None) -> list[list[dict[str, Any]]]:
    """Results by stage, then rank."""
    of_rank = world(2).run("tests.parity.precision_cases:train_stages", case=case, steps=steps, injections=injections, config=config)
    return [[results[stage] for results in of_rank] for stage in STAGES]


def check(of_stage: list[list[dict[str, Any]]], history: reference.History, injections: precision_cases.Injections, tolerance: float) -> None:
    bad_steps = {step for step, _, _ in injections}
    for stage, results in enumerate(of_stage):
        compare.losses_close(results, history, tolerance)
        for rank, got in enumerate(results):
            place = f"stage {stage}, rank {rank}"
            assert got["scales"] == history.scales, place
            assert got["skipped"] == history.skipped == len(bad_steps), place
            assert got["global_steps"] == len(history.scales), place
            assert got["lrs"] == [pytest.approx(lrs) for lrs in history.lrs], place
            assert got["overflows"] == [step in bad_steps for step in range(len(history.scales))], place
            assert got["changed"] == [step not in bad_steps for step in range(len(history.scales))], place
            assert all(math.isfinite(norm) == (step not in bad_steps) for step, norm in enumerate(got["norms"])), place
        assert compare.relative(results[0]["parameters"], history.parameters) < 10 * tolerance


# Two overflows in a row, one later, one that must wait for the hysteresis, and two in one step.
OVERFLOWS = {(2, 1, 1): INF, (3, 0, 0): -INF, (4, 2, 1): NAN, (8, 2, 0): INF, (13, 0, 1): INF, (13, 2, 0): NAN}


@pytest.mark.parametrize("consecutive", [False, True])
@pytest.mark.parametrize("hysteresis", [1, 2, 3])
def test_dynamic_loss_scale_follows_deepspeed(hysteresis: int, consecutive: bool) -> None:
    case = Case(dtype="fp16", accumulation=3, clipping=0.5)
    fp16 = {"enabled": True, "initial_scale_power": 8, "loss_scale_window": 3, "hysteresis": hysteresis,
            "consecutive_hysteresis": consecutive, "min_loss_scale": 1}
    scale = reference.LossScale(scale=256.0, dynamic=True, window=3, hysteresis=hysteresis, consecutive_hysteresis=consecutive)
    history = expected(case, STEPS, OVERFLOWS, scale)
    check(run(case, STEPS, OVERFLOWS, {"fp16": fp16}), history, OVERFLOWS, 5e-3)


def test_static_loss_scale_stays_after_an_overflow() -> None:
    case = Case(dtype="fp16", accumulation=3)
    injections = {(1, 2, 1): INF, (2, 0, 0): NAN}
    history = expected(case, 5, injections, reference.LossScale(scale=128.0))
    assert history.scales == [128.0] * 5
    check(run(case, 5, injections, {"fp16": {"enabled": True, "loss_scale": 128}}), history, injections, 5e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-4), ("bf16", 1e-2)])
def test_step_that_is_not_finite_is_skipped_without_a_loss_scale(dtype: str, tolerance: float) -> None:
    case = Case(dtype=dtype, accumulation=3, clipping=0.5)
    injections = {(1, 1, 1): NAN, (3, 0, 0): INF}
    history = expected(case, 6, injections, reference.LossScale())
    check(run(case, 6, injections), history, injections, tolerance)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_report_names_parameter_rank_and_micro_step(dtype: str) -> None:
    case = Case(dtype=dtype, accumulation=3)
    # Rank 1 meets one in micro step 1 of step 2; rank 0 in a later micro step: rank 1's was the first.
    for results in run(case, 3, {(1, 1, 1): INF, (1, 2, 0): NAN}):
        for result in results:
            assert result["reports"][0] == ""
            report = result["reports"][1]
            assert report.startswith("step 2 skipped") and f"'{precision_cases.PARAMETER}'" in report
            assert "on rank 1" in report and "micro step 4" in report  # counted from the start: 3 + 1


@pytest.mark.parametrize("stage", STAGES)
def test_overflow_at_the_minimum_scale_raises_on_all_ranks(stage: int) -> None:
    for message in world(2).run("tests.parity.precision_cases:overflow_at_minimum", stage=stage):
        assert "minimum loss scale" in message and "16" in message


@pytest.mark.parametrize("stage", [0, 1])
def test_gradient_that_was_dropped_is_no_overflow(stage: int) -> None:
    for applied, report in world(2).run("tests.parity.precision_cases:dropped_gradient", stage=stage):
        assert applied and report == ""
