"""Cases of the parity tests, and the config of each."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.parity import models

LR, BETAS, EPS, WEIGHT_DECAY = 5e-3, (0.9, 0.99), 1e-8, 0.01
CLIP = 0.5
FP16_SCALE_POWER, FP16_WINDOW = 8, 8  # the scale doubles within a few steps
TIMEOUT_S = 30.0  # of a collective: a rank that fails alone must not hang the others
SMALL_UNITS, LARGE_UNITS = 0, 1 << 30  # every module a unit; the model one unit

# Values of optimizer groups where a case has groups: 0 decays, 1 does not and learns slower.
GROUP_VALUES: dict[int, dict[str, Any]] = {0: {"weight_decay": 0.2}, 1: {"weight_decay": 0.0, "lr": 1e-3}}


@dataclasses.dataclass(frozen=True)
class Case:
    model: str = "plain"
    dtype: str = "fp32"
    stage: int = 0
    accumulation: int = 1
    unit_min_bytes: int = LARGE_UNITS
    clipping: float = 0.0
    backend: str = "auto"
    overlap: bool = True
    groups: bool = False
    bf16_states: bool = False

    def __str__(self) -> str:
        units = "small" if self.unit_min_bytes == SMALL_UNITS else "large"
        text = f"{self.model}-{self.dtype}-stage{self.stage}-accumulation{self.accumulation}-{units}-clip{self.clipping:g}"
        if self.backend != "auto":
            text += "-" + self.backend
        text += ("" if self.overlap else "-serial") + ("-groups" if self.groups else "")
        return text + ("-bf16_states" if self.bf16_states else "")


def group_of(name: str, groups: bool) -> int:
    """Biases and norms are group 1."""
    return int(groups and ("bias" in name or "norm" in name))


def config(case: Case, world_size: int, native: bool = True) -> dict[str, Any]:
    result: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": models.MICRO_BATCH,
        "train_batch_size": models.MICRO_BATCH * case.accumulation * world_size,
        "gradient_accumulation_steps": case.accumulation,
        "gradient_clipping": case.clipping,
        "zero_optimization": {"stage": case.stage},
        "hydrofoil": {"unit_min_bytes": case.unit_min_bytes, "backend": case.backend, "overlap": case.overlap,
                      "collective_timeout_s": TIMEOUT_S},
    }
    if native:
        result["optimizer"] = {"type": "AdamW", "params": {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT_DECAY}}
    if case.dtype == "bf16":
        result["bf16"] = {"enabled": True, "bf16_optimizer_states": case.bf16_states}
    elif case.dtype == "fp16":
        result["fp16"] = {"enabled": True, "initial_scale_power": FP16_SCALE_POWER, "loss_scale_window": FP16_WINDOW}
    elif case.bf16_states:
        result["optimizer"]["params"]["fp32_optimizer_states"] = False
    return result
