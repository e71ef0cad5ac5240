"""The console scripts: DeepSpeed's names for Hydrofoil's commands."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import NoReturn, Optional

from hydrofoil.command import find_program
from hydrofoil.ops import compatible_ops

__all__ = ["io", "print_report", "report", "run", "zero_to_fp32"]


def _become(*command: str) -> NoReturn:
    program = find_program()
    os.execv(program, [program, *command])


def run(args: Optional[list[str]] = None) -> NoReturn:
    """`deepspeed [flags] script.py ...`: `hydrofoil run` knows DeepSpeed's flags."""
    _become("run", *(sys.argv[1:] if args is None else args))


def print_report(hide_operator_status: bool = False, hide_errors_and_warnings: bool = False) -> int:
    """DeepSpeed's operators, and `hydrofoil doctor`, whose exit code is returned."""
    if not hide_operator_status:
        print("Operators\n" + "".join(f"  {'built in' if built else 'not built':<11}{name}\n" for name, built in compatible_ops.items()), flush=True)
    return subprocess.run([find_program(), "doctor", *(["--hide-problems"] if hide_errors_and_warnings else [])]).returncode


def report(args: Optional[list[str]] = None) -> NoReturn:
    """`ds_report`."""
    parser = argparse.ArgumentParser("ds_report", description="What Hydrofoil has of DeepSpeed's operators, and what hydrofoil doctor says of this machine.")
    parser.add_argument("--hide_operator_status", action="store_true", help="leave the operators out")
    parser.add_argument("--hide_errors_and_warnings", action="store_true", help="leave out the lines of warnings and problems; they are counted all the same")
    raise SystemExit(print_report(**vars(parser.parse_args(args))))


def io(args: Optional[list[str]] = None) -> NoReturn:
    raise SystemExit("ds_io: measuring NVMe is not built in Hydrofoil yet (offload)")


def zero_to_fp32(args: Optional[list[str]] = None) -> NoReturn:
    raise SystemExit("zero_to_fp32.py: fp32 consolidation of checkpoints is not built in Hydrofoil yet; engine.save_16bit_model() writes the whole model")
