"""DeepSpeed's learning rate schedules: the C++ formulas behind torch's scheduler interface."""

from __future__ import annotations

from typing import Any, Optional

import torch

from hydrofoil import _C
from hydrofoil.errors import InvalidArgument, InvalidType

__all__ = ["LRRangeTest", "OneCycle", "Schedule", "VALID_LR_SCHEDULES", "add_tuning_arguments", "WarmupCosineLR", "WarmupDecayLR", "WarmupLR"]

_VECTORS = ("warmup_min_lr", "warmup_max_lr", "lr_range_test_min_lr")


class Schedule:
    """Sets lr (and, for OneCycle, betas) of an optimizer's groups. step() after every optimizer step that was applied."""

    kind = "WarmupLR"

    def __init__(self, optimizer: torch.optim.Optimizer, **params: Any) -> None:
        if not hasattr(optimizer, "param_groups"):
            raise InvalidType(f"{self.kind}: optimizer: got {type(optimizer).__name__}, expected a torch optimizer, or the one that initialize returns")
        options = _C.ScheduleOptions()
        options.kind = getattr(_C.ScheduleKind, self.kind)
        for name, value in params.items():
            if not hasattr(options, name):
                raise InvalidType(f"{self.kind}: unknown parameter {name!r}")
            if name == "warmup_type":
                value = _C.parse_warmup_type(value)
            elif name in _VECTORS and value is not None:
                value = [float(v) for v in value] if isinstance(value, (list, tuple)) else [float(value)]
            if value is not None:
                setattr(options, name, value)
        self.optimizer = optimizer
        self._schedule = _C.LrSchedule(options, [float(group["lr"]) for group in optimizer.param_groups])
        self._apply(self._schedule.values())

    def _apply(self, values: _C.ScheduleValues) -> None:
        for group, lr in zip(self.optimizer.param_groups, values.lr):
            group["lr"] = lr
            if values.momentum is not None:
                if "betas" in group:
                    group["betas"] = (values.momentum, values.beta2 if values.beta2 is not None else group["betas"][1])
                elif "momentum" in group:
                    group["momentum"] = values.momentum

    def step(self, last_batch_iteration: Optional[int] = None) -> None:
        self._apply(self._schedule.step(last_batch_iteration))

    @property
    def last_batch_iteration(self) -> int:
        return self._schedule.last_batch_iteration

    def get_lr(self) -> list[float]:
        return list(self._schedule.values().lr)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, int]:
        return {"last_batch_iteration": self._schedule.last_batch_iteration}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._schedule.last_batch_iteration = state["last_batch_iteration"]
        self._apply(self._schedule.values())


class WarmupLR(Schedule):
    kind = "WarmupLR"


class WarmupDecayLR(Schedule):
    kind = "WarmupDecayLR"


class WarmupCosineLR(Schedule):
    kind = "WarmupCosineLR"


class OneCycle(Schedule):
    kind = "OneCycle"


class LRRangeTest(Schedule):
    kind = "LRRangeTest"


SCHEDULES = {cls.kind: cls for cls in (WarmupLR, WarmupDecayLR, WarmupCosineLR, OneCycle, LRRangeTest)}
VALID_LR_SCHEDULES = list(SCHEDULES)


def add_tuning_arguments(parser: Any) -> Any:
    """--lr_schedule and the parameters of each schedule, for argparse."""
    group = parser.add_argument_group("Convergence Tuning", "Learning rate schedules")
    group.add_argument("--lr_schedule", type=str, default=None, help=f"one of {', '.join(VALID_LR_SCHEDULES)}")
    known: set[str] = set()
    for schedule in SCHEDULES.values():
        options = _C.ScheduleOptions()
        options.kind = getattr(_C.ScheduleKind, schedule.kind)
        for name in sorted(name for name in dir(options) if not name.startswith("_") and name != "kind"):
            value = getattr(options, name)
            if name not in known and isinstance(value, (bool, int, float)):
                known.add(name)
                group.add_argument(f"--{name}", type=float if isinstance(value, float) else int, default=value)
    return parser
