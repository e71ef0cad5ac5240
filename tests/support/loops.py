"""One training script, run by the engine on every rank and by plain PyTorch in one process, and the comparison of both.

A script is a function of a Loop. It calls ``backward(loss)`` with a function (model, rank) -> loss and ``step()`` after each micro
step, and may do to the model between them what users do. Plain PyTorch runs the micro-batches of all ranks in rank order.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator

import torch

import hydrofoil

ADAM = {"type": "AdamW", "params": {"lr": 1e-2, "eps": 1e-3, "weight_decay": 0.1}}
LossOf = Callable[[torch.nn.Module, int], torch.Tensor]


def config(stage: int, accumulation: int = 1, optimizer: dict[str, Any] | None = None, **hydrofoil_section: Any) -> dict[str, Any]:
    """Every module its own unit and a short deadline, so that a hang is an error; keyword arguments override the section."""
    section = {"backend": "shm", "unit_min_bytes": 0, "collective_timeout_s": 30.0} | hydrofoil_section
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "optimizer": optimizer or ADAM,
        "gradient_clipping": 0,
        "zero_optimization": {"stage": stage},
        "hydrofoil": section,
    }


class PlainLoop:
    """Plain PyTorch, with the arithmetic of averaging over `world_size` ranks."""

    plain = True

    def __init__(self, model: torch.nn.Module, world_size: int, accumulation: int = 1, optimizer: Any = None) -> None:
        self.model = self.module = model
        self.world_size = world_size
        self.accumulation = accumulation
        self.optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3, weight_decay=0.1)
        self.stage = 0
        self._micro = 0
        self.boundary: bool | None = None
        self.losses: list[float] = []

    def backward(self, loss: LossOf, **kwargs: Any) -> None:
        for rank in range(self.world_size):
            value = loss(self.model, rank)
            (value / (self.world_size * self.accumulation)).backward(**kwargs)
            self.losses.append(value.item())

    def step(self) -> None:
        self._micro += 1
        boundary = self._micro % self.accumulation == 0 if self.boundary is None else self.boundary
        if not boundary:
            return
        for parameter in self.model.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)  # the engine counts a missing gradient as zero
        self.optimizer.step()
        for parameter in self.model.parameters():
            parameter.grad = None

    def clear(self) -> None:
        """Drops the gradients of the window."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def set_boundary(self, boundary: bool | None) -> None:
        self.boundary = boundary

    def no_sync(self) -> Any:
        return contextlib.nullcontext()


class EngineLoop:
    """The engine on this rank, behind the same calls."""

    plain = False

    def __init__(self, model: torch.nn.Module, settings: dict[str, Any]) -> None:
        self.module = model
        self.engine, self.optimizer, _, _ = hydrofoil.initialize(
            model=model, model_parameters=list(model.parameters()), config=settings)
        self.model = self.engine
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()
        self.accumulation = settings["gradient_accumulation_steps"]
        self.stage = settings["zero_optimization"]["stage"]

    def backward(self, loss: LossOf, **kwargs: Any) -> None:
        self.engine.backward(loss(self.model, self.rank), **kwargs)

    def step(self) -> None:
        self.engine.step()

    def clear(self) -> None:
        self.engine.zero_grad()

    def set_boundary(self, boundary: bool | None) -> None:
        self.engine.set_gradient_accumulation_boundary(boundary)

    def no_sync(self) -> Any:
        return self.engine.no_sync()


def full_values(engine: Any) -> dict[str, torch.Tensor]:
    """Full values of all parameters, on every rank."""
    parameters = dict(engine.module.named_parameters())
    with hydrofoil.zero.GatheredParameters(list(parameters.values())):
        return {name: value.detach().clone() for name, value in parameters.items()}


@contextlib.contextmanager
def engine_loop(model: torch.nn.Module, settings: dict[str, Any]) -> Iterator[EngineLoop]:
    """An engine that is destroyed at the end, whatever happens."""
    loop = EngineLoop(model, settings)
    try:
        yield loop
    finally:
        loop.engine.destroy()


def largest_difference(values: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> tuple[float, str]:
    """Of all parameters the largest relative difference (norm of the difference over the norm), and whose it is."""
    assert values.keys() == expected.keys()
    worst, name_of_worst = 0.0, ""
    for name, value in values.items():
        want = expected[name].double()
        assert value.shape == want.shape, name
        difference = (value.double() - want).norm().item() / (want.norm().item() + 1e-12)
        if not difference <= worst:
            worst, name_of_worst = difference, name
    return worst, name_of_worst


def compare(build: Callable[[], torch.nn.Module], script: Callable[[Any], None], settings: dict[str, Any],
            tolerance: float = 2e-6) -> None:
    """Runs the script both ways, on a model that `build` makes from one seed, and fails where parameters differ."""
    torch.manual_seed(0)
    plain = PlainLoop(build(), torch.distributed.get_world_size(), settings["gradient_accumulation_steps"])
    before = {name: value.detach().clone() for name, value in plain.module.named_parameters()}
    plain.stage = settings["zero_optimization"]["stage"]
    script(plain)
    torch.manual_seed(0)
    with engine_loop(build(), settings) as loop:
        script(loop)
        values = full_values(loop.engine)
    expected = {name: value.detach() for name, value in plain.module.named_parameters()}
    worst, name = largest_difference(values, expected)
    assert worst <= tolerance, f"{name} differs from plain PyTorch by {worst:.3g}"
    moved = [name for name, value in expected.items() if value.numel() and not torch.equal(value, before[name])]
    assert moved, "the script trains nothing: it proves nothing"


def inputs(rank: int, step: int, *shape: int) -> torch.Tensor:
    """A batch that rank, step and shape alone decide."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    return torch.randn(*shape, generator=generator)
