"""`DeepSpeedConfig` and the enumerations of DeepSpeed's configuration."""

from __future__ import annotations

import enum
import functools
import types
from typing import Any, Optional

import torch

from hydrofoil import _C, comm
from hydrofoil._config import config_dict, resolve
from hydrofoil._getters import ConfigGetters
from hydrofoil.errors import ConfigError

__all__ = ["DeepSpeedConfig", "DeepSpeedConfigError", "OffloadDeviceEnum", "OffloadStateTypeEnum", "ZeroStageEnum"]

DeepSpeedConfigError = ConfigError


class DeepSpeedConfig:
    """A ds_config, resolved. Attributes are the resolved options' (`train_batch_size`, `zero_stage`, ...) and, as values, the engine's config getters
    (`zero_optimization_stage`, `load_universal_checkpoint`, ...); `zero_config` is the section, with the stage that holds."""

    def __init__(self, config: Any, mpu: Any = None, mesh_device: Any = None, options: Optional[_C.EngineOptions] = None) -> None:
        if mpu is not None or mesh_device is not None:
            raise NotImplementedError("DeepSpeedConfig: mpu and mesh_device (model parallelism) are not built yet")
        self.world_size = comm.get_world_size() if comm.is_initialized() else 1
        self._options = options or resolve(config, self.world_size, not torch.cuda.is_available())
        self._config = config

    @functools.cached_property
    def _param_dict(self) -> dict[str, Any]:
        return config_dict(self._config)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if hasattr(self._options, name):
            return getattr(self._options, name)
        getter = getattr(ConfigGetters, name, None)
        if getter is None:
            raise AttributeError(f"DeepSpeedConfig has no attribute {name!r}: neither an option nor a config getter of the engine")
        return getter(_Getters(self._options, self._param_dict))

    @property
    def zero_enabled(self) -> bool:
        return self._options.zero_stage > 0

    @property
    def zero_config(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(**{**self._param_dict.get("zero_optimization", {}), "stage": self._options.zero_stage})


class _Getters(ConfigGetters):
    """The config getters without an engine."""

    def __init__(self, options: _C.EngineOptions, config: dict[str, Any]) -> None:
        self.options, self.config = options, config


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
