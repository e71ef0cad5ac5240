"""What every rank runs for test_parameter_access.py."""

from __future__ import annotations

import gc
import io
from typing import Any

import numpy as np
import torch
from torch import nn

import hydrofoil
from hydrofoil import utils
from hydrofoil.zero import GatheredParameters
from tests.support import models
from tests.support.models import Odd, plain, raises, rank, world_size


def _engine(stage: int, dtype: str = "fp32", seed: int = 0, **more: Any) -> Any:
    return hydrofoil.initialize(model=plain(seed), config=models.config(stage, dtype, **more))[0]


def _rounded(engine: Any) -> None:
    """The masters, rounded, are the parameters."""
    state = models.full_state(engine)
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            master = utils.safe_get_full_fp32_param(parameter)
            assert master.dtype == torch.float32
            assert torch.equal(master.to(parameter.dtype), state[name]), name


# -- GatheredParameters ------------------------------------------------------------------------------------------------
def gathered_reads(stage: int, dtype: str) -> None:
    engine = _engine(stage, dtype)
    cast = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    expected = {n: p.detach().to(cast) for n, p in plain().named_parameters()}
    parameters = dict(engine.module.named_parameters())
    with GatheredParameters((p for p in parameters.values())):  # a generator
        for name, parameter in parameters.items():
            assert torch.equal(parameter.detach(), expected[name]), name
    weight = engine.module.head.weight
    with GatheredParameters([weight, weight]), GatheredParameters(weight):
        with GatheredParameters([engine.module.frozen.weight, weight]):
            assert torch.equal(weight.detach(), expected["embedding.weight"])
        assert torch.equal(weight.detach(), expected["embedding.weight"])
    with GatheredParameters(weight, enabled=False):
        if stage == 3 and world_size() > 1:
            raises(RuntimeError, lambda: weight.sum().item(), "embedding.weight", "is released", "GatheredParameters")
    before = utils.safe_get_full_fp32_param(weight)
    models.train(engine, 1)
    masters = {n: utils.safe_get_full_fp32_param(p) for n, p in parameters.items() if p.requires_grad}
    with GatheredParameters(list(parameters.values()), modifier_rank=0):
        pass
    for name, master in masters.items():  # nothing was written: no master has lost its precision
        assert torch.equal(utils.safe_get_full_fp32_param(parameters[name]), master), name
    assert not torch.equal(masters["embedding.weight"], before)
    engine.destroy()


def gathered_writes(stage: int, dtype: str, modifier: int) -> None:
    engine = _engine(stage, dtype)
    models.train(engine, 1)
    weight, frozen = engine.module.head.weight, engine.module.frozen.weight
    neighbour = engine.module.blocks[0].up.weight
    kept = utils.safe_get_full_fp32_param(neighbour)
    with GatheredParameters([weight, frozen, engine.module.scale], modifier_rank=modifier), torch.no_grad():
        if rank() == modifier:
            weight.fill_(0.5)
            weight[3, 5] = 0.25
            engine.module.scale.fill_(2.5)
        frozen.fill_(float(rank()))
    expected = torch.full((17, 12), 0.5)
    expected[3, 5] = 0.25
    with GatheredParameters([weight, frozen]):
        assert torch.equal(weight.detach().float(), expected)
        assert torch.equal(frozen.detach().float(), torch.full((12, 12), float(modifier)))
    assert torch.equal(utils.safe_get_full_fp32_param(weight), expected)
    assert utils.safe_get_full_fp32_param(engine.module.scale).item() == 2.5
    assert torch.equal(utils.safe_get_full_fp32_param(neighbour), kept)
    _rounded(engine)
    models.train(engine, 1, first=1)
    _rounded(engine)
    moved = (utils.safe_get_full_fp32_param(weight) - expected).abs().max().item()
    assert 0 < moved < 0.05, moved  # the step went on from what was written
    engine.destroy()


def gathered_errors() -> None:
    engine = _engine(3)
    weight = engine.module.head.weight
    first = models.full_state(engine)

    def write() -> None:
        with GatheredParameters(weight), torch.no_grad():
            weight.zero_()

    if world_size() > 1:
        raises(ValueError, write, "modifier_rank", "embedding")

    def fail() -> None:
        with GatheredParameters(weight, modifier_rank=0), torch.no_grad():
            weight.zero_()
            raise KeyError("mine")

    if world_size() > 1:
        raises(KeyError, fail, "mine")
        raises(RuntimeError, lambda: weight.sum().item(), "is released")
        models.assert_equal(models.full_state(engine), first)
    raises(TypeError, lambda: GatheredParameters([weight, "weight"]), "str")
    with GatheredParameters([torch.zeros(3), None, weight]), GatheredParameters(None):  # what is not sharded is left as it is
        assert weight.numel()
    raises(ValueError, lambda: GatheredParameters(weight, modifier_rank=world_size()).__enter__(), "modifier_rank", str(world_size()))
    with GatheredParameters([nn.Parameter(torch.ones(2))], modifier_rank=0) as _:  # an ordinary one: nothing to do
        pass
    models.train(engine, 1)
    engine.destroy()


