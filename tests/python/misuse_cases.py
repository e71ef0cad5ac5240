"""Mistakes that would train something else in silence. Run on the ranks by test_misuse.py."""

from __future__ import annotations

import re
from typing import Any, Callable

import pytest
import torch
from torch import nn

import hydrofoil
from tests.python.runtime_gradient_cases import network_loss, train
from tests.python.runtime_models import WIDTH, Network
from tests.support.loops import config, engine_loop, inputs


class Renormed(nn.Module):
    """Its forward writes the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, WIDTH, max_norm=0.5)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(tokens))


def written_in_forward(grad_mode: bool) -> None:
    """Stage 3: the write is lost at the release, so the forward raises; the engine works on once the cause is gone."""
    torch.manual_seed(0)
    tokens = torch.arange(6).view(2, 3)
    with engine_loop(Renormed(), config(3)) as loop:
        with torch.set_grad_enabled(grad_mode), pytest.raises(ValueError, match="embed.weight was written in place.*modifier_rank"):
            loop.model(tokens)
        loop.module.embed.max_norm = None
        for _ in range(2):
            loop.backward(lambda model, rank: model(tokens).pow(2).mean())
            loop.step()


def written_in_forward_without_sharding(stage: int) -> None:
    """Stages 0 to 2 keep the write."""
    torch.manual_seed(0)
    tokens = torch.arange(11)
    with engine_loop(Renormed(), config(stage)) as loop:
        for _ in range(2):
            loop.backward(lambda model, rank: model(tokens).pow(2).mean())
            assert loop.module.embed.weight.norm(dim=1).max() <= 0.5 + 1e-6
            loop.step()


def written_in_recomputation() -> None:
    """A write in the forward of a checkpointed block that runs within backward."""
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 5)
            self.runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            if self.runs == 2:
                with torch.no_grad():
                    self.linear.bias.add_(1.0)
            return self.linear(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(5, 5)
            self.inner = Writes()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.utils.checkpoint.checkpoint(self.inner, self.first(x), use_reentrant=False)

    with engine_loop(Outer(), config(3)) as loop:
        out = loop.model(inputs(loop.rank, 0, 4, 5)).pow(2).mean()
        with pytest.raises(ValueError, match="inner.linear.bias was written in place"):
            loop.engine.backward(out)
            loop.step()


def _differing(rank: int, what: str) -> tuple[Callable[[], nn.Module], dict[str, Any], dict[str, Any], str]:
    """Model, config and arguments of this rank, and what the error says."""
    one = rank == 1
    settings = config(1)
    arguments: dict[str, Any] = {}
    build: Callable[[], nn.Module] = Network
    if what == "lr":
        settings["optimizer"] = {"type": "AdamW", "params": {"lr": 0.02 if one else 0.01}}
        text = "rank 1: got optimizer.params.lr = 0.02, rank 0 has optimizer.params.lr = 0.01"
    elif what == "optimizer":
        settings["optimizer"] = {"type": "Adam" if one else "AdamW", "params": {"lr": 0.01}}
        text = "rank 1: got optimizer.type = "
    elif what == "clipping":
        settings["gradient_clipping"] = 0.5 if one else 1.0
        text = "rank 1: got gradient_clipping = 0.5"
    elif what == "stage":
        settings["zero_optimization"] = {"stage": 3 if one else 2}
        text = "rank 1: got zero_optimization.stage = 3, rank 0 has zero_optimization.stage = 2"
    elif what == "accumulation":
        settings["gradient_accumulation_steps"] = 2 if one else 1
        text = "rank 1: got train_batch_size"
    elif what == "client":
        del settings["optimizer"]
        arguments["optimizer"] = lambda groups: torch.optim.SGD(groups, lr=0.3 if one else 0.1)
        text = r"rank 1: got optimizer SGD .*0.3.*rank 0 has optimizer SGD .*0.1"
    elif what == "group":
        arguments["model_parameters"] = "groups"
        text = r"rank 1: got optimizer AdamW .*0.5"
    elif what == "shape":
        build = (lambda: Network(depth=2)) if one else Network
        text = r"rank 1: got parameter head.weight.*rank 0 has parameter blocks.2"
    elif what == "frozen":
        def build() -> nn.Module:
            model = Network()
            model.head.bias.requires_grad_(not one)
            return model
        text = r"rank 1: got parameter head.bias \[3\] Float, frozen"
    else:
        raise AssertionError(what)
    return build, settings, arguments, text


DIFFERENCES = ("lr", "optimizer", "clipping", "stage", "accumulation", "client", "group", "shape", "frozen")


def ranks_differ(what: str) -> None:
    rank = torch.distributed.get_rank()
    build, settings, arguments, text = _differing(rank, what)
    model = build()
    if arguments.get("model_parameters") == "groups":
        arguments["model_parameters"] = [{"params": list(model.parameters()), "weight_decay": 0.5 if rank == 1 else 0.25}]
    with pytest.raises(hydrofoil.CommError, match="the ranks were given different settings or models") as caught:
        hydrofoil.initialize(model=model, config=settings, **arguments)
    assert re.search(text, str(caught.value)), str(caught.value)


def only_reports_differ() -> None:
    """What a rank prints is its own affair."""
    settings = config(1) | {"steps_per_print": 1 + torch.distributed.get_rank()}
    with engine_loop(Network(), settings) as loop:
        train(loop, 1)


def unscaled_loss(stage: int) -> None:
    """fp16: a plain loss.backward() would bring gradients that the step divides by a scale they never had."""
    settings = config(stage, 2) | {"fp16": {"enabled": True, "initial_scale_power": 6}}

    def norms(with_mistake: bool) -> list[float]:
        torch.manual_seed(0)
        result = []
        with engine_loop(Network(), settings) as loop:
            def loss(step: int) -> torch.Tensor:
                return loop.model(inputs(loop.rank, step, 4, 5).half()).float().pow(2).mean()

            for step in range(6):
                if step % 4 == 0:
                    loop.engine.scale(loss(step)).backward()
                else:
                    loop.engine.backward(loss(step))
                loop.step()
                if with_mistake and step % 2:
                    counters = loop.engine.core.counters
                    loss(step).backward()
                    loop.step()
                    loss(step).backward()
                    with pytest.raises(ValueError, match=r"not multiplied by the loss scale, 64.*engine\.scale\(loss\)"):
                        loop.step()
                    loop.clear()
                    loop.engine.core.load_counters(counters)
                if step % 2:
                    result.append(loop.engine.get_global_grad_norm())
            loop.optimizer.override_loss_scale(1.0)
            loss(6).backward()
            loop.step()
        return result

    assert norms(with_mistake=True) == norms(with_mistake=False)


def written_between_forward_and_backward(stage: int) -> None:
    """With a modifier rank: the backward of the older graph raises on every rank, not on that one alone."""
    with engine_loop(Network(), config(stage)) as loop:
        loss = loop.model(inputs(loop.rank, 0, 4, 5)).pow(2).mean()
        weight = loop.module.blocks[1].up.weight
        with hydrofoil.zero.GatheredParameters([weight], modifier_rank=1):
            if loop.rank == 1:
                with torch.no_grad():
                    weight.mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loop.engine.backward(loss)
        loop.clear()
        train(loop, 1)
        loss = loop.model(inputs(loop.rank, 0, 4, 5)).pow(2).mean()
        with hydrofoil.zero.GatheredParameters([weight], modifier_rank=1):
            float(weight.sum())  # only read: the graph stays good
        loop.engine.backward(loss)
        loop.step()


def autocast_in_fp16(stage: int) -> None:
    """torch_autocast with fp16 scales its loss: gradients below fp16's smallest number survive."""
    settings = config(stage, optimizer={"type": "SGD", "params": {"lr": 0.1}}) | {"torch_autocast": {"enabled": True, "dtype": "float16"}}
    torch.manual_seed(0)
    with engine_loop(Network(), settings) as loop:
        assert loop.engine.loss_scale == 65536.0 and loop.optimizer.dynamic_loss_scale
        loop.engine.backward(loop.model(inputs(loop.rank, 0, 4, 5)).float().pow(2).mean() * 1e-6)
        loop.step()
        norm = loop.engine.get_global_grad_norm()
    torch.manual_seed(0)
    with engine_loop(Network(), config(stage)) as loop:
        loop.engine.backward(loop.model(inputs(loop.rank, 0, 4, 5)).pow(2).mean() * 1e-6)
        loop.step()
        assert norm == pytest.approx(loop.engine.get_global_grad_norm(), rel=0.02)


