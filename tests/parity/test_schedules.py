"""Learning rates of the config schedules against their formulas, and torch's schedulers on client and config optimizers."""

from __future__ import annotations

import math
from typing import Any, Callable

import pytest
import torch

from tests.parity import optimizer_cases
from tests.parity.optimizer_cases import CONFIG, SCHEDULERS
from tests.parity.settings import Case
from tests.support.world import world

STEPS = 12
LR = 0.01  # of the optimizer
OPTIMIZER = {"type": "SGD", "params": {"lr": LR}}


def warmup_log(i: int, steps: int) -> float:
    return math.log(i + 1) / math.log(steps) if i < steps else 1.0


def warmup_linear(i: int, steps: int) -> float:
    return i / steps if i < steps else 1.0


def decay(i: int, total: int, warmup: int) -> float:
    return warmup_log(i, warmup) if i < warmup else max(0.0, (total - i) / (total - warmup))


def cosine(i: int, total: int, warmup: int, low: float, end: float) -> float:
    if i < warmup:
        return low + (1 - low) * warmup_linear(i, warmup)
    progress = (i - warmup + 1) / (total - warmup)
    return max(0.0, end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2)


def one_cycle(i: int, low: float, high: float, first: int, second: int) -> float:
    cycle = math.floor(1 + (i + 1) / (first + second))
    x = 1 + (i + 1) / (first + second) - cycle
    ratio = first / (first + second)
    return low + (high - low) * (x / ratio if x <= ratio else (x - 1) / (ratio - 1))


# Section, and the lr that step() sets when it reaches iteration i (from 0): the formulas of DeepSpeed's lr_schedules.py.
FORMULAS: dict[str, tuple[dict[str, Any], Callable[[int], float]]] = {
    "warmup_log": ({"type": "WarmupLR", "params": {"warmup_min_lr": 0.001, "warmup_max_lr": 0.02, "warmup_num_steps": 6}},
                   lambda i: 0.001 + 0.019 * warmup_log(i, 6)),
    "warmup_linear": ({"type": "WarmupLR", "params": {"warmup_num_steps": 5, "warmup_type": "linear", "warmup_max_lr": 0.02}},
                      lambda i: 0.02 * warmup_linear(i, 5)),
    "warmup_decay": ({"type": "WarmupDecayLR", "params": {"total_num_steps": 10, "warmup_num_steps": 4, "warmup_max_lr": 0.02}},
                     lambda i: 0.02 * decay(i, 10, 4)),
    "warmup_cosine": ({"type": "WarmupCosineLR", "params": {"total_num_steps": 12, "warmup_num_steps": 4, "warmup_type": "linear",
                                                            "warmup_min_ratio": 0.1, "cos_min_ratio": 0.05}},
                      lambda i: LR * cosine(i, 12, 4, 0.1, 0.05)),
    "one_cycle": ({"type": "OneCycle", "params": {"cycle_min_lr": 0.001, "cycle_max_lr": 0.02, "cycle_first_step_size": 8,
                                                  "cycle_second_step_size": 10, "cycle_momentum": False}},
                  lambda i: one_cycle(i, 0.001, 0.02, 8, 10)),
    "range_test": ({"type": "LRRangeTest", "params": {"lr_range_test_min_lr": 0.001, "lr_range_test_step_size": 3,
                                                      "lr_range_test_step_rate": 2.0}},
                   lambda i: 0.001 * (1 + 2.0 * (i + 1) / 3)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_config_schedule_follows_its_formula(name: str) -> None:
    section, formula = FORMULAS[name]
    of_rank = world(2).run("tests.parity.optimizer_cases:train_stages", case=Case(), steps=STEPS, stages=(0, 3),
                           config={"optimizer": OPTIMIZER, "scheduler": section})
    for results in of_rank:
        for result in results:
            assert result["lrs"] == [[pytest.approx(formula(i), rel=1e-9, abs=1e-15)] for i in range(STEPS)]


@pytest.mark.parametrize("given", [None, "auto"])
@pytest.mark.parametrize("client", [False, True])
def test_warmup_goes_to_the_lr_of_each_group(client: bool, given: Any) -> None:
    params = {"warmup_num_steps": 4, "warmup_type": "linear"} | ({} if given is None else {"warmup_max_lr": given})
    for rates in world(2).run("tests.parity.optimizer_cases:rates_of_two_groups", client=client, steps=6,
                              scheduler={"type": "WarmupLR", "params": params}):
        assert rates == [pytest.approx([0.02 * warmup_linear(i, 4), 0.01 * warmup_linear(i, 4)]) for i in range(6)]


def torch_rates(make_optimizer: Callable[[Any], Any], scheduler: str) -> list[list[float]]:
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    schedule = SCHEDULERS[scheduler](optimizer)
    rates = []
    for _ in range(STEPS - 1):
        optimizer.step()
        schedule.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("client", ["", "sgd"])
def test_torch_scheduler_made_by_a_callable(client: str, scheduler: str) -> None:
    section, make = CONFIG["sgd_momentum"]
    expected = torch_rates(optimizer_cases.CLIENT[client] if client else make, scheduler)
    config = {} if client else {"optimizer": section}
    of_rank = world(2).run("tests.parity.optimizer_cases:train_stages", case=Case(), steps=STEPS - 1, stages=(0, 2, 3), config=config,
                           client=client, scheduler=scheduler)
    for results in of_rank:
        for result in results:
            assert result["lrs"] == [pytest.approx(rates) for rates in expected]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_torch_scheduler_of_the_users_own_optimizer(stage: int) -> None:
    expected = torch_rates(optimizer_cases.CLIENT["sgd"], "step")
    for rates in world(2).run("tests.parity.optimizer_cases:client_over_scheduler", stage=stage, steps=STEPS - 1):
        assert rates == [pytest.approx(lrs) for lrs in expected]


def test_torch_scheduler_by_name_in_the_config() -> None:
    section = {"type": "StepLR", "params": {"step_size": 2, "gamma": 0.5}}
    expected = torch_rates(CONFIG["sgd_momentum"][1], "step")
    for results in world(2).run("tests.parity.optimizer_cases:train_stages", case=Case(), steps=STEPS - 1, stages=(1,),
                                config={"optimizer": CONFIG["sgd_momentum"][0], "scheduler": section}):
        assert results[0]["lrs"] == [pytest.approx(rates) for rates in expected]


@pytest.mark.parametrize("client", ["", "sgd"])
def test_torch_scheduler_sees_the_optimizer_step(client: str) -> None:
    for messages in world(2).run("tests.parity.optimizer_cases:scheduler_warnings", client=client):
        assert not [message for message in messages if "lr_scheduler" in message]
