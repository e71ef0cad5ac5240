"""`DeepSpeedConfig` and the enumerations of DeepSpeed's configuration."""

from __future__ import annotations

import enum
from typing import Any

import torch

from hydrofoil import comm
from hydrofoil._config import config_dict, resolve
from hydrofoil.errors import ConfigError

__all__ = ["DeepSpeedConfig", "DeepSpeedConfigError", "OffloadDeviceEnum", "OffloadStateTypeEnum", "ZeroStageEnum"]

DeepSpeedConfigError = ConfigError


class DeepSpeedConfig:
    """A ds_config, resolved. Attributes are the resolved options' (`train_batch_size`, `zero_stage`, ...)."""

    def __init__(self, config: Any, mpu: Any = None, mesh_device: Any = None) -> None:
        if mpu is not None or mesh_device is not None:
            raise NotImplementedError("DeepSpeedConfig: mpu and mesh_device (model parallelism) are not built yet")
        world_size = comm.get_world_size() if comm.is_initialized() else 1
        self._options = resolve(config, world_size, not torch.cuda.is_available())
        self._param_dict = config_dict(config)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._options, name)


class ZeroStageEnum(enum.IntEnum):
    disabled = 0
    optimizer_states = 1
    gradients = 2
    weights = 3


class OffloadDeviceEnum(str, enum.Enum):
    none = "none"
    cpu = "cpu"
    nvme = "nvme"


class OffloadStateTypeEnum(str, enum.Enum):
    optim_states = "optim_states"
    hp_params = "hp_params"
    lp_params = "lp_params"
    lp_grads = "lp_grads"
    contiguous_grad_buffer = "contiguous_grad_buffer"
