"""setuptools' build backend, which stops where the real DeepSpeed is installed: pip would remove that one without a question."""

from __future__ import annotations

import os
import sysconfig
from importlib.metadata import distributions
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F401,F403

_REPLACE = "HYDROFOIL_REPLACE_DEEPSPEED"


def _check() -> None:
    # pip builds in an environment of its own, by this interpreter: its site-packages are where the result will go.
    places = list({sysconfig.get_paths()[name] for name in ("purelib", "platlib")})
    for found in distributions(name="deepspeed", path=places):
        if "+hydrofoil" not in found.version and os.environ.get(_REPLACE) != "1":
            raise SystemExit(
                f"deepspeed {found.version}, the real one, is installed in {found.locate_file('')}: Hydrofoil's drop-in of that name would replace it. "
                f"Uninstall it first (pip uninstall deepspeed), use another virtual environment, or set {_REPLACE}=1 to replace it.")


def build_wheel(*args: Any, **kwargs: Any) -> str:
    _check()
    return build_meta.build_wheel(*args, **kwargs)


def build_editable(*args: Any, **kwargs: Any) -> str:
    _check()
    return build_meta.build_editable(*args, **kwargs)
