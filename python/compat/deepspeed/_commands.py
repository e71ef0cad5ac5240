"""The console scripts: DeepSpeed's names for Hydrofoil's commands."""

from __future__ import annotations

import os
import sys
from typing import NoReturn, Optional

from hydrofoil.command import find_program

__all__ = ["io", "report", "run", "zero_to_fp32"]


def _become(*command: str) -> NoReturn:
    program = find_program()
    os.execv(program, [program, *command])


def run(args: Optional[list[str]] = None) -> NoReturn:
    """`deepspeed [flags] script.py ...`: `hydrofoil run` knows DeepSpeed's flags."""
    _become("run", *(sys.argv[1:] if args is None else args))


def report(args: Optional[list[str]] = None) -> NoReturn:
    """`ds_report`: `hydrofoil doctor`."""
    _become("doctor")


def io(args: Optional[list[str]] = None) -> NoReturn:
    raise SystemExit("ds_io: measuring NVMe is not built in Hydrofoil yet (offload)")


def zero_to_fp32(args: Optional[list[str]] = None) -> NoReturn:
    raise SystemExit("zero_to_fp32.py: fp32 consolidation of checkpoints is not built in Hydrofoil yet; engine.save_16bit_model() writes the whole model")
