"""Scripts about gradients: what users do to them, and parameters of every kind. Run on the ranks by test_runtime_gradients.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import pytest
import torch
from torch import nn

import hydrofoil
from tests.python.runtime_models import Block, Network, Odd, Routed, Tied
from tests.support.loops import compare, config, engine_loop, inputs


def network_loss(step: int, shape: tuple[int, ...] = (4, 5)) -> Callable[[Any, int], torch.Tensor]:
    return lambda model, rank: model(inputs(rank, step, *shape)).pow(2).mean()


def train(loop: Any, steps: int, loss: Callable[[int], Callable[[Any, int], torch.Tensor]] = network_loss, first: int = 0) -> None:
    """`steps` optimizer steps."""
    for step in range(first, first + steps):
        for micro in range(loop.accumulation):
            loop.backward(loss(100 * step + micro))
            loop.step()


def tokens(rank: int, step: int) -> torch.Tensor:
    return torch.randint(0, 11, (2, 3), generator=torch.Generator().manual_seed(1000 * step + rank))


def tied_loss(step: int) -> Callable[[Any, int], torch.Tensor]:
    return lambda model, rank: model(tokens(rank, step)).pow(2).mean()


# --- scripts ------------------------------------------------------------------------------------------------------------


def plain_training(loop: Any) -> None:
    train(loop, 4)


def tied_training(loop: Any) -> None:
    train(loop, 4, tied_loss)


def odd_training(loop: Any) -> None:
    train(loop, 4, lambda step: lambda model, rank: model(inputs(rank, step, 6, 4 if step >= 0 else 0)[:, :4]))


def zero_grad_between_steps(loop: Any) -> None:
    for step in range(4):
        loop.module.zero_grad(set_to_none=True)
        for micro in range(loop.accumulation):
            loop.backward(network_loss(10 * step + micro))
            loop.step()
        loop.module.zero_grad(set_to_none=True)


def zero_grad_drops_a_window(loop: Any) -> None:
    """Dropped with the engine's zero_grad: works at every stage."""
    for step in range(3):
        loop.backward(network_loss(100 + step))
        loop.clear()
        for micro in range(loop.accumulation):
            loop.backward(network_loss(10 * step + micro))
            loop.step()


def lost_between_micro_steps(loop: Any) -> None:
    """model.zero_grad(set_to_none=True) after the first micro step: what it brought is gone."""
    for step in range(3):
        for micro in range(loop.accumulation):
            loop.backward(network_loss(10 * step + micro))
            if micro == 0:
                loop.module.zero_grad(set_to_none=True)
            loop.step()


def lost_for_one_parameter(loop: Any) -> None:
    for step in range(3):
        for micro in range(loop.accumulation):
            loop.backward(network_loss(10 * step + micro))
            if micro == 0:
                loop.module.blocks[1].up.weight.grad = None
                loop.module.stem.bias.grad.zero_()
                loop.module.head.bias.grad.mul_(3.0)
            loop.step()


def assigned_before_backward(loop: Any) -> None:
    for step in range(3):
        for parameter in (loop.module.blocks[0].up.weight, loop.module.head.bias):
            parameter.grad = torch.full(parameter.shape, 0.01 * (step + 1))
        train(loop, 1, first=step)


def assigned_to_an_unused_parameter(loop: Any) -> None:
    for step in range(3):
        parameter = loop.module.experts[2].up.weight
        parameter.grad = torch.full(parameter.shape, 0.02)
        loop.backward(lambda model, rank: model(inputs(rank, step, 4, 5), [0, 1], [True] * 6).pow(2).mean())
        loop.step()


def assigned_after_backward(loop: Any) -> None:
    """Stages 0 and 1 take it at the step."""
    for step in range(3):
        loop.backward(network_loss(step))
        for parameter in (loop.module.blocks[0].up.weight, loop.module.head.bias):
            parameter.grad = torch.full(parameter.shape, 0.03)
        loop.step()


def dropped_after_backward(loop: Any) -> None:
    for step in range(3):
        loop.backward(network_loss(step))
        loop.module.blocks[0].up.weight.grad = None
        loop.step()


def clipped_by_the_user(loop: Any) -> None:
    for step in range(3):
        loop.backward(network_loss(step))
        torch.nn.utils.clip_grad_norm_(loop.module.parameters(), 0.05)
        loop.step()


def scaled_between_backwards(loop: Any) -> None:
    for step in range(3):
        loop.backward(network_loss(2 * step))
        for parameter in loop.module.parameters():
            parameter.grad.mul_(0.5)
        loop.backward(network_loss(2 * step + 1))
        loop.step()


