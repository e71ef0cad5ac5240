"""Scripts about boundaries: several forwards and backwards, checkpoints, failures, inference, other ways through the model.

Run on the ranks by test_runtime_boundaries.py.
"""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import Any, Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import hydrofoil
from tests.python.runtime_boundary_models import (
    Boxed,
    CheckpointedAround,
    CheckpointedAroundReentrant,
    CheckpointedInside,
    CheckpointedInsideReentrant,
    CheckpointedSpan,
    CheckpointedSpanReentrant,
    CheckpointedTwice,
    CheckpointedTwiceReentrant,
    GathersInForward,
    HandsParametersOn,
    LeafInputs,
    Nested,
    NoGradientInputs,
    PassesThrough,
    ReturnsNone,
)
from tests.python.runtime_gradient_cases import Case, network_loss, train
from tests.python.runtime_models import WIDTH, Block, Network
from tests.support.loops import compare, config, engine_loop, full_values, inputs, largest_difference

# --- several forwards, several backwards --------------------------------------------------------------------------------


def several_forwards(loop: Any) -> None:
    """Two forwards, one backward over both; a third forward whose graph is dropped."""

    def loss_of(step: int) -> Callable[[Any, int], torch.Tensor]:
        def loss(model: Any, rank: int) -> torch.Tensor:
            first, second = model(inputs(rank, step, 4, 5)), model(inputs(rank, step + 7, 3, 5))
            model(inputs(rank, step + 9, 2, 5))
            return first.pow(2).mean() + second.abs().mean()

        return loss

    train(loop, 3, loss_of)


def several_backwards(loop: Any) -> None:
    """Two losses in one micro step."""
    for step in range(3):
        for micro in range(loop.accumulation):
            loop.backward(network_loss(20 * step + micro))
            loop.backward(network_loss(20 * step + micro + 10))
            loop.step()


def several_forwards_then_backwards(loop: Any) -> None:
    """Both forwards before both backwards."""
    for step in range(3):
        outs = {}

        def first(model: Any, rank: int) -> torch.Tensor:
            outs[rank] = model(inputs(rank, step + 50, 4, 5)).abs().mean()
            return model(inputs(rank, step, 4, 5)).pow(2).mean()

        loop.backward(first)
        loop.backward(lambda model, rank: outs[rank])
        loop.step()


def retained_graph(loop: Any) -> None:
    """Two backwards of one graph."""
    for step in range(3):
        losses: dict[int, torch.Tensor] = {}

        def loss(model: Any, rank: int) -> torch.Tensor:
            losses[rank] = model(inputs(rank, step, 4, 5)).pow(2).mean()
            return losses[rank]

        loop.backward(loss, retain_graph=True)
        loop.backward(lambda model, rank: losses[rank])
        loop.step()


def plain_backward(loop: Any) -> None:
    """loss.backward() in place of engine.backward(loss)."""
    if loop.plain:
        return train(loop, 3)
    for step in range(3):
        for micro in range(loop.accumulation):
            network_loss(100 * step + micro)(loop.model, loop.rank).backward()
            loop.step()


def two_losses_of_one_forward(loop: Any) -> None:
    for step in range(3):
        outs: dict[int, torch.Tensor] = {}

        def first(model: Any, rank: int) -> torch.Tensor:
            outs[rank] = model(inputs(rank, step, 4, 5))
            return outs[rank][:, 0].pow(2).mean()

        loop.backward(first, retain_graph=True)
        loop.backward(lambda model, rank: outs[rank][:, 1].abs().mean())
        loop.step()


# --- accumulation -------------------------------------------------------------------------------------------------------


def boundary_set_by_hand(loop: Any) -> None:
    """Windows of 1, 3 and 2 micro steps, whatever the config says."""
    for window, length in enumerate((1, 3, 2)):
        for micro in range(length):
            loop.set_boundary(micro == length - 1)
            loop.backward(network_loss(100 * window + micro))
            loop.step()
    loop.set_boundary(None)
    train(loop, 1, first=9)


