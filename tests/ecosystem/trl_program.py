"""TRL's SFT, DPO, KTO, GRPO and reward trainers for a few steps, --lora by PEFT with the base frozen."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from small_language_model import build_config, build_model, build_tokenizer, lines
from transformers import LlamaForSequenceClassification, TrainerCallback, set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer


class Seen(TrainerCallback):
    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self.logs.append({key: float(value) for key, value in logs.items() if key in ("loss", "reward", "rewards/margins", "rewards/chosen", "accuracy", "margin")})


def train(cell: dict) -> dict:
    unset_hf_deepspeed_config()  # the cell's before: as long as its cycles live, models are built sharded
    set_seed(0)
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer))
    text = lines()
    common = dict(output_dir=cell["output"], deepspeed=cell.get("deepspeed"), per_device_train_batch_size=2, max_steps=4, learning_rate=1e-3, logging_steps=1,
                  report_to=[], use_cpu=cell.get("deepspeed") is None, bf16=False, save_strategy="no", disable_tqdm=True, gradient_checkpointing=False,
                  dataloader_pin_memory=False)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM") if cell.get("lora") else None
    seen = Seen()
    shared = dict(model=model, processing_class=tokenizer, peft_config=lora, callbacks=[seen])
    if cell["trainer"] == "sft":
        data = Dataset.from_list([{"text": line} for line in text[:64]])
        trainer = SFTTrainer(args=SFTConfig(max_length=64, **common), train_dataset=data, **shared)
    elif cell["trainer"] == "dpo":
        data = Dataset.from_list([{"prompt": a[:20], "chosen": a[20:], "rejected": b} for a, b in zip(text[:32], text[32:64])])
        trainer = DPOTrainer(args=DPOConfig(max_length=64, **common), train_dataset=data, ref_model=None if lora else build_copy(model, len(tokenizer)), **shared)
    elif cell["trainer"] == "kto":
        data = Dataset.from_list([{"prompt": line[:20], "completion": line[20:], "label": bool(i % 2)} for i, line in enumerate(text[:32])])
        trainer = KTOTrainer(args=KTOConfig(max_length=64, **common), train_dataset=data, ref_model=build_copy(model, len(tokenizer)), **shared)
    elif cell["trainer"] == "reward":
        data = Dataset.from_list([{"chosen": a, "rejected": b} for a, b in zip(text[:32], text[32:64])])
        shared["model"] = LlamaForSequenceClassification(build_config(len(tokenizer), num_labels=1))
        trainer = RewardTrainer(args=RewardConfig(max_length=64, **common), train_dataset=data, **shared)
    else:
        data = Dataset.from_list([{"prompt": line[:20]} for line in text[:32]])
        trainer = GRPOTrainer(args=GRPOConfig(max_completion_length=8, num_generations=2, **common), train_dataset=data,
                              reward_funcs=lambda completions, **_: [float(sum(map(ord, c)) % 17) for c in completions], **shared)
    trainer.train()
    accelerator = trainer.accelerator
    return {"rank": accelerator.process_index, "ranks": accelerator.num_processes, "type": accelerator.distributed_type.value,
            "engine": type(trainer.model_wrapped).__module__ + "." + type(trainer.model_wrapped).__qualname__, "logs": seen.logs,
            "trained": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", required=True, help="a JSON file: the runs, one after the other in this process")
    for cell in json.loads(Path(parser.parse_args().cells).read_text()):
        print("RESULT " + json.dumps({"cell": cell["name"], **train(cell)}), flush=True)


def build_copy(model, vocabulary):
    copy = build_model(vocabulary)
    copy.load_state_dict(model.state_dict())
    return copy


if __name__ == "__main__":
    main()