class Peeking(nn.Module):
    """Reads another unit's parameters inside forward through GatheredParameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = models.Block(), models.Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        with GatheredParameters(list(self.second.parameters())):
            x = x * self.second.up.weight.detach().abs().mean()
        return self.second(x)


def gathered_inside_forward(stage: int) -> None:
    expected = plain(0, Peeking)
    x = torch.randn(3, models.WIDTH, generator=torch.Generator().manual_seed(1))
    engine = hydrofoil.initialize(model=plain(0, Peeking), config=models.config(stage))[0]
    reference = expected(x)
    for _ in range(2):
        out = engine(x)
        assert torch.equal(out, reference)
        engine.backward(out.sum())
    engine.destroy()


# -- released parameters -----------------------------------------------------------------------------------------------
def released_access_is_a_named_error() -> None:
    engine = _engine(3)
    module = engine.module
    weight = module.blocks[1].up.weight
    name = "blocks.1.up.weight"
    state = module.state_dict()

    def save() -> None:
        torch.save(state, io.BytesIO())

    actions = {
        "read": lambda: weight.sum(), "item": lambda: weight[0, 0].item(), "write": lambda: weight.detach().zero_(),
        "data": lambda: weight.data + 1, "data write": lambda: weight.data.copy_(torch.zeros_like(weight)), "add": lambda: weight + weight,
        "radd": lambda: torch.ones(1) - weight, "matmul": lambda: torch.ones(1, 25) @ weight, "clone": lambda: weight.detach().clone(),
        "state_dict": lambda: state[name].sum(), "numpy": lambda: np.asarray(weight.detach().numpy()).sum(), "repr": lambda: repr(weight),
        "list": lambda: weight.tolist(), "data_ptr": lambda: weight.data_ptr(), "cpu": lambda: weight.to(torch.float64),
        "init": lambda: nn.init.normal_(weight), "load": lambda: module.load_state_dict(plain().state_dict()), "save": save,
        "view": lambda: weight.view(-1).sum(), "equal": lambda: torch.equal(weight, weight), "index": lambda: weight[[0, 1]],
        "linear": lambda: nn.functional.linear(torch.ones(2, 12), weight), "deepcopy": lambda: __import__("copy").deepcopy(weight),
        "to dtype": lambda: module.blocks[1].up.to(torch.bfloat16), "grad": lambda: torch.autograd.grad(weight.square().sum(), weight),
    }
    for what, action in actions.items():
        try:
            action()
        except RuntimeError as error:
            expected = ("is released", "GatheredParameters")
            assert all(part in str(error) for part in expected), f"{what}: {error}"
            if what not in ("load", "save"):
                assert name in str(error), f"{what}: {error}"
        else:
            raise AssertionError(f"{what} of a released parameter raised nothing")
    assert weight.shape == (25, 12) and weight.numel() == 300 and weight.dtype == torch.float32 and weight.device.type == "cpu"
    assert weight.stride() == (12, 1) and weight.is_leaf and weight.requires_grad and weight.is_contiguous() and len(weight) == 25
    assert "Linear(in_features=12, out_features=25" in str(module)
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in plain().parameters())
    assert list(state) == list(plain().state_dict())
    models.train(engine, 1)
    with GatheredParameters(weight):
        view = weight.view(-1)
        assert view.sum().item() is not None
    raises(RuntimeError, lambda: view.sum().item(), name, "is released")
    engine.destroy()
    raises(RuntimeError, lambda: weight.sum().item(), name, "GatheredParameters")
    raises(RuntimeError, lambda: view.sum().item(), name)


# -- writes from outside -----------------------------------------------------------------------------------------------
class Log:
    """What the engine logs on standard error."""

    def __enter__(self) -> "Log":
        import os
        import tempfile

        self.file = tempfile.TemporaryFile()
        self.saved = os.dup(2)
        os.dup2(self.file.fileno(), 2)
        return self

    def __exit__(self, *error: Any) -> None:
        import os

        os.dup2(self.saved, 2)
        os.close(self.saved)
        self.file.seek(0)
        self.text = self.file.read().decode()


def load_state_dict(stage: int, dtype: str) -> None:
    """The masters follow before the next step: the run goes on as one that began with these values."""
    other = plain(5)
    cast = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    engine, expected = _engine(stage, dtype), hydrofoil.initialize(model=plain(5), config=models.config(stage, dtype))[0]
    if stage == 3 and world_size() > 1:
        raises(RuntimeError, lambda: engine.module.load_state_dict(other.state_dict()), "is released")
        engine.load_module_state_dict(other.state_dict())
    else:
        engine.module.load_state_dict(other.state_dict())
    tokens = models.batch(3)
    engine.eval(), expected.eval()
    assert torch.equal(engine(tokens), expected(tokens))
    engine.train(), expected.train()
    with Log() as log:
        first = models.train(engine, 3)
    assert first == models.train(expected, 3)
    if not (stage == 3 and world_size() > 1):
        assert ("changed outside the engine" in log.text) is (rank() == 0), log.text
    models.assert_equal(models.full_state(engine), models.full_state(expected))
    for mine, theirs in zip(engine.module.parameters(), expected.module.parameters()):
        assert mine.dtype == cast
        if mine.requires_grad:
            assert torch.equal(utils.safe_get_full_fp32_param(mine), utils.safe_get_full_fp32_param(theirs))
    engine.destroy(), expected.destroy()


def data_writes(stage: int) -> None:
    engine = _engine(stage, "bf16")
    weight = engine.module.head.weight
    if stage == 3 and world_size() > 1:
        with GatheredParameters(weight, modifier_rank=0):
            weight.data.fill_(0.5)
    else:
        weight.data.fill_(0.5)
    engine.optimizer.refresh_fp32_params()
    assert torch.equal(utils.safe_get_full_fp32_param(weight), torch.full((17, 12), 0.5))
    models.train(engine, 1)
    _rounded(engine)
    engine.destroy()


def lost_parameters(stage: int) -> None:
    for what in ("to", "assign", "data"):
        engine = _engine(stage)
        module = engine.module
        released = stage == 3 and world_size() > 1

        def lose() -> None:
            if what == "to":
                module.blocks[0].to(torch.bfloat16)
                module.blocks[0].to(torch.float32)
            elif what == "assign":
                module.load_state_dict(plain(3).state_dict(), assign=True)
            else:
                module.blocks[0].up.weight.data = torch.zeros(25, 12)

        if released and what == "to":
            raises(RuntimeError, lose, "blocks.0", "is released")
            models.train(engine, 1)
        else:
            lose()
            raises(ValueError, lambda: models.train(engine, 1), "initialize")
        engine.destroy()


def destroy(stage: int, gather: bool) -> None:
    engine = _engine(stage)
    models.train(engine, 2)
    expected = models.full_state(engine)
    module = engine.module
    with GatheredParameters(module.head.weight):
        view = module.head.weight.view(-1)[3:]
    weight = module.head.weight
    tokens = models.batch(1)
    module.eval()
    logits = engine(tokens).detach()
    engine.destroy(gather=gather)
    engine.destroy(gather=gather)
    for use in (lambda: engine.step(), lambda: engine.backward(logits.sum()), lambda: engine.zero_grad(),
                lambda: engine.save_checkpoint("/nowhere")):
        raises(ValueError, use, "destroyed")
    engine.memory_report()
    if stage == 3 and not gather and world_size() > 1:
        raises(RuntimeError, lambda: weight.sum().item(), "embedding.weight", "GatheredParameters")
        raises(RuntimeError, lambda: view.sum().item(), "embedding.weight")
        with GatheredParameters(list(module.parameters())):
            models.assert_equal({n: v.detach() for n, v in module.state_dict().items()}, expected)
        return
    if stage == 3 and world_size() > 1:
        raises(RuntimeError, lambda: view.sum().item(), "embedding.weight")
    else:
        assert torch.equal(view, weight.detach().view(-1)[3:])
    models.assert_equal({n: v.detach() for n, v in module.state_dict().items()}, expected)
    assert torch.equal(module(tokens), logits)
    module.train()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)  # as any other model
    models.loss_of(module, tokens).backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    optimizer.step()
    assert not torch.equal(weight.detach(), expected["embedding.weight"])
    module.to(torch.float64)
    state = module.state_dict()
    del engine, module, weight
    gc.collect()
    if stage < 3 or world_size() == 1:
        assert view.sum().item() is not None
    assert state["head.weight"].dtype == torch.float64