def losses_through_another_engine(stage: int) -> None:
    """fp16, two models: what the first one's loss brings to the second is dropped with zero_grad, or an error at the step."""
    settings = config(stage) | {"fp16": {"enabled": True, "initial_scale_power": 6}}
    torch.manual_seed(0)
    with engine_loop(nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 5)), settings) as maker, engine_loop(Network(), settings) as judge:
        for step in range(3):
            made = maker.model(inputs(maker.rank, step, 4, 5).half())
            judge.engine.backward(judge.model(made.detach()).float().pow(2).mean())
            judge.step()
            maker.engine.backward(judge.model(made).float().mean())
            maker.step()
            assert maker.engine.was_step_applied() and judge.engine.was_step_applied()
            if step < 2:
                judge.clear()
        with pytest.raises(ValueError, match="not multiplied by the loss scale"):
            judge.step()
        judge.clear()


def unfrozen_without_a_group(stage: int) -> None:
    """A parameter that no optimizer group lists cannot start to train."""
    model = Network()
    model.head.requires_grad_(False)
    listed = [p for p in model.parameters() if p.requires_grad]
    engine, *_ = hydrofoil.initialize(model=model, model_parameters=listed, config=config(stage))
    engine.backward(network_loss(0)(engine, 0))
    engine.step()
    model.head.requires_grad_(True)
    with pytest.raises(ValueError, match="head.weight was made trainable, but it is in no optimizer group"):
        engine(inputs(0, 0, 4, 5))
    model.head.requires_grad_(False)
    engine.backward(network_loss(1)(engine, 0))
    engine.step()
    engine.destroy()