def without_sync(loop: Any) -> None:
    for step in range(3):
        with loop.no_sync():
            loop.backward(network_loss(100 * step))
            loop.backward(network_loss(100 * step + 1))
        loop.backward(network_loss(100 * step + 2))
        loop.step()


def without_sync_until_the_step(loop: Any) -> None:
    for step in range(3):
        with loop.no_sync():
            loop.backward(network_loss(100 * step))
        loop.step()


# --- failures -----------------------------------------------------------------------------------------------------------


class Failure(Exception):
    pass


class FailingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise Failure("backward")


class Fragile(Network):
    """Fails where it is told to."""

    fail = ""

    def run_block(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = block(x)
        if block is self.blocks[1]:
            if self.fail == "forward":
                raise Failure("forward")
            if self.fail == "backward":
                x = FailingBackward.apply(x)
        return x


class FragileBlock(Block):
    """Fails inside a unit, in the middle of its forward or its backward."""

    fail = ""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.up(self.norm(x)))
        if FragileBlock.fail == "forward":
            raise Failure("forward")
        if FragileBlock.fail == "backward":
            y = FailingBackward.apply(y)
        return x + self.down(y)


class FragileInside(Network):
    block_type = FragileBlock

    @property
    def fail(self) -> str:
        return FragileBlock.fail

    @fail.setter
    def fail(self, where: str) -> None:
        FragileBlock.fail = where


def failing(where: str) -> Callable[[Any], None]:
    def script(loop: Any) -> None:
        for step in range(4):
            if step in (0, 2):
                loop.module.fail = where
                with pytest.raises((Failure, RuntimeError), match=where):
                    loop.backward(network_loss(500 + step))
                loop.module.fail = ""
                if loop.plain:
                    loop.clear()
            train(loop, 1, first=step)

    return script


def failing_within_a_window(loop: Any) -> None:
    """The second of three backwards fails: the window starts anew, whether step() is called for the failed one or not."""
    for step in range(4):
        loop.backward(network_loss(700 + step))
        loop.step()
        loop.module.fail = "backward"
        with pytest.raises((Failure, RuntimeError), match="backward"):
            loop.backward(network_loss(800 + step))
        loop.module.fail = ""
        if loop.plain:
            loop.clear()
            loop._micro = 0
        elif step % 2:
            loop.step()
        train(loop, 1, first=step)


# --- inference and other paths ------------------------------------------------------------------------------------------


def inference_between(loop: Any) -> None:
    """no_grad, eval, inference_mode between steps, between micro steps, and with a graph waiting."""
    for step in range(3):
        for micro in range(loop.accumulation):
            with torch.no_grad():
                quiet = loop.model(inputs(0, 77, 2, 5))
            with torch.inference_mode():
                assert torch.equal(loop.model(inputs(0, 77, 2, 5)), quiet)

            def loss(model: Any, rank: int) -> torch.Tensor:
                out = model(inputs(rank, 100 * step + micro, 4, 5))
                model.eval()
                with torch.no_grad():
                    model(inputs(rank, 5, 3, 5))
                model.train()
                return out.pow(2).mean()

            loop.backward(loss)
            loop.step()


