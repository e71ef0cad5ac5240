"""Trains a byte-level language model under ZeRO. Start it with `make train`, or by hand with

hydrofoil run --nproc 2 examples/python/language_model/train.py --stage 3 --steps 732
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_STEPS = 732  # 1.5 million bytes at 8 x 256 a step.


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains a byte-level language model under ZeRO 0-3.")
    parser.add_argument("--stage", type=int, choices=range(4), default=3, help="ZeRO stage (default 3)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "bf16", "fp32", "fp16"),
        default="auto",
        help="dtype of parameters and gradients; auto is bf16 where the processor has it in hardware, else fp32",
    )
    parser.add_argument(
        "--steps", type=positive, default=DEFAULT_STEPS, help=f"optimizer steps (default {DEFAULT_STEPS})"
    )
    parser.add_argument("--data", help="text file or folder (default: the source of Python's standard library)")
    parser.add_argument("--out", type=Path, help="folder for curve, numbers and checkpoint (default: runs/<time>)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="folder of an earlier run to go on with")
    parser.add_argument(
        "--seed", type=int, default=1, help="of initial weights, order of the data and sample (default 1)"
    )
    parser.add_argument(
        "--eval-interval", type=positive, default=100, help="steps between held-out losses (default 100)"
    )
    parser.add_argument(
        "--eval-windows", type=positive, default=256, help="held-out windows of 256 bytes (default 256)"
    )
    parser.add_argument(
        "--print-interval", type=positive, default=10, help="steps a line without a terminal (default 10)"
    )
    parser.add_argument(
        "--no-sample", dest="sample", action="store_false", help="do not let the model write at the end"
    )
    parser.add_argument("--sample-bytes", type=positive, default=400, help="length of the sample (default 400)")
    parser.add_argument("--prompt", default="def ", help="what the sample goes on from (default 'def ')")
    parser.add_argument(
        "--deepspeed_config", type=Path, default=HERE / "ds_config.json", help="ds_config.json to start from"
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # DeepSpeed's launcher passes it.
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected at least 1")
    return value


def main() -> int:
    options = parse_arguments()
    # Only now the imports that take seconds: `--help` answers at once, and from here on Ctrl-C ends in good order.
    from interrupt import StopFlag

    stop = StopFlag()
    stop.install()
    import torch.distributed
    from data import DataError
    from settings import SettingsError
    from trainer import Trainer, TrainingError

    try:
        return Trainer(options, stop).run()
    except (DataError, SettingsError, TrainingError) as error:
        print(f"train.py: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
