"""Ranks that part ways, and engines that come and go. Run on the ranks by test_runtime_order.py and test_runtime_lifecycle.py."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import hydrofoil
from tests.python.runtime_gradient_cases import network_loss, train
from tests.python.runtime_models import WIDTH, Network, Routed, Tied
from tests.support.loops import ADAM, EngineLoop, PlainLoop, config, engine_loop, full_values, inputs, largest_difference


def _error_of(body: Any, limit_s: float) -> str:
    """The message of the CommError that body() raises, within the limit; also from inside backward."""
    start = time.monotonic()
    with pytest.raises(hydrofoil.CommError) as caught:
        body()
    took = time.monotonic() - start
    assert took < limit_s, f"the error came after {took:.1f} s: {caught.value}"
    return str(caught.value)


def unit_on_one_rank(backend: str, on_rank: int) -> str:
    """One rank runs an expert that the others do not."""
    with engine_loop(Routed(), config(3, backend=backend, collective_timeout_s=60.0)) as loop:

        def step(experts: list[int]) -> None:
            loop.engine.backward(loop.model(inputs(loop.rank, 0, 4, 5), experts, [True] * 6).pow(2).mean())
            loop.step()

        step([0, 1])
        return _error_of(lambda: step([0, 3, 1] if loop.rank == on_rank else [0, 1]), 15.0)


def extra_unit_at_the_end(backend: str) -> str:
    """One rank gathers a unit more when the others have gone on to reduce."""
    with engine_loop(Network(), config(3, backend=backend, collective_timeout_s=60.0)) as loop:
        train(loop, 1)

        def body() -> None:
            out = loop.model(inputs(loop.rank, 0, 4, 5))
            if loop.rank == 0:
                with torch.no_grad():
                    loop.module.blocks[1](torch.zeros(1, WIDTH))
            loop.engine.backward(out.pow(2).mean())
            loop.step()

        return _error_of(body, 20.0)


def other_order_on_one_rank(backend: str) -> str:
    class Ordered(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            for number in self.order:
                x = self.blocks[number](x)
            return self.head(x)

    model = Ordered()
    model.order = (0, 1, 2)
    with engine_loop(model, config(3, backend=backend, collective_timeout_s=60.0)) as loop:
        train(loop, 1)
        model.order = (0, 1, 2) if loop.rank == 0 else (1, 0, 2)
        return _error_of(lambda: train(loop, 1), 15.0)


def one_backward_more(stage: int) -> str:
    """One rank reduces once more where the others step."""
    with engine_loop(Network(), config(stage, collective_timeout_s=60.0)) as loop:
        train(loop, 1)

        def body() -> None:
            loop.backward(network_loss(1))
            if loop.rank == 0:
                loop.backward(network_loss(2))
            loop.step()

        return _error_of(body, 20.0)


def one_rank_raises(backend: str, stage: int) -> str:
    """A rank that leaves the step with an exception of its own: the others learn who did not arrive, at the deadline."""
    with engine_loop(Network(), config(stage, backend=backend, collective_timeout_s=2.0)) as loop:
        train(loop, 1)
        if loop.rank == 1:
            loop.model(inputs(1, 0, 4, 5))
            time.sleep(5.0)  # alive, and elsewhere
            return ""
        return _error_of(lambda: train(loop, 1), 9.0)


def only_one_rank_steps(backend: str) -> str:
    with engine_loop(Network(), config(1, backend=backend, collective_timeout_s=2.0)) as loop:
        train(loop, 1)
        loop.backward(network_loss(1))
        if loop.rank == 1:
            time.sleep(5.0)
            return ""
        return _error_of(loop.step, 9.0)


# --- several engines ----------------------------------------------------------------------------------------------------


def alternating(stages: list[int]) -> None:
    """Engines of several stages take turns, forwards and backwards interleaved; each equals its plain model."""

    def build(number: int) -> nn.Module:
        torch.manual_seed(number)
        return Network(depth=2 + number)

    loops: list[Any] = [EngineLoop(build(number), config(stage)) for number, stage in enumerate(stages)]
    plains: list[Any] = [PlainLoop(build(number), loops[0].world_size) for number in range(len(stages))]
    for step in range(3):
        outs = [loop.model(inputs(loop.rank, step, 4, 5)).pow(2).mean() for loop in loops]
        for loop, out in zip(reversed(loops), reversed(outs)):
            loop.engine.backward(out)
        for loop in loops:
            loop.step()
        for plain in plains:
            plain.backward(network_loss(step))
            plain.step()
    for loop, plain in zip(loops, plains):
        expected = dict(plain.module.named_parameters())
        assert largest_difference(full_values(loop.engine), expected)[0] < 2e-6
        loop.engine.destroy()


def adversaries(stage: int) -> None:
    """A generator and a discriminator, as a GAN trains them: each backward of one runs through the other."""

    def build() -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 5)), Network(depth=2)

    size = torch.distributed.get_world_size()
    generator, critic = (EngineLoop(model, config(stage)) for model in build())
    plain_generator, plain_critic = (PlainLoop(model, size) for model in build())
    for g, d in ((generator, critic), (plain_generator, plain_critic)):
        for step in range(3):
            d.clear()
            d.backward(lambda model, rank: model(inputs(rank, step, 6, 5)).pow(2).mean()
                       - model(g.model(inputs(rank, step + 50, 6, 4)).detach()).pow(2).mean())
            d.step()
            g.backward(lambda model, rank: d.model(model(inputs(rank, step + 90, 6, 4))).pow(2).mean())
            d.clear()
            g.step()
    for loop, plain in ((generator, plain_generator), (critic, plain_critic)):
        expected = dict(plain.module.named_parameters())
        worst, name = largest_difference(full_values(loop.engine), expected)
        assert worst < 2e-6, (name, worst)
        loop.engine.destroy()


# --- the end of an engine -----------------------------------------------------------------------------------------------


def _state_of(model: nn.Module) -> Any:
    """What an engine changes in a model, as far as Python sees it."""
    return [(name, sorted(module.__dict__), type(module._parameters), module.__dict__.get("forward"), len(module._forward_hooks),
             len(module._forward_pre_hooks), len(module._backward_hooks)) for name, module in model.named_modules()]


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def built_and_destroyed(stage: int, times: int) -> None:
    """Memory, threads, files and hooks return; the model is an ordinary one that trains by itself."""

    class Wide(Network):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Linear(512, 512)  # 1 MiB: 50 engines that kept theirs would show

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + self.wide(torch.ones(1, 512))[:, :3]

    torch.manual_seed(0)
    model = Wide()
    before = _state_of(model)
    marks = []
    for number in range(times):
        loop = EngineLoop(model, config(stage))
        train(loop, 1)
        loop.engine.destroy(gather=True)
        assert _state_of(model) == before
        assert all(p.grad is None and not hasattr(p, "_hydrofoil_engine") for p in model.parameters())
        del loop
        if number in (times // 5, times - 1):
            gc.collect()  # only here: a full collection takes a second on a busy machine
            marks.append((_resident_bytes(), threading.active_count(), len(os.listdir("/proc/self/task")),
                          len(os.listdir("/proc/self/fd"))))
    grown = marks[1][0] - marks[0][0]
    assert grown < 8 << 20, f"resident memory grew by {grown / 2**20:.1f} MiB"
    assert marks[1][2] <= marks[0][2] + 4, f"threads: {marks[0][2]}, then {marks[1][2]}"
    assert marks[1][3] <= marks[0][3] + 8, f"open files: {marks[0][3]}, then {marks[1][3]}"
    # No hook of the engine is left: a plain step moves every parameter.
    old = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(inputs(0, 0, 4, 5)).pow(2).mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.step()
    assert all(not torch.equal(p, old[name]) for name, p in model.named_parameters())


def reinitialised(stages: list[int], backend: str) -> None:
    """One model under one engine after another, each ended by a plain destroy(): nothing is lost, and threads go with the engines."""
    torch.manual_seed(0)
    model, plain = Tied(), None
    threads = []
    for number, stage in enumerate(stages):
        own = {"backend": backend, "unit_min_bytes": 0 if number % 2 else 1 << 20}
        loop = EngineLoop(model, config(stage, **own))
        if plain is not None:  # what the first engine learned is here, and trains on as a model with these values does
            torch.testing.assert_close(full_values(loop.engine), dict(plain.named_parameters()), rtol=0, atol=0)
        twin = Tied()
        twin.load_state_dict(full_values(loop.engine), strict=False)
        tokens = torch.arange(8).reshape(2, 4) + loop.rank
        losses = []
        for trained in (loop, twin_loop := EngineLoop(twin, config(stage, **own))):
            for _ in range(2):
                loss = trained.model(tokens).pow(2).mean()
                trained.engine.backward(loss)
                trained.step()
                losses.append(loss.item())
        assert losses[:2] == losses[2:], losses
        values = full_values(loop.engine)
        twin_loop.engine.destroy()
        loop.engine.destroy()
        plain = Tied()
        plain.load_state_dict(values, strict=False)
        if stage == 3 and loop.world_size > 1:
            weight = model.blocks[0].up.weight
            with pytest.raises(RuntimeError, match="is released.*GatheredParameters"):
                weight.sum()
            with pytest.raises(ValueError, match="without a modifier_rank"), hydrofoil.zero.GatheredParameters(weight):
                with torch.no_grad():
                    weight.add_(1.0)
            both = [model.blocks[1].up.weight, model.blocks[1].up.bias]
            with hydrofoil.zero.GatheredParameters([weight, *both], modifier_rank=1), torch.no_grad():
                assert torch.equal(weight, values["blocks.0.up.weight"])
                for parameter in both:
                    parameter.add_(1.0 if loop.rank == 1 else 5.0)
            with torch.no_grad():
                plain.blocks[1].up.weight.add_(1.0)
                plain.blocks[1].up.bias.add_(1.0)
        del loop, twin_loop, twin, trained
        gc.collect()
        threads.append(len(os.listdir("/proc/self/task")))
    assert threads[-1] <= threads[1] + 2, threads
    gone = weakref.ref(model.blocks[0].up.weight)
    weight = both = parameter = loss = model = None
    gc.collect()
    assert gone() is None, "the shards hold the model"
    hydrofoil.comm.close_left_groups()


def used_after_destroy(stage: int) -> None:
    loop = EngineLoop(Network(), config(stage))
    train(loop, 1)
    old = loop.model(inputs(0, 0, 4, 5)).pow(2).mean()
    weight = loop.module.blocks[0].up.weight
    view = weight[0]
    values = full_values(loop.engine)
    loop.engine.destroy()
    loop.engine.destroy()
    for call in (loop.step, loop.engine.zero_grad, lambda: loop.engine.backward(torch.ones((), requires_grad=True) * 2),
                 lambda: loop.engine.set_gradient_accumulation_boundary(True), lambda: loop.engine.no_sync().__enter__()):
        with pytest.raises(ValueError, match="destroyed"):
            call()
    if stage == 3:
        with pytest.raises(RuntimeError, match="is released"):
            weight.sum()
        with pytest.raises(RuntimeError, match="is released"):
            old.backward()
    else:
        assert torch.equal(view, values["blocks.0.up.weight"][0])
        old.backward()  # a graph of the engine's time: the parameters are ordinary now
        assert weight.grad is not None
        del loop
        gc.collect()
        assert torch.equal(weight, values["blocks.0.up.weight"])


def dropped_without_destroy(stage: int) -> None:
    """An engine that is only forgotten leaves a model that works (stages 0-2)."""
    loop = EngineLoop(Network(), config(stage))
    train(loop, 1)
    model = loop.module
    del loop
    gc.collect()
    model(inputs(0, 0, 4, 5)).sum().backward()


def view_outlives_the_engine() -> None:
    """A view of a parameter, made inside GatheredParameters, is guarded after the release and after destroy: never wild memory."""
    loop = EngineLoop(Network(), config(3))
    weight = loop.module.blocks[0].up.weight
    with hydrofoil.zero.GatheredParameters([weight]):
        view = weight[3]
        copy = view.detach().clone()
        assert torch.equal(view, copy)
    with pytest.raises(RuntimeError, match="is released"):
        view.sum()
    with hydrofoil.zero.GatheredParameters([weight]):
        assert torch.equal(view, copy)
    loop.engine.destroy()
    del loop, weight
    gc.collect()
    with pytest.raises(RuntimeError, match="is released"):
        view.sum()
