"""Ranks that run different units under `divergent_units: join`, and what plain PyTorch makes of it. Run by test_divergent_units.py."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import hydrofoil
from tests.python.runtime_models import WIDTH, Block
from tests.support.loops import EngineLoop, PlainLoop, config, engine_loop, full_values, inputs, largest_difference

LR = 0.02


@dataclass
class Way:
    """What one rank does in one forward."""

    experts: list[int]
    exit: Optional[int]  # leaves before this block
    recompute: bool

    @staticmethod
    def of(rank: int, step: int) -> "Way":
        draw = random.Random(7919 * step + rank)
        return Way([draw.randrange(4) for _ in range(draw.randrange(4))], draw.choice([None, 0, 1, 2]), draw.random() < 0.2)


class Branching(nn.Module):
    """Experts of which each call takes some, repeated and in any order, and blocks with an early exit."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.experts = nn.ModuleList(Block() for _ in range(4))
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.blocks[1].up.bias.requires_grad_(False)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor, way: Way) -> torch.Tensor:
        x = self.stem(x)
        for number in way.experts:
            x = self.experts[number](x)
        for number, block in enumerate(self.blocks):
            if number == way.exit:
                break
            x = checkpoint(block, x, use_reentrant=False) if way.recompute else block(x)
        return self.head(x)


class Mixture(nn.Module):
    """Each token goes to the expert that its gate prefers; an expert without tokens is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 4)
        self.stem = nn.Linear(5, WIDTH)
        self.experts = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor, _: Any) -> torch.Tensor:
        weights = self.gate(x).softmax(-1)
        chosen = weights.argmax(-1)
        h = self.stem(x)
        out = torch.zeros_like(h)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().flatten()
            if rows.numel():
                out = out.index_add(0, rows, expert(h[rows]) * weights[rows, number, None])
        return self.head(out)


def settings(stage: int, accumulation: int = 1, **own: Any) -> dict[str, Any]:
    result = config(stage, accumulation, {"type": "SGD", "params": {"lr": LR}}, **own)
    result["zero_optimization"]["divergent_units"] = "join"
    return result


def loss_of(model: Any, rank: int, number: int, shape: int = 4) -> torch.Tensor:
    target = inputs(rank, number, shape, 3) * 0.1
    return (model(inputs(rank, number, shape, 5), Way.of(rank, number)) - target).pow(2).mean()


def _run(loop: Any, steps: int, shape: int, between: Callable[[Any, int], None]) -> list[float]:
    """The losses of this rank (of all ranks in rank order, where the loop is plain)."""
    losses = []

    def loss(model: Any, rank: int) -> torch.Tensor:
        value = loss_of(model, rank, number, shape)
        losses.append(value.item())
        return value

    for step in range(steps):
        for micro in range(loop.accumulation):
            number = step * loop.accumulation + micro
            loop.backward(loss)
            loop.step()
        between(loop, step)
    return losses


def _compare(build: Callable[[], nn.Module], steps: int, config_of: dict[str, Any], shape: int = 4,
             between: Callable[[Any, int], None] = lambda loop, step: None) -> None:
    """Losses and parameters are those of plain PyTorch, where a missing gradient is zero."""
    torch.manual_seed(0)
    model = build()
    size = torch.distributed.get_world_size()
    plain = PlainLoop(model, size, config_of["gradient_accumulation_steps"], torch.optim.SGD(model.parameters(), lr=LR))
    expected = _run(plain, steps, shape, lambda loop, step: None)
    torch.manual_seed(0)
    with engine_loop(build(), config_of) as loop:
        losses = _run(loop, steps, shape, between)
        values = full_values(loop.engine)
        own = expected[loop.rank::size]
    for step, (got, want) in enumerate(zip(losses, own)):
        assert abs(got - want) <= 1e-4 * (abs(want) + 1e-3), f"loss {step}: got {got}, plain PyTorch has {want}"
    worst, name = largest_difference(values, dict(model.named_parameters()))
    assert worst <= 1e-4, f"{name} differs from plain PyTorch by {worst:.3g}"


def random_branches(stage: int, steps: int, accumulation: int = 1, **own: Any) -> None:
    _compare(Branching, steps, settings(stage, accumulation, **own))


def mixture(stage: int) -> None:
    _compare(Mixture, 30, settings(stage), shape=3)


def other_calls_between() -> None:
    """What ranks do between steps does not disturb the others: forwards of one rank alone, whole state dicts, a checkpoint's gather."""

    def between(loop: Any, step: int) -> None:
        if loop.rank == step % loop.world_size:
            with torch.no_grad():
                loop.model(inputs(0, step, 2, 5), Way([3, 1], None, False))
        if step % 5 == 0:
            loop.engine.module_state_dict()
        if step % 7 == 0:
            weight = loop.module.experts[2].up.weight
            with hydrofoil.zero.GatheredParameters([weight], modifier_rank=1):
                pass

    _compare(Branching, 40, settings(3), between=between)


