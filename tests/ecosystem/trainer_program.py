"""A Transformers program as users write them: Trainer with a ds_config. Nothing in it knows Hydrofoil; what it found is printed as JSON.

    hydrofoil run --nproc 2 trainer_program.py --output DIR [--deepspeed CONFIG.json] ...
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed


class Text(torch.utils.data.Dataset):
    """Windows of bytes of the licence that every Debian machine has."""

    def __init__(self, length: int, count: int) -> None:
        data = Path("/usr/share/common-licenses/GPL-3").read_bytes()
        self.windows = [torch.tensor(list(data[i * length:(i + 1) * length])) for i in range(count)]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.windows[index], "labels": self.windows[index]}


class Seen(TrainerCallback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self.losses.append(logs["loss"])


def build() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                                        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--deepspeed")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--clip", type=float, default=1.0)
    arguments = parser.parse_args()
    set_seed(0)
    args = TrainingArguments(
        output_dir=arguments.output, deepspeed=arguments.deepspeed, per_device_train_batch_size=arguments.batch, per_device_eval_batch_size=2,
        gradient_accumulation_steps=arguments.accumulation, max_steps=arguments.steps, learning_rate=1e-3, logging_steps=1, report_to=[],
        bf16=arguments.bf16, use_cpu=arguments.bf16 or arguments.deepspeed is None, save_steps=3, save_strategy="steps", max_grad_norm=arguments.clip,
        eval_strategy="no", disable_tqdm=True, lr_scheduler_type="linear", warmup_steps=2)
    model = build()
    seen = Seen()
    samples: list[int] = []
    train_data = Text(64, 48)
    original = train_data.__class__.__getitem__

    class Counted(Text):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            samples.append(int(index))
            return original(self, index)

    trainer = Trainer(model=model, args=args, train_dataset=Counted(64, 48), eval_dataset=Text(64, 8), callbacks=[seen])
    trainer.train(resume_from_checkpoint=True if arguments.resume else None)
    evaluated = trainer.evaluate()["eval_loss"]
    trainer.save_model(os.path.join(arguments.output, "final"))
    accelerator = trainer.accelerator
    print("RESULT " + json.dumps({
        "rank": accelerator.process_index, "ranks": accelerator.num_processes, "type": accelerator.distributed_type.value,
        "engine": type(trainer.model_wrapped).__module__ + "." + type(trainer.model_wrapped).__qualname__,
        "losses": seen.losses, "eval_loss": evaluated, "samples": samples, "device": str(args.device)}), flush=True)


if __name__ == "__main__":
    main()