def gradient_penalty(loop: Any) -> None:
    """autograd.grad(create_graph=True) in the loss, then backward."""

    def loss_of(step: int) -> Callable[[Any, int], torch.Tensor]:
        def loss(model: Any, rank: int) -> torch.Tensor:
            x = inputs(rank, step, 4, 5).requires_grad_()
            out = model(x).sum()
            (gradient,) = torch.autograd.grad(out, x, create_graph=True)
            return (gradient.norm(dim=1) - 1.0).pow(2).mean() + model(inputs(rank, step + 50, 4, 5)).pow(2).mean()

        return loss

    train(loop, 3, loss_of)


def plain_input_gradient(loop: Any) -> None:
    """autograd.grad beside training leaves no trace."""
    for step in range(3):
        x = inputs(0, step, 4, 5).requires_grad_()
        (gradient,) = torch.autograd.grad(loop.model(x).sum(), x)
        assert gradient.abs().sum() > 0
        train(loop, 1, first=step)


def backward_with_create_graph(loop: Any) -> None:
    for step in range(3):
        for micro in range(loop.accumulation):
            loop.backward(network_loss(10 * step + micro), create_graph=True)
            loop.step()


def penalty_on_own_gradients(loop: Any) -> None:
    """backward(create_graph=True), then a second backward through `.grad`."""
    for step in range(3):
        parameter = loop.module.blocks[1].up.weight
        if loop.plain:
            total = None
            for rank in range(loop.world_size):
                loop.clear()
                (network_loss(step)(loop.model, rank)).backward(create_graph=True)
                (parameter.grad.pow(2).sum()).backward()
                parts = [p.grad.detach().clone() / loop.world_size for p in loop.module.parameters()]
                total = parts if total is None else [a + b for a, b in zip(total, parts)]
            for p, gradient in zip(loop.module.parameters(), total):
                p.grad = gradient
        else:
            loop.backward(network_loss(step), create_graph=True)
            assert parameter.grad.requires_grad
            loop.engine.backward(parameter.grad.pow(2).sum())
        loop.step()


def routed_loss(experts: Callable[[int, int], list[int]], paths: Callable[[int, int], list[bool]]) -> Any:
    return lambda step: lambda model, rank: model(inputs(rank, step, 4, 5), experts(step, rank), paths(step, rank)).pow(2).mean()


