#!/usr/bin/env python3
"""Fine-tunes a pretrained causal language model with Transformers' Trainer under ZeRO-3. Nothing in it knows Hydrofoil.

    hydrofoil run --nproc 2 finetune.py --model FOLDER [--data FILE_OR_FOLDER] [--steps 60] [--out runs/finetune]

The text is cut into windows of --length tokens; every tenth window is held out. Without --data it is the language reference that comes
with Python (pydoc's topics). Prints the held-out loss and a sample before and after, and saves the model for from_pretrained.
`make finetune` runs it on SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.utils import logging


class Windows(torch.utils.data.Dataset):
    def __init__(self, windows: list[torch.Tensor]) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.windows[index], "labels": self.windows[index]}


def read_text(path: Path | None) -> str:
    if path is None:
        from pydoc_data.topics import topics

        return "\n\n".join(topics.values())
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    text = "\n\n".join(p.read_text(errors="ignore") for p in files)
    if not text.strip():
        raise SystemExit(f"--data {path}: there is no text in it")
    return text


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--data", type=Path, help="text to train on, a file or a folder")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--deepspeed", type=Path, default=Path(__file__).with_name("ds_config.json"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=1, help="windows of a rank and micro step")
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--length", type=int, default=256, help="tokens of a window")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--fp32", action="store_true", help="train in fp32 in place of bf16")
    parser.add_argument("--prompt", default="The with statement is used to")
    return parser.parse_args()


def sample(model: torch.nn.Module, tokenizer, prompt: str) -> str:
    """A greedy continuation. All ranks generate: under stage 3 each token gathers the model's units."""
    inputs = tokenizer(prompt, return_tensors="pt").to(next(model.parameters()).device)
    was_training = model.training
    with torch.no_grad():
        tokens = model.eval().generate(**inputs, max_new_tokens=40, do_sample=False, synced_gpus=True, pad_token_id=tokenizer.eos_token_id)
    model.train(was_training)
    return tokenizer.decode(tokens[0], skip_special_tokens=True)


class Report(TrainerCallback):
    """A sample before the first step; Trainer evaluates there too (eval_on_start)."""

    def __init__(self, tokenizer, prompt: str) -> None:
        self.tokenizer, self.prompt, self.told_before, self.losses = tokenizer, prompt, "", []

    def on_train_begin(self, args, state, control, model=None, **_):
        self.told_before = sample(model, self.tokenizer, self.prompt)
        self.started = time.monotonic()

    def on_evaluate(self, args, state, control, metrics=None, **_):
        self.losses.append(metrics["eval_loss"])
        if state.global_step == 0:
            self.started = time.monotonic()
            if state.is_world_process_zero:
                tell("before", self.losses[0], self.told_before)


def tell(when: str, loss: float, text: str) -> None:
    print(f"{when}: held-out loss {loss:.4f} nats a token (perplexity {math.exp(loss):.2f})\n  {text!r}", flush=True)


def main() -> None:
    arguments = parse_arguments()
    logging.set_verbosity_warning()
    args = TrainingArguments(
        output_dir=str(arguments.out), deepspeed=str(arguments.deepspeed), bf16=not arguments.fp32, use_cpu=not torch.cuda.is_available(),
        max_steps=arguments.steps, per_device_train_batch_size=arguments.batch, per_device_eval_batch_size=arguments.batch,
        gradient_accumulation_steps=arguments.accumulation, learning_rate=arguments.lr, warmup_steps=min(5, arguments.steps), lr_scheduler_type="cosine",
        weight_decay=0.01, logging_steps=5, eval_on_start=True, save_strategy="no", report_to=[], disable_tqdm=False, dataloader_pin_memory=torch.cuda.is_available())
    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model)  # under stage 3 it is built sharded
    ids = tokenizer(read_text(arguments.data), return_tensors="pt", verbose=False).input_ids[0]
    windows = list(ids[: len(ids) // arguments.length * arguments.length].view(-1, arguments.length))
    if len(windows) < 20:
        raise SystemExit(f"the text has {len(ids)} tokens, {len(windows)} windows of {arguments.length}; at least 20 are needed")
    held_out = windows[::10][:16]
    report = Report(tokenizer, arguments.prompt)
    trainer = Trainer(model=model, args=args, train_dataset=Windows([w for i, w in enumerate(windows) if i % 10]), eval_dataset=Windows(held_out),
                      callbacks=[report])
    say = print if trainer.is_world_process_zero() else (lambda *_: None)
    say(f"{arguments.model}: {sum(getattr(p, 'ds_numel', p.numel()) for p in model.parameters()) / 1e6:.1f} M parameters; {len(windows)} windows of "
        f"{arguments.length} tokens, {len(held_out)} held out to measure; {args.world_size} ranks, {trainer.accelerator.distributed_type.value}")
    trainer.train()
    seconds = time.monotonic() - report.started
    after = trainer.evaluate()["eval_loss"]
    told_after = sample(trainer.model, tokenizer, arguments.prompt)
    trainer.save_model()
    tokenizer.save_pretrained(arguments.out)
    if trainer.is_world_process_zero():
        tell(f"after {arguments.steps} steps, {seconds:.0f} s", after, told_after)
        results = {"before": report.losses[0], "after": after, "sample_before": report.told_before, "sample_after": told_after, "steps": arguments.steps,
                   "seconds": seconds, "engine": f"{type(trainer.model_wrapped).__module__}.{type(trainer.model_wrapped).__qualname__}",
                   "ranks": args.world_size}
        (arguments.out / "report.json").write_text(json.dumps(results, indent=2) + "\n")
        print(f"the model is in {arguments.out}: AutoModelForCausalLM.from_pretrained({str(arguments.out)!r}) reads it")


if __name__ == "__main__":
    main()
