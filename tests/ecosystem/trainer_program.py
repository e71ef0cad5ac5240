"""A Transformers program as users write them: Trainer with a ds_config. Nothing in it knows Hydrofoil; what it found is printed as JSON.

    hydrofoil run --nproc 2 trainer_program.py --cells CELLS.json
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed


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


def build_adapters(pretrained: str) -> PreTrainedModel:
    """LoRA on a model from a folder, with a head that is trained whole; under stage 3 from_pretrained gives shards."""
    return get_peft_model(AutoModelForCausalLM.from_pretrained(pretrained), LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM"))


def fit(args: TrainingArguments, pretrained: str | None = None, resume: str | None = None) -> dict:
    set_seed(0)
    samples: list[int] = []

    class Counted(Text):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            samples.append(int(index))
            return super().__getitem__(index)

    seen = Seen()
    trainer = Trainer(model=build_adapters(pretrained) if pretrained else build(), args=args, train_dataset=Counted(64, 48), eval_dataset=Text(64, 8), callbacks=[seen])
    trainer.train(resume_from_checkpoint=resume)
    trained = list(samples)
    evaluated = trainer.evaluate()["eval_loss"]
    trainer.save_model(os.path.join(args.output_dir, "final"))
    accelerator = trainer.accelerator
    return {"rank": accelerator.process_index, "ranks": accelerator.num_processes, "type": accelerator.distributed_type.value,
            "engine": type(trainer.model_wrapped).__module__ + "." + type(trainer.model_wrapped).__qualname__,
            "losses": seen.losses, "eval_loss": evaluated, "samples": trained,
            "trained": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)}


def train(cell: dict) -> dict:
    args = TrainingArguments(
        output_dir=cell["output"], deepspeed=cell.get("deepspeed"), per_device_train_batch_size=cell.get("batch", 2), per_device_eval_batch_size=2,
        gradient_accumulation_steps=cell.get("accumulation", 1), max_steps=6, learning_rate=1e-3, logging_steps=1, report_to=[],
        bf16=cell.get("bf16", False), use_cpu=cell.get("use_cpu", False), save_steps=3, save_strategy="steps", max_grad_norm=cell.get("clip", 1.0),
        disable_tqdm=True, lr_scheduler_type="linear", warmup_steps=2, dataloader_pin_memory=False)
    return fit(args, cell.get("pretrained"), cell.get("resume"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", required=True, help="a JSON file: the runs, one after the other in this process")
    for cell in json.loads(Path(parser.parse_args().cells).read_text()):
        print("RESULT " + json.dumps({"cell": cell["name"], **train(cell)}), flush=True)


if __name__ == "__main__":
    main()