def unused_in_some_steps(loop: Any) -> None:
    train(loop, 6, lambda step: routed_loss(lambda s, r: [[0, 1, 2, 3], [2], [3, 1], [0, 1, 2, 3], [], [1]][s // 100 % 6],
                                            lambda s, r: [(s // 100 + i) % 3 > 0 for i in range(6)])(step))


def unused_on_one_rank(loop: Any) -> None:
    """Units run everywhere (stage 3 needs that), parts of them get no gradient on some ranks only."""
    train(loop, 8, lambda step: routed_loss(lambda s, r: [0, 1, 2, 3],
                                            lambda s, r: [(s // 100 * 7 + i * 5 + r * 3) % 4 > 1 for i in range(6)])(step))


def diverging_after_agreement(loop: Any) -> None:
    """Early steps use nothing of the second path, later ones all of it on one rank and none on the other."""
    train(loop, 6, lambda step: routed_loss(lambda s, r: [0, 1, 2, 3],
                                            lambda s, r: [s // 100 >= 2 and (r + s // 100 + i) % 2 == 0 for i in range(6)])(step))


def used_twice(loop: Any) -> None:
    train(loop, 4, lambda step: routed_loss(lambda s, r: [1, 0, 1, 1], lambda s, r: [True] * 6)(step))


def no_gradient_at_all_on_one_rank(loop: Any) -> None:
    """The last rank's loss reaches no parameter."""
    last = loop.world_size - 1

    def loss_of(step: int) -> Callable[[Any, int], torch.Tensor]:
        def loss(model: Any, rank: int) -> torch.Tensor:
            out = model(inputs(rank, step, 4, 5)).pow(2).mean()
            if rank == last and step == 100:
                return out.detach() + torch.zeros(1, requires_grad=True).sum()
            return out

        return loss

    train(loop, 3, loss_of)


def frozen_part(loop: Any) -> None:
    train(loop, 4)


# --- models that need a twist --------------------------------------------------------------------------------------------


def frozen_network() -> nn.Module:
    model = Network()
    model.blocks[0].requires_grad_(False)
    model.blocks[1].up.weight.requires_grad_(False)
    model.stem.requires_grad_(False)
    return model


def bfloat16_part() -> nn.Module:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(5, 12)
            self.blocks = nn.ModuleList([Block(), Block()])
            self.gain = nn.Parameter(torch.ones(12, dtype=torch.bfloat16), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x * self.gain)
            return x

    return Mixed()


@dataclass
class Case:
    script: Callable[[Any], None]
    build: Callable[[], nn.Module] = Network
    accumulation: int = 1
    stages: tuple[int, ...] = (0, 1, 2, 3)
    tolerance: float = 2e-6


CASES = {
    "plain": Case(plain_training),
    "plain_accumulated": Case(plain_training, accumulation=3),
    "tied": Case(tied_training, Tied),
    "tied_accumulated": Case(tied_training, Tied, accumulation=2),
    "tied_by_attribute": Case(tied_training, lambda: Tied(shared_head=False), accumulation=2),
    "sparse_embedding": Case(tied_training, lambda: Tied(sparse=True, shared_head=False), accumulation=2),
    # bf16 inside: products are rounded to 8 bits, and the engine keeps an fp32 master of the bf16 parameter.
    "odd": Case(odd_training, Odd, accumulation=2, tolerance=1e-2),
    "frozen": Case(frozen_part, frozen_network, accumulation=2),
    "mixed_dtypes": Case(plain_training, bfloat16_part),
    "zero_grad_between_steps": Case(zero_grad_between_steps, accumulation=2),
    "zero_grad_drops_a_window": Case(zero_grad_drops_a_window, accumulation=2),
    "lost_between_micro_steps": Case(lost_between_micro_steps, accumulation=3),
    "lost_for_one_parameter": Case(lost_for_one_parameter, accumulation=2, stages=(0, 1)),
    "assigned_before_backward": Case(assigned_before_backward),
    "assigned_before_backward_accumulated": Case(assigned_before_backward, accumulation=2),
    "assigned_to_an_unused_parameter": Case(assigned_to_an_unused_parameter, Routed),
    "assigned_after_backward": Case(assigned_after_backward),
    "dropped_after_backward": Case(dropped_after_backward),
    "clipped_by_the_user": Case(clipped_by_the_user, stages=(0,)),
    "scaled_between_backwards": Case(scaled_between_backwards, stages=(0,)),
    "gradient_penalty": Case(gradient_penalty),
    "plain_input_gradient": Case(plain_input_gradient, accumulation=2),
    "create_graph": Case(backward_with_create_graph, accumulation=2),
    "penalty_on_own_gradients": Case(penalty_on_own_gradients),
    "unused_in_some_steps": Case(unused_in_some_steps, Routed),
    "unused_in_some_steps_accumulated": Case(unused_in_some_steps, Routed, accumulation=2),
    "unused_on_one_rank": Case(unused_on_one_rank, Routed),
    "diverging_after_agreement": Case(diverging_after_agreement, Routed),
    "used_twice": Case(used_twice, Routed, accumulation=2),
    # At stage 3 the backward gathers: a rank cannot leave it out (see unit_on_one_rank).
    "no_gradient_at_all_on_one_rank": Case(no_gradient_at_all_on_one_rank, stages=(0, 1, 2)),
}


def run(name: str, stage: int, **section: Any) -> None:
    case = CASES[name]
    compare(case.build, case.script, config(stage, case.accumulation, **section), case.tolerance)


# --- errors --------------------------------------------------------------------------------------------------------------


def sharded_gradient(stage: int) -> None:
    """After the reduction a rank holds only its slice, and reading `.grad` says so; before (stage 1), it is the local gradient."""
    with engine_loop(Network(), config(stage, 2)) as loop:
        loop.backward(network_loss(0))
        if stage == 1:
            torch.nn.utils.clip_grad_norm_(loop.module.parameters(), 1.0)
        loop.step()
        loop.backward(network_loss(1))
        with pytest.raises(RuntimeError, match="gradient was reduced: under ZeRO stages 1 to 3.*safe_get_full_grad"):
            torch.nn.utils.clip_grad_norm_(loop.module.parameters(), 1.0)
        weight = loop.module.blocks[0].up.weight
        assert hydrofoil.utils.safe_get_full_grad(weight).norm() > 0
        loop.step()
        train(loop, 1)


def unsupported_dtype(stage: int) -> None:
    class Double(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good = nn.Linear(3, 3)
            self.wide = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.good(x) * self.wide).sum()

    with pytest.raises(ValueError, match="wide.*(Double|float64)"):
        hydrofoil.initialize(model=Double(), config=config(stage))
