"""A loop with Accelerate: prepare, accumulate, clip_grad_norm_, save_state and load_state, get_state_dict; --teacher: beside a second, frozen model."""

from __future__ import annotations

import argparse
import json
import os

import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.utils import set_seed
from torch import nn


TEACHER = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 2, "zero_optimization": {"stage": 3}}


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 33), nn.Tanh(), nn.Linear(33, 17), nn.Tanh(), nn.Linear(17, 1))


class Points(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
        self.y = self.x.sin().sum(1, keepdim=True)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        return index, self.x[index], self.y[index]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--stage", type=int)
    parser.add_argument("--config")
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--plugin-from-launcher", action="store_true")
    parser.add_argument("--teacher", action="store_true")
    arguments = parser.parse_args()
    plugins = None
    if not arguments.plain and not arguments.plugin_from_launcher:
        plugin = DeepSpeedPlugin(hf_ds_config=arguments.config) if arguments.config else DeepSpeedPlugin(
            zero_stage=arguments.stage, gradient_accumulation_steps=arguments.accumulation, gradient_clipping=0.1, zero3_save_16bit_model=True)
        plugins = {"student": plugin, "teacher": DeepSpeedPlugin(hf_ds_config=TEACHER)} if arguments.teacher else plugin
    accelerator = Accelerator(deepspeed_plugins=plugins, gradient_accumulation_steps=arguments.accumulation, cpu=arguments.plain)
    set_seed(0)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    loader = torch.utils.data.DataLoader(Points(), batch_size=4, shuffle=False)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    teacher = build()
    if arguments.teacher:
        accelerator.state.select_deepspeed_plugin("teacher")
        teacher = accelerator.prepare(teacher)
        accelerator.state.select_deepspeed_plugin("student")
    teacher.eval()
    losses, samples, rates = [], [], []

    def epoch() -> None:
        for index, x, y in loader:
            samples.extend(index.tolist())
            with accelerator.accumulate(model):
                loss = nn.functional.mse_loss(model(x), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            losses.append(accelerator.gather(loss.detach().reshape(1)).mean().item())
            rates.append(optimizer.param_groups[0]["lr"])

    epoch()
    first = list(losses)
    accelerator.save_state(os.path.join(arguments.output, "state"))
    losses.clear()
    epoch()
    after_save = list(losses)
    losses.clear()
    accelerator.load_state(os.path.join(arguments.output, "state"))
    epoch()
    state = accelerator.get_state_dict(model)
    with torch.no_grad():
        taught = teacher(torch.ones(1, 8)).item()
    engine = type(model).__module__ + "." + type(model).__qualname__
    print("RESULT " + json.dumps({
        "rank": accelerator.process_index, "ranks": accelerator.num_processes, "type": accelerator.distributed_type.value, "engine": engine,
        "losses": first, "after_save": after_save, "after_load": losses, "samples": samples[:16],
        "state": None if not state else sorted(state), "sum": None if not state else float(sum(v.double().abs().sum() for v in state.values())),
        "rates": rates[:8], "teacher": type(teacher).__qualname__, "taught": taught}), flush=True)


if __name__ == "__main__":
    main()
