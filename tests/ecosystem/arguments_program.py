"""A script whose whole command line is HfArgumentParser's, as Transformers' own examples have it.

    deepspeed --num_gpus 2 arguments_program.py --deepspeed ds_config.json --output_dir DIRECTORY ...
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from trainer_program import fit
from transformers import HfArgumentParser, TrainingArguments


@dataclass
class ModelArguments:
    pretrained: str | None = field(default=None, metadata={"help": "a folder; without it a new model"})


if __name__ == "__main__":
    model, args = HfArgumentParser((ModelArguments, TrainingArguments)).parse_args_into_dataclasses()
    print("RESULT " + json.dumps(fit(args, model.pretrained)), flush=True)
