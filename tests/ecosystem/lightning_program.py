"""A LightningModule trained by Trainer: --stage N with DeepSpeedStrategy, without it with DDP; saved, and resumed from its checkpoint."""

from __future__ import annotations

import argparse
import json
import os
import warnings

import lightning
import torch
from torch import nn

from hydrofoil.lightning import CPUDeepSpeedStrategy

warnings.filterwarnings("ignore")


class Points(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.x = torch.randn(48, 8, generator=torch.Generator().manual_seed(1))
        self.y = self.x.sin().sum(1, keepdim=True)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index]


class Regression(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 33), nn.Tanh(), nn.Linear(33, 17), nn.Tanh(), nn.Linear(17, 1))
        self.losses: list[float] = []
        self.engine = ""

    def training_step(self, batch, number):
        x, y = batch
        loss = nn.functional.mse_loss(self.layers(x).float(), y.float())
        self.losses.append(loss.item())
        self.engine = f"{type(self.trainer.model).__module__}.{type(self.trainer.model).__qualname__}"
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def fit(stage, output: str, epochs: int, checkpoint=None):
    lightning.seed_everything(0, verbose=False)
    model = Regression()
    strategy = "ddp" if stage is None else CPUDeepSpeedStrategy(stage=stage, logging_batch_size_per_gpu=4)
    trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy=strategy, max_epochs=epochs, default_root_dir=output, logger=False,
                                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=0.5)
    loader = torch.utils.data.DataLoader(Points(), batch_size=4, shuffle=False)
    trainer.fit(model, loader, ckpt_path=checkpoint)
    return model, trainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--stage", type=int)
    arguments = parser.parse_args()
    model, trainer = fit(arguments.stage, arguments.output, 2)
    path = os.path.join(arguments.output, "saved.ckpt")
    first, trainer_2 = fit(arguments.stage, arguments.output, 1)
    trainer_2.save_checkpoint(path)
    resumed, _ = fit(arguments.stage, arguments.output, 2, path)
    print("RESULT " + json.dumps({"rank": trainer.global_rank, "ranks": trainer.world_size, "engine": model.engine, "losses": model.losses,
                                  "first": first.losses, "resumed": resumed.losses}), flush=True)


if __name__ == "__main__":
    main()
