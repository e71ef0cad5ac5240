"""Where the program `hydrofoil` is."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

__all__ = ["find_program"]


def find_program() -> str:
    """HYDROFOIL_PROGRAM, or the one beside this Python, or that of the PATH; FileNotFoundError where there is none."""
    for candidate in (os.environ.get("HYDROFOIL_PROGRAM"), Path(sys.executable).parent / "hydrofoil", shutil.which("hydrofoil")):
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    raise FileNotFoundError(f"the program hydrofoil is neither beside {sys.executable} nor in the PATH: pip install hydrofoil into this environment")
