"""Optimizers and schedules by name, for the engine and for the plain reference alike."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Callable, Optional

import torch

from tests.parity import cases, settings


class Lion(torch.optim.Optimizer):
    """arXiv 2302.06675, algorithm 2."""

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * (average * beta1 + p.grad * (1 - beta1)).sign())
                average.mul_(beta2).add_(p.grad, alpha=1 - beta2)


class Users(torch.optim.Optimizer):
    """An optimizer that no library knows: momentum on a square-root-compressed gradient."""

    def __init__(self, params: Any, lr: float, decay: float = 0.8, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["trend"] = torch.zeros_like(p)
                state["trend"].mul_(group["decay"]).add_(p.grad.sign() * p.grad.abs().sqrt() + group["weight_decay"] * p)
                p.sub_(group["lr"] * state["trend"])


_ADAM = {"lr": 5e-3, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.1}

# Config section -> plain torch with the same hyperparameters.
CONFIG: dict[str, tuple[dict[str, Any], Callable[[Any], torch.optim.Optimizer]]] = {
    "adamw": ({"type": "AdamW", "params": _ADAM}, lambda g: torch.optim.AdamW(g, **_ADAM)),
    "adam_is_adamw": ({"type": "Adam", "params": _ADAM}, lambda g: torch.optim.AdamW(g, **_ADAM)),
    "adam_l2": ({"type": "Adam", "params": {**_ADAM, "adam_w_mode": False}}, lambda g: torch.optim.Adam(g, **_ADAM)),
    "sgd": ({"type": "SGD", "params": {"lr": 0.1}}, lambda g: torch.optim.SGD(g, lr=0.1)),
    "sgd_momentum": ({"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}},
                     lambda g: torch.optim.SGD(g, lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.01)),
    "sgd_nesterov": ({"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9, "nesterov": True}},
                     lambda g: torch.optim.SGD(g, lr=0.05, momentum=0.9, nesterov=True)),
    "adagrad": ({"type": "Adagrad", "params": {"lr": 0.05, "eps": 1e-8, "weight_decay": 0.01}},
                lambda g: torch.optim.Adagrad(g, lr=0.05, eps=1e-8, weight_decay=0.01)),
    "lion": ({"type": "Lion", "params": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.1}},
             lambda g: Lion(g, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)),
    "torch_by_name": ({"type": "Adamax", "params": {"lr": 5e-3, "weight_decay": 0.01}},
                      lambda g: torch.optim.Adamax(g, lr=5e-3, weight_decay=0.01)),
}

CLIENT: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda g: torch.optim.AdamW(g, **_ADAM),
    "sgd": lambda g: torch.optim.SGD(g, lr=0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda g: torch.optim.RMSprop(g, lr=1e-3, momentum=0.5, centered=True, eps=1e-4),
    "users": lambda g: Users(g, lr=1e-3),
    "adagrad": lambda g: torch.optim.Adagrad(g, lr=0.05, initial_accumulator_value=0.1),
    "adadelta": lambda g: torch.optim.Adadelta(g, lr=0.5),
    "nadam": lambda g: torch.optim.NAdam(g, lr=2e-3),
}

# Optimizers that read whole tensors: stage 0 only.
WHOLE: dict[str, Callable[[Any], torch.optim.Optimizer]] = {"adafactor": lambda g: torch.optim.Adafactor(g, lr=5e-3)}

SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "step": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6),
    "one_cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=12),
    "lambda": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step)),
}


def train_stages(case: settings.Case, steps: int, config: Optional[dict[str, Any]] = None, client: str = "",
                 scheduler: str = "", stages: tuple[int, ...] = (0, 1, 2, 3)) -> list[dict[str, Any]]:
    """One result a stage; `client` and `scheduler` are names in CLIENT and SCHEDULERS."""
    return [
        cases.train(dataclasses.replace(case, stage=stage), steps, config=config, make_optimizer={**CLIENT, **WHOLE}[client] if client else None,
                    make_scheduler=SCHEDULERS[scheduler] if scheduler else None, with_gradients=bool(case.accumulation))
        for stage in stages
    ]


def scheduler_warnings(client: str) -> list[str]:
    """What torch warns of in three steps under a torch scheduler."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_stages(settings.Case(), 3, client=client, scheduler="step", stages=(1,))
    return [str(warning.message) for warning in caught]


def rates_of_two_groups(client: bool, scheduler: dict[str, Any], steps: int) -> list[list[float]]:
    """Learning rates under a schedule of the config, of a group with a learning rate of its own and of one without."""
    import hydrofoil
    from tests.parity import models

    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = models.build("plain")
    parameters = list(model.parameters())
    groups = [{"params": parameters[:2], "lr": 0.02}, {"params": parameters[2:]}]
    config = settings.config(settings.Case(), size, native=not client) | {"scheduler": scheduler}
    if client:
        engine = hydrofoil.initialize(model=model, optimizer=torch.optim.SGD(groups, lr=0.01), config=config)[0]
    else:
        engine = hydrofoil.initialize(model=model, model_parameters=groups,
                                      config=config | {"optimizer": {"type": "SGD", "params": {"lr": 0.01}}})[0]
    rates = []
    for step in range(steps):
        engine.backward(engine(*models.batch(step, 0, rank)))
        engine.step()
        rates.append(engine.get_lr())
    engine.destroy()
    return rates


def client_over_scheduler(stage: int, steps: int) -> list[list[float]]:
    """Learning rates where both the optimizer and its scheduler are the user's objects, made before initialize."""
    import hydrofoil
    from tests.parity import models

    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = models.build("plain")
    client = CLIENT["sgd"](list(model.parameters()))
    schedule = SCHEDULERS["step"](client)
    engine, _, _, returned = hydrofoil.initialize(model=model, optimizer=client, lr_scheduler=schedule,
                                                  config=settings.config(settings.Case(stage=stage), size, native=False))
    assert returned is schedule
    rates = []
    for step in range(steps):
        engine.backward(engine(*models.batch(step, 0, rank)))
        engine.step()
        rates.append(engine.get_lr())
    engine.destroy()
    return rates