class OtherOrder(Network):
    """Evaluates its blocks in another order, and trains so in some steps."""

    order: tuple[int, ...] = (0, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for number in self.order if self.training else (2, 0):
            x = self.blocks[number](x)
        return self.head(x)


def other_order(loop: Any) -> None:
    for step in range(6):
        loop.module.order = [(0, 1, 2), (2, 1, 0), (1,), (0, 1, 2), (0, 0, 2, 1), (0, 1, 2)][step]
        train(loop, 1, first=step)
        if step % 2:
            loop.module.eval()
            with torch.no_grad():
                loop.model(inputs(0, step, 2, 5))
            loop.module.train()


class CrossReader(nn.Module):
    """Blocks and the root read parameters of other units."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, WIDTH)
        self.blocks = nn.ModuleList(ReadingBlock() for _ in range(2))
        self.other = nn.Linear(WIDTH, WIDTH)
        for block in self.blocks:
            block.source = [self.other]  # in a list: no child of the block
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(F.linear(x, torch.eye(WIDTH, 5)), self.other.weight, self.other.bias)
        for block in self.blocks:
            y = block(y)
        return F.linear(self.norm(y) * self.norm.weight, self.embed.weight)


class ReadingBlock(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.tanh(F.linear(x, self.source[0].weight))


class ScaleByModule(torch.autograd.Function):
    """Reads a parameter of another module in its backward, through the module."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: nn.Module) -> torch.Tensor:
        ctx.module = module
        return F.linear(x, module.weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient @ ctx.module.weight.detach(), None


class ReadsInBackward(Network):
    def __init__(self) -> None:
        super().__init__()
        self.lens = nn.Linear(WIDTH, WIDTH, bias=False)

    def run_block(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return block(ScaleByModule.apply(x, self.lens))


class Normed(nn.Module):
    """Parametrized weights: a branch of the graph that starts at parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.blocks = nn.ModuleList(nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.tanh(block(x))
        return x


# --- requires_grad ------------------------------------------------------------------------------------------------------


def freeze_and_unfreeze(loop: Any) -> None:
    train(loop, 2)
    loop.module.blocks[1].requires_grad_(False)
    loop.module.head.bias.requires_grad_(False)
    train(loop, 2, first=2)
    loop.module.blocks[0].up.requires_grad_(False)
    loop.module.blocks[1].up.weight.requires_grad_(True)
    train(loop, 2, first=4)
    loop.module.requires_grad_(True)
    train(loop, 3, first=6)


def freeze_for_a_reference_forward(loop: Any) -> None:
    """PEFT disables adapters so, between a forward and its backward."""

    def loss_of(step: int) -> Callable[[Any, int], torch.Tensor]:
        def loss(model: Any, rank: int) -> torch.Tensor:
            value = network_loss(step)(model, rank)
            loop.module.blocks[1].requires_grad_(False)
            with torch.no_grad():
                network_loss(step)(model, rank)
            loop.module.blocks[1].requires_grad_(True)
            return value

        return loss

    train(loop, 3, loss_of)


def frozen_at_first() -> nn.Module:
    model = Network()
    model.stem.requires_grad_(False)
    model.blocks[0].norm.requires_grad_(False)
    return model


def unfreeze_later(loop: Any) -> None:
    train(loop, 2)
    loop.module.requires_grad_(True)
    train(loop, 3, first=2)


# --- compiled -----------------------------------------------------------------------------------------------------------


def compiled(backend: str, way: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch._dynamo.reset()
        model = Network()
        if way == "method":
            for block in model.blocks:
                block.compile(backend=backend)
        else:
            for number, block in enumerate(model.blocks):
                model.blocks[number] = torch.compile(block, backend=backend)
        return model

    return build


CASES = {
    "several_forwards": Case(several_forwards, accumulation=2),
    "several_backwards": Case(several_backwards),
    "several_backwards_accumulated": Case(several_backwards, accumulation=2),
    "several_forwards_then_backwards": Case(several_forwards_then_backwards),
    "retained_graph": Case(retained_graph),
    "two_losses_of_one_forward": Case(two_losses_of_one_forward),
    "plain_backward": Case(plain_backward, accumulation=2),
    "boundary_set_by_hand": Case(boundary_set_by_hand, accumulation=2),
    "without_sync": Case(without_sync, stages=(0, 1)),
    "without_sync_until_the_step": Case(without_sync_until_the_step, stages=(0, 1)),
    "checkpoint_around": Case(train_two := lambda loop: train(loop, 3), CheckpointedAround, 2),
    "checkpoint_around_reentrant": Case(train_two, CheckpointedAroundReentrant, 2),
    "checkpoint_twice": Case(train_two, CheckpointedTwice, 2),
    "checkpoint_twice_reentrant": Case(train_two, CheckpointedTwiceReentrant, 2),
    "checkpoint_inside": Case(train_two, CheckpointedInside, 2),
    "checkpoint_inside_reentrant": Case(train_two, CheckpointedInsideReentrant, 2),
    "checkpoint_span": Case(train_two, CheckpointedSpan, 2),
    "checkpoint_span_reentrant": Case(train_two, CheckpointedSpanReentrant, 2),
    "checkpoint_reentrant_plain_backward": Case(plain_backward, CheckpointedTwiceReentrant, 2),
    "forward_fails": Case(failing("forward"), Fragile),
    "backward_fails": Case(failing("backward"), Fragile),
    "forward_fails_in_a_unit": Case(failing("forward"), FragileInside),
    "backward_fails_in_a_unit": Case(failing("backward"), FragileInside),
    "inference_between": Case(inference_between, accumulation=2),
    "other_order": Case(other_order, OtherOrder),
    "cross_reader": Case(train_two, CrossReader, 2),
    "reads_in_backward": Case(train_two, ReadsInBackward, 2),
    "weight_norm": Case(train_two, Normed, 2),
    "nested_values": Case(train_two, Nested, 2),
    "returns_none": Case(train_two, ReturnsNone, 2),
    "boxed": Case(train_two, Boxed, 2),
    "hands_parameters_on": Case(train_two, HandsParametersOn, 2),
    "gathers_in_forward": Case(train_two, GathersInForward, 2),
    "fails_within_a_window": Case(failing_within_a_window, Fragile, 3),
    "passes_through": Case(train_two, PassesThrough, 2),
    "no_gradient_inputs": Case(train_two, NoGradientInputs, 2),
    "leaf_inputs": Case(train_two, LeafInputs, 2),
    "freeze_and_unfreeze": Case(freeze_and_unfreeze, accumulation=2),
    "unfreeze_later": Case(unfreeze_later, frozen_at_first),
    "freeze_for_a_reference_forward": Case(freeze_for_a_reference_forward),
    "compiled_by_method_eager": Case(train_two, compiled("eager", "method")),
    "compiled_by_method_aot": Case(train_two, compiled("aot_eager", "method")),
    "compiled_module_eager": Case(train_two, compiled("eager", "module")),
    "compiled_module_aot": Case(train_two, compiled("aot_eager", "module")),
}


def run(name: str, stage: int, **section: Any) -> None:
    case = CASES[name]
    compare(case.build, case.script, config(stage, case.accumulation, **section), case.tolerance)


# --- overlap ------------------------------------------------------------------------------------------------------------


def same_bits(module: str, name: str, stage: int) -> None:
    """Overlap on or off, units small or merged: identical bits.

    Where a parameter gets two gradients in one backward (a reentrant checkpoint called twice), small units reduce them one by one in
    the first step and merged ones together: another order of the same sum, so there only overlap is compared.
    """
    import importlib

    case = importlib.import_module(module).CASES[name]
    results = []
    sections = [{"overlap": True}, {"overlap": False}, {"overlap": True, "unit_min_bytes": 1 << 20}]
    for section in sections[: 2 if name == "checkpoint_twice_reentrant" else 3]:
        torch.manual_seed(0)
        with engine_loop(case.build(), config(stage, case.accumulation, **section)) as loop:
            case.script(loop)
            results.append(full_values(loop.engine))
    for other in results[1:]:
        for key, value in results[0].items():
            assert torch.equal(value, other[key]), key


# --- errors and single facts --------------------------------------------------------------------------------------------


def no_sync_error(stage: int) -> None:
    with engine_loop(Network(), config(stage)) as loop:
        with pytest.raises(ValueError, match="no_sync.*stage"):
            with loop.engine.no_sync():
                pass
        train(loop, 1)


def step_without_backward(stage: int) -> None:
    with engine_loop(Network(), config(stage)) as loop:
        with pytest.raises(ValueError, match="no backward has run since the last step"):
            loop.step()
        train(loop, 1)
        with pytest.raises(ValueError, match="no backward has run since the last step"):
            loop.step()
        train(loop, 1)


def non_boundary_step(stage: int) -> None:
    """A step inside the window changes nothing."""
    with engine_loop(Network(), config(stage, 3)) as loop:
        before = full_values(loop.engine)
        loop.backward(network_loss(0))
        assert not loop.engine.is_gradient_accumulation_boundary()
        loop.step()
        assert not loop.engine.was_step_applied() and loop.engine.global_steps == 0 and loop.engine.micro_steps == 1
        after = full_values(loop.engine)
        assert all(torch.equal(before[name], after[name]) for name in before)


def version_counters(stage: int) -> None:
    """gather and release bump nothing, step does: a graph older than the step raises as in PyTorch."""
    with engine_loop(Network(), config(stage)) as loop:
        parameters = list(loop.module.parameters())
        before = [p._version for p in parameters]
        old = network_loss(0)(loop.model, loop.rank)
        with torch.no_grad():
            loop.model(inputs(0, 0, 2, 5))
        full_values(loop.engine)
        assert [p._version for p in parameters] == before
        loop.backward(network_loss(1))
        assert [p._version for p in parameters] == before
        loop.step()
        assert all(p._version > b for p, b in zip(parameters, before))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loop.engine.backward(old)
        loop.clear()
        train(loop, 1)


def released_access(stage: int) -> None:
    with engine_loop(Network(), config(stage)) as loop:
        weight = loop.module.blocks[1].up.weight
        for touch in (lambda: weight.sum(), lambda: weight.tolist(), lambda: weight.detach().clone(), lambda: weight[0, 0].item(),
                      lambda: F.linear(torch.ones(1, WIDTH), weight), lambda: weight.data.add_(1)):
            with pytest.raises(RuntimeError, match=r"'blocks.1.up.weight' is released.*GatheredParameters"):
                touch()
        assert weight.shape == (17, WIDTH) and weight.numel() == 17 * WIDTH and weight.stride() == (WIDTH, 1)


def boundary_is_transparent(stage: int) -> None:
    """Signature, copies and pickles of a wrapped model."""
    torch.manual_seed(0)
    with engine_loop(Network(), config(stage)) as loop:
        train(loop, 1)
        for module in (loop.module, loop.module.blocks[1]):
            assert list(inspect.signature(module.forward).parameters) == ["x"]
        values = full_values(loop.engine)
        if stage == 3:
            with pytest.raises(RuntimeError, match="is released"):
                copy.deepcopy(loop.module)
            with pytest.raises(RuntimeError, match="is released"):
                pickle.dumps(loop.module)
        with hydrofoil.zero.GatheredParameters(list(loop.module.parameters())):
            twin = copy.deepcopy(loop.module)
            stored = pickle.dumps(loop.module)
            buffer = io.BytesIO()
            torch.save(dict(loop.module.named_parameters()), buffer)
        for other in (twin, pickle.loads(stored)):
            assert type(other._parameters) is dict and type(other.blocks[0].up._parameters) is dict
            assert "forward" not in other.__dict__ or other.forward.__self__ is other
            assert largest_difference(dict(other.named_parameters()), values)[0] == 0.0
            expected = other(inputs(0, 0, 2, 5))
            with torch.no_grad():
                assert torch.equal(loop.model(inputs(0, 0, 2, 5)), expected)
            optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
            expected.sum().backward()
            optimizer.step()
            assert not torch.equal(other.stem.weight, values["stem.weight"])
        assert largest_difference(full_values(loop.engine), values)[0] == 0.0
        train(loop, 1)


def evaluation_on_one_rank(stage: int) -> None:
    """Stages 0-2 gather nothing: one rank may evaluate alone."""
    with engine_loop(Network(), config(stage)) as loop:
        for step in range(3):
            if loop.rank == 0:
                with torch.no_grad():
                    loop.model(inputs(0, 0, 2, 5))
                loop.module.blocks[0](torch.zeros(1, WIDTH))
            train(loop, 1, first=step)
