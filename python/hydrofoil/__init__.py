"""Hydrofoil: ZeRO training for models that do not fit, as one C++ engine on libtorch.

``import hydrofoil as deepspeed`` is the whole port of a DeepSpeed script; names, signatures and semantics are DeepSpeed's.
"""

import torch as _torch

from hydrofoil._version import check_torch as _check_torch

_check_torch(_torch.__version__)

from hydrofoil import _C, comm, utils, zero  # noqa: E402
from hydrofoil.comm import init_distributed  # noqa: E402
from hydrofoil.engine import DeepSpeedEngine, Engine  # noqa: E402
from hydrofoil.errors import CommError, ConfigError, InvalidArgument  # noqa: E402
from hydrofoil.initialize import add_config_arguments, initialize  # noqa: E402
from hydrofoil.planning import plan  # noqa: E402
from hydrofoil.utils import logger, log_dist  # noqa: E402

dist = comm

__version__ = version = _C.__version__
__version_major__, __version_minor__, __version_patch__ = (int(part) for part in _C.__version__.split("."))

__all__ = [
    "CommError",
    "ConfigError",
    "DeepSpeedEngine",
    "Engine",
    "InvalidArgument",
    "add_config_arguments",
    "comm",
    "dist",
    "init_distributed",
    "initialize",
    "log_dist",
    "logger",
    "plan",
    "utils",
    "zero",
]