def collective_of_the_user() -> None:
    """A collective between forward and backward finds every rank out of its forward."""
    with engine_loop(Branching(), settings(3)) as loop:
        for step in range(20):
            loss = loss_of(loop.model, loop.rank, step)
            mean = loss.detach().clone()
            torch.distributed.all_reduce(mean)
            loop.engine.backward(loss)
            loop.step()


class Interrupted(Exception):
    pass


def exception_in_forward(stage: int) -> None:
    """A rank whose forward fails half-way and is run again ends with what plain PyTorch has."""
    failing = {"at": -1}

    class Failing(Branching):
        def forward(self, x: torch.Tensor, way: Way) -> torch.Tensor:
            if failing["at"] == 1:
                self.head(self.experts[0](self.stem(x)))
                raise Interrupted()
            return super().forward(x, way)

    def between(loop: Any, step: int) -> None:
        if step % 3 != loop.rank:
            return
        failing["at"] = 1
        try:
            loss_of(loop.model, loop.rank, step)
        except Interrupted:
            failing["at"] = -1
            return
        raise AssertionError("nothing was raised")

    _compare(Failing, 12, settings(stage), between=between)


def _error_of(body: Callable[[], None], limit_s: float) -> str:
    start = time.monotonic()
    try:
        body()
    except hydrofoil.CommError as error:
        took = time.monotonic() - start
        assert took < limit_s, f"the error came after {took:.1f} s: {error}"
        return str(error)
    raise AssertionError("no CommError was raised")


def exception_in_backward() -> str:
    """A rank whose backward fails half-way and goes on has reduced another number of units: all ranks learn of it."""

    def fail(_: torch.Tensor) -> None:
        raise Interrupted()

    with engine_loop(Branching(), settings(3, collective_timeout_s=60.0)) as loop:
        way = Way([0, 1], None, False)

        def step(broken: bool) -> None:
            out = loop.model(inputs(loop.rank, 0, 4, 5), way)
            if broken:
                hooked = loop.module.experts[0].up.weight.register_hook(fail)
                try:
                    loop.engine.backward(out.pow(2).mean())
                except Interrupted:
                    pass
                finally:
                    hooked.remove()
                return
            loop.engine.backward(out.pow(2).mean())
            loop.step()

        step(False)
        step(False)
        return _error_of(lambda: [step(loop.rank == 0), step(False), step(False)] and None, 20.0)


def one_rank_steps_less() -> str:
    """A rank that leaves a step out waits in another place than the others: not a unit, so an error."""
    with engine_loop(Branching(), settings(3, collective_timeout_s=60.0)) as loop:

        def body() -> None:
            for step in range(3):
                loop.engine.backward(loss_of(loop.model, loop.rank, step))
                if loop.rank != 0 or step != 1:
                    loop.step()

        return _error_of(body, 20.0)


def one_rank_leaves() -> str:
    loop = EngineLoop(Branching(), settings(3, collective_timeout_s=60.0))
    if loop.rank == 0:
        loop.engine.destroy()
        return ""
    message = _error_of(lambda: loop.model(inputs(1, 0, 4, 5), Way([1], None, False)) and None, 20.0)
    loop.engine.destroy()
    return message


def checkpoint_files(directory: str) -> None:
    with engine_loop(Branching(), settings(3)) as loop:
        for step in range(4):
            loop.engine.backward(loss_of(loop.model, loop.rank, step))
            loop.step()
            if loop.rank == 0:
                with torch.no_grad():
                    loop.model(inputs(0, step, 2, 5), Way([step], None, False))
            loop.engine.save_checkpoint(directory, tag=f"at{step}")
        before = full_values(loop.engine)
        loop.engine.backward(loss_of(loop.model, loop.rank, 9))
        loop.step()
        loop.engine.load_checkpoint(directory, tag="at3")
        after = full_values(loop.engine)
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert (Path(directory) / "at0").is_dir()
