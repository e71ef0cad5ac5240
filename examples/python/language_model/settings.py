"""What the job is made of on this machine: the engine's config, dtype, device and size of the model."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from model import LanguageModel, ModelConfig


class SettingsError(Exception):
    """The job's config cannot be used; the message says why, for the user."""


def engine_config(options: Namespace, dtype: str) -> dict[str, Any]:
    """The ds_config.json of the job with stage, dtype and number of steps as the command line has them.

    Raises SettingsError where the file cannot be read or leaves the global batch open.
    """
    try:
        config = json.loads(options.deepspeed_config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {options.deepspeed_config}: {error}") from error
    if not isinstance(config.get("train_batch_size"), int):
        raise SettingsError(f"{options.deepspeed_config} has to give train_batch_size as a number")
    config["zero_optimization"] = {**config.get("zero_optimization", {}), "stage": options.stage}
    config.setdefault("gradient_accumulation_steps", 1)
    for name in ("bf16", "fp16"):
        config[name] = {**config.get(name, {}), "enabled": name == dtype}
    schedule = config.get("scheduler", {}).get("params", {})
    if "total_num_steps" in schedule:
        schedule["total_num_steps"] = options.steps
        schedule["warmup_num_steps"] = max(1, min(schedule.get("warmup_num_steps", 50), options.steps // 4))
    return config


def count_parameters(sizes: ModelConfig) -> int:
    """Counted on the meta device: under ZeRO-3 a rank holds only its part."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in LanguageModel(sizes).parameters())


def fastest_dtype() -> str:
    """bf16 where the machine multiplies it in hardware, else fp32: emulated bf16 takes about four times as long."""
    if torch.cuda.is_available():
        return "bf16"
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return "fp32"
    return "bf16" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "fp32"


def training_device() -> torch.device:
    """The processor, or the GPU that this rank was given."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
