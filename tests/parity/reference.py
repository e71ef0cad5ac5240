"""Data-parallel training by plain PyTorch in one process: the ranks' micro-batches one after the other, in rank order.

16-bit models have fp32 masters: gradients are accumulated and averaged in fp32, clipped by their global norm, applied to the
masters, and the masters cast back. Nothing here comes from the engine.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable, Optional

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass
class LossScale:
    """DeepSpeed's DynamicLossScaler, or a constant scale where `dynamic` is false."""

    scale: float = 1.0
    dynamic: bool = False
    window: int = 1000
    min_scale: float = 1.0
    hysteresis: int = 2
    consecutive_hysteresis: bool = False

    def __post_init__(self) -> None:
        self.iteration = 0
        self.last_overflow = -1
        self.left = self.hysteresis

    def update(self, overflow: bool) -> None:
        if not self.dynamic:
            return
        if overflow:
            if self.hysteresis == 1 or self.left == 1:
                self.scale = max(self.scale / 2, self.min_scale)
            else:
                self.left -= 1
            self.last_overflow = self.iteration
        else:
            if self.consecutive_hysteresis:
                self.left = self.hysteresis
            stable = self.iteration - self.last_overflow - 1
            if stable > 0 and stable % self.window == 0:
                if not self.consecutive_hysteresis:
                    self.left = self.hysteresis
                self.scale *= 2
        self.iteration += 1


@dataclasses.dataclass
class History:
    losses: list[list[list[float]]] = dataclasses.field(default_factory=list)  # [step][rank][micro]
    gradients: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)  # of step 1: averaged, not clipped, unscaled
    norms: list[float] = dataclasses.field(default_factory=list)  # before clipping
    scales: list[float] = dataclasses.field(default_factory=list)  # after each step
    lrs: list[list[float]] = dataclasses.field(default_factory=list)  # after each step, by group
    skipped: int = 0
    parameters: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)  # fp32 masters; the model's where frozen


def train(
    model: torch.nn.Module,
    batch: Callable[[int, int, int], tuple[Any, ...]],
    make_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    *,
    dtype: str = "fp32",
    world_size: int = 1,
    accumulation: int = 1,
    clipping: float = 0.0,
    steps: int = 1,
    loss_scale: Optional[LossScale] = None,
    average: bool = True,
    group_of: Callable[[str], int] = lambda name: 0,
    make_scheduler: Optional[Callable[[torch.optim.Optimizer], Any]] = None,
    autocast: Optional[torch.dtype] = None,
    corrupt: Callable[[int, int, int, dict[str, torch.Tensor]], None] = lambda step, micro, rank, gradients: None,
) -> History:
    """`make_optimizer` gets one group a value of `group_of(parameter name)`; `corrupt` may change a micro step's gradients."""
    if dtype != "fp32":
        model.to(DTYPES[dtype])
    scaler = loss_scale or LossScale()
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    masters = {name: torch.nn.Parameter(p.detach().float().clone()) for name, p in names.items()}
    groups = [{"params": [masters[n] for n in names if group_of(n) == g]} for g in sorted({group_of(n) for n in names})]
    optimizer = make_optimizer(groups)
    scheduler = make_scheduler(optimizer) if make_scheduler else None
    history = History()
    for step in range(steps):
        losses = []
        total = {name: torch.zeros_like(m) for name, m in masters.items()}
        for rank in range(world_size):
            losses.append([])
            of_rank = {name: torch.zeros_like(m) for name, m in masters.items()}
            for micro in range(accumulation):
                with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
                    loss = model(*batch(step, micro, rank))
                losses[-1].append(loss.item())
                (loss.float() * scaler.scale).backward()
                gradients = {name: p.grad for name, p in names.items() if p.grad is not None}
                corrupt(step, micro, rank, gradients)
                for name, gradient in gradients.items():
                    of_rank[name] += gradient.float() / accumulation
                model.zero_grad(set_to_none=True)
            for name in total:
                total[name] += of_rank[name]
        history.losses.append(losses)
        _apply(history, model, names, masters, total, optimizer, scheduler, scaler, clipping, world_size if average else 1)
    history.parameters = {
        name: masters[name].detach().clone() if name in masters else p.detach().float().clone() for name, p in model.named_parameters()
    }
    return history


@torch.no_grad()
def _apply(history: History, model: torch.nn.Module, names: dict[str, torch.nn.Parameter], masters: dict[str, torch.nn.Parameter],
           total: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, scheduler: Any, scaler: LossScale, clipping: float,
           divisor: int) -> None:
    for gradient in total.values():
        gradient /= divisor * scaler.scale
    if not history.gradients:
        history.gradients = {name: gradient.clone() for name, gradient in total.items()}
    norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in total.values()))
    history.norms.append(norm)
    overflow = not math.isfinite(norm)
    if overflow:
        history.skipped += 1
    else:
        coefficient = min(1.0, clipping / (norm + 1e-6)) if clipping else 1.0
        for name, master in masters.items():
            master.grad = total[name] * coefficient
        with torch.enable_grad():
            optimizer.step()
        for name, master in masters.items():
            names[name].copy_(master)
            master.grad = None
        if scheduler is not None:
            scheduler.step()
    scaler.update(overflow)
    history.scales.append(scaler.scale)
    history.lrs.append([group["lr"] for group in optimizer.param_groups])
