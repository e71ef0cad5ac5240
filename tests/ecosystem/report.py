#!/usr/bin/env python3
"""Runs tests/python/test_ecosystem.py and writes docs/ecosystem.md from what it gave.

    .venv/bin/python tests/ecosystem/report.py
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/ecosystem.md"
# test function: program (distribution), what was run, what it was compared with
ROWS = {
    "test_trainer_runs_on_the_engine": ("transformers", "Trainer with a ds_config", "two ranks, disjoint samples, DistributedType.DEEPSPEED, a Hydrofoil engine"),
    "test_trainer_gives_the_losses_of_plain_training": ("transformers", "Trainer: losses, evaluation, `save_model`, clipping, accumulation", "the same program without DeepSpeed (DDP)"),
    "test_adapters_over_a_sharded_base_are_saved_as_plain_training_saves_them": ("peft", "LoRA with `modules_to_save` on `from_pretrained`, Trainer, stage 3: the adapters saved", "the same program without DeepSpeed (DDP)"),
    "test_trainer_on_three_ranks": ("transformers", "Trainer on three ranks, stage 3", "the same program without DeepSpeed (DDP)"),
    "test_the_command_deepspeed_with_hf_argument_parser": ("transformers", "`deepspeed --num_gpus 2 script.py --deepspeed ds_config.json`, `HfArgumentParser`", "the same program without DeepSpeed (DDP)"),
    "test_trainer_in_bf16_stays_near_autocast": ("transformers", "Trainer, bf16, stage 3", "the same program without DeepSpeed (bf16 autocast)"),
    "test_trainer_resumes_with_equal_losses": ("transformers", "Trainer, resume from a checkpoint, stage 3", "the run that was not interrupted, to the bit"),
    "test_from_pretrained_and_generate_under_stage_3": ("transformers", "HfDeepSpeedConfig, `from_pretrained` under zero.Init, `generate()`, stage 3", "the plain model: equal logits and tokens"),
    "test_accelerate_loop": ("accelerate", "`prepare`, `accumulate`, `clip_grad_norm_`, `save_state`, `load_state`, `get_state_dict`, a scheduler", "the same loop without DeepSpeed (DDP)"),
    "test_accelerate_with_a_config_file_and_a_second_model": ("accelerate", "a ds_config file; two models and two plugins", "the same loop without DeepSpeed (DDP)"),
    "test_accelerate_launch": ("accelerate", "`accelerate launch --use_deepspeed`", "the same loop without DeepSpeed (DDP)"),
    "test_trl_trainers": ("trl", "SFT, DPO, GRPO, KTO, reward; LoRA by PEFT with the base frozen", "the same trainer without DeepSpeed (DDP)"),
    "test_lightning": ("lightning", "Trainer with `hydrofoil.lightning.CPUDeepSpeedStrategy`, clipping, checkpoint, resume", "DDPStrategy"),
}
TEXT = """# Programs of the Hugging Face world

Written by `tests/ecosystem/report.py` from `tests/python/test_ecosystem.py`: {when}, {machine}, Python {python}, torch {torch}, two ranks (three where it says so) of one machine without a GPU.
The programs are in `tests/ecosystem/`; none of them knows Hydrofoil.

| program | version | what was run | compared with | cases | result |
|---|---|---|---|---|---|
{rows}

{sums}

## How to run yours

<!-- not run: installs into the environment -->
```bash
pip install ./python/compat           # the drop-in distribution named deepspeed
hydrofoil run --nproc 2 train.py      # or deepspeed --num_gpus 2, accelerate launch --use_deepspeed, torchrun
```

- **Nothing else is needed on a machine without a GPU.** Accelerate chooses no backend there and would take each rank for a job of its own; the drop-in tells it that
  the ranks talk over Gloo.
- The command `deepspeed` passes `--local_rank=N` to the script, as DeepSpeed's does (`HfArgumentParser` takes it); `--no_local_rank` leaves it out.
- `TrainingArguments(bf16=True)` without a GPU needs `use_cpu=True`: Transformers' own check says so. Hydrofoil trains in bf16 with fp32 masters then.
- `Trainer.evaluate()` before `train()` prepares an engine for inference that `train()` destroys, with DeepSpeed too. Use `TrainingArguments(eval_on_start=True)`.
- PyTorch Lightning's `DeepSpeedStrategy` refuses anything but CUDA; `from hydrofoil.lightning import CPUDeepSpeedStrategy` is the same strategy without that check.
- With two plugins in one `Accelerator`, Accelerate takes `gradient_accumulation_steps` from the model that was prepared last: give both configs the same.
- A real model: `make finetune` fine-tunes SmolLM2-135M-Instruct under ZeRO-3 with Transformers' Trainer.
- Names of DeepSpeed that are not built yet (pipelines, MoE, inference, universal checkpoints, ...) can be imported and raise `NotImplementedError` with the
  feature's name when they are called; `python/compat/deepspeed/_names.py` lists them all.
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        subprocess.run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "tests/python/test_ecosystem.py"], cwd=ROOT, check=False)
        cases = ElementTree.parse(report).getroot().iter("testcase")
        outcomes: dict[str, dict[str, str]] = {}
        for case in cases:
            name, _, parameters = case.attrib["name"].partition("[")
            bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
            outcomes.setdefault(name, {})[parameters.rstrip("]")] = bad[0] if bad else "passed"
    missing = outcomes.keys() - ROWS.keys()
    if missing:
        raise SystemExit(f"tests without a row in this script: {sorted(missing)}")
    rows = []
    for test, (program, what, compared) in ROWS.items():
        found = outcomes.get(test, {})
        good = sum(outcome == "passed" for outcome in found.values())
        versions = version(program) + (f", peft {version('peft')}" if program == "trl" else "")
        rows.append(f"| {program} | {versions} | {what} | {compared} | {', '.join(name or 'one' for name in found)} | {good} of {len(found)} passed |")
    total = sum(len(found) for found in outcomes.values())
    passed = sum(outcome == "passed" for found in outcomes.values() for outcome in found.values())
    PAGE.write_text(TEXT.format(when=datetime.date.today(), machine=f"{os.cpu_count()} cores", python=platform.python_version(), torch=version("torch"),
                                rows="\n".join(rows), sums=f"{passed} of {total} cases passed."))
    print(f"{PAGE.relative_to(ROOT)}: {passed} of {total} passed")


if __name__ == "__main__":
    main()