def unfit_clients() -> None:
    """Optimizers that need whole tensors, and one whose state would be lost."""
    for build, text in ((torch.optim.Adafactor, "works on whole tensors"), (torch.optim.SparseAdam, "is not supported"),
                        (torch.optim.LBFGS, "is not supported")):
        with pytest.raises(ValueError, match=f"optimizer {build.__name__} {text}"):
            hydrofoil.initialize(model=Network(), optimizer=lambda groups: build([p for g in groups for p in g["params"]]), config=_client())
    for build, options in ((torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {}), (torch.optim.Adagrad, {})):
        model = Network()
        optimizer = build(model.parameters(), lr=0.1, **options)
        engine, *_ = hydrofoil.initialize(model=model, optimizer=optimizer, config=_client())  # a new one, Adagrad's too
        engine.destroy()
        optimizer = build(model.parameters(), lr=0.1, **options)
        model(inputs(0, 0, 4, 5)).sum().backward()
        optimizer.step()
        with pytest.raises(ValueError, match=f"optimizer {build.__name__} has a state of its own already"):
            hydrofoil.initialize(model=model, optimizer=optimizer, config=_client())


class Wrapping:
    """An optimizer with the interface of torch's, but none of its checks."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups, self.state = groups, {}

    def step(self) -> None:
        raise AssertionError


def listed_twice() -> None:
    """In two groups a parameter would have two learning rates; in one group twice it is the same thing, as in torch."""
    model = Network()
    every = list(model.parameters())
    twice = [{"params": every, "lr": 0.1}, {"params": [model.head.weight], "lr": 0.0}]
    with pytest.raises(ValueError, match="parameter head.weight is in the optimizer groups 0 and 1"):
        hydrofoil.initialize(model=model, model_parameters=twice, config=config(1))
    with pytest.raises(ValueError, match="parameter head.weight is in the optimizer groups 0 and 1"):
        hydrofoil.initialize(model=model, optimizer=Wrapping(twice), config=_client())
    engine, *_ = hydrofoil.initialize(model=model, model_parameters=[{"params": [*every, model.head.weight]}], config=config(1))
    engine.destroy()


def _client() -> dict[str, Any]:
    settings = config(1)
    del settings["optimizer"]
    return settings


def unfit_models() -> None:
    with torch.device("meta"):
        empty = Network()
    for model, text in ((empty, "stem.weight is on the meta device"), (nn.Sequential(nn.LazyLinear(3)), "0.weight of a lazy module"),
                        (torch.jit.script(nn.Linear(3, 3)), r"module \(root\) is a torch.jit.ScriptModule")):
        with pytest.raises(ValueError, match=text):
            hydrofoil.initialize(model=model, config=config(3))


def arguments_are_named() -> None:
    with engine_loop(Network(), config(0)) as loop:
        with pytest.raises(TypeError, match="backward: loss: got NoneType, expected the tensor"):
            loop.engine.backward(None)
        with pytest.raises(ValueError, match=r"parameter stem.weight belongs to an engine already; call destroy\(\)"):
            hydrofoil.initialize(model=loop.module, config=config(0))
        train(loop, 1)
    with pytest.raises(TypeError, match=r"config: zero_optimization.stage: got a Tensor"):
        hydrofoil.initialize(model=Network(), config=config(0) | {"zero_optimization": {"stage": torch.tensor(1)}})
    with pytest.raises(TypeError, match=r"config: optimizer.params.betas\[1\]: got a Tensor"):
        hydrofoil.initialize(model=Network(), config=config(0, optimizer={"type": "Adam", "params": {"betas": [0.9, torch.ones(1)]}}))
