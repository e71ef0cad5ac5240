"""What every rank runs for test_client_optimizer.py: optimizers of the user's under the engine, and after it."""

from __future__ import annotations

from typing import Any, Callable

import pytest
import torch
from torch import nn

import hydrofoil
from tests.python.access_cases import Log
from tests.python.runtime_gradient_cases import network_loss
from tests.python.runtime_models import Network
from tests.support.loops import PlainLoop, config, largest_difference

MAKE: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "adamw": lambda params: torch.optim.AdamW(params, lr=1e-2, eps=1e-3),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.05, initial_accumulator_value=0.1),
}


def _network() -> nn.Module:
    torch.manual_seed(0)
    return Network()


def _config(stage: int, **more: Any) -> dict[str, Any]:
    settings = config(stage) | more
    del settings["optimizer"]
    return settings


def _engine(stage: int, name: str, **more: Any) -> tuple[Any, torch.optim.Optimizer]:
    model = _network()
    client = MAKE[name](model.parameters())
    return hydrofoil.initialize(model=model, optimizer=client, config=_config(stage, **more))[0], client


def _train(engine: Any, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        engine.backward(network_loss(step)(engine, torch.distributed.get_rank()))
        engine.step()


def _train_plainly(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0, clip: float = 0.0) -> list[float]:
    loop = PlainLoop(model, torch.distributed.get_world_size(), optimizer=optimizer)
    norms = []
    for step in range(first, first + steps):
        loop.backward(network_loss(step))
        if clip:
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip).item())
        loop.step()
    return norms


def _values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_parameters()}


def _assert_same(model: nn.Module, expected: nn.Module) -> None:
    worst, name = largest_difference(_values(model), _values(expected))
    assert worst <= 2e-6, f"{name} differs from plain PyTorch by {worst:.3g}"


def clipped_by_hand() -> None:
    """Stage 0: clip_grad_norm_ over optimizer.param_groups works at every step, as in a plain loop."""
    plain = _network()
    expected = _train_plainly(plain, MAKE["adamw"](plain.parameters()), 4, clip=0.01)
    engine, client = _engine(0, "adamw")
    norms = []
    for step in range(4):
        engine.backward(network_loss(step)(engine, torch.distributed.get_rank()))
        assert engine.optimizer.param_groups[0] is client.param_groups[0]
        norms.append(nn.utils.clip_grad_norm_([p for group in engine.optimizer.param_groups for p in group["params"]], 0.01).item())
        engine.step()
        assert engine.get_global_grad_norm() == pytest.approx(0.01, rel=1e-4)
    assert norms == pytest.approx(expected, rel=1e-5)
    _assert_same(engine.module, plain)
    engine.destroy()


def groups_list_the_models_parameters(stage: int) -> None:
    """Before, between and after whatever works on the shards, also where that raises."""
    model = _network()
    parameters = list(model.parameters())
    client = torch.optim.AdamW([{"params": parameters[:1]}, {"params": parameters[1:]}], lr=0.01)
    engine, optimizer, _, _ = hydrofoil.initialize(model=model, optimizer=client, config=_config(stage))
    groups = client.param_groups

    def check() -> None:
        assert client.param_groups is groups is optimizer.param_groups
        assert [[id(p) for p in group["params"]] for group in groups] == [[id(p) for p in parameters[:1]], [id(p) for p in parameters[1:]]]

    check()
    for step in range(2):
        _train(engine, 1, first=step)
        check()
    state = optimizer.state_dict()
    # A rank may own nothing of so small a model.
    assert state["state"]["client"] or not engine.core.client_shards()
    check()
    optimizer.load_state_dict(state)
    check()
    hydrofoil.utils.safe_get_full_optimizer_state(parameters[0], "exp_avg")
    check()

    def fails(*_: Any) -> None:
        raise RuntimeError("the user's hook")

    handle = client.register_step_post_hook(fails)
    with pytest.raises(RuntimeError, match="the user's hook"):
        _train(engine, 1, first=2)
    check()
    handle.remove()
    groups.append({**groups[0], "params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ValueError, match="laid out in initialize"):
        _train(engine, 1, first=3)
    groups.pop()
    engine.destroy()
    check()


def goes_on_plainly(stage: int, name: str, gather: bool) -> None:
    """Some steps under the engine, destroy, some without it: plain PyTorch all along."""
    plain = _network()
    optimizer = MAKE[name](plain.parameters())
    _train_plainly(plain, optimizer, 6)
    engine, client = _engine(stage, name)
    model = engine.module
    _train(engine, 3)
    with Log() as log:
        engine.destroy(gather=gather)
        engine.destroy()
    assert log.text == "", log.text
    _train_plainly(model, client, 3, first=3)
    _assert_same(model, plain)
    assert len(client.state_dict()["state"]) == len(optimizer.state_dict()["state"])
    client.load_state_dict(optimizer.state_dict())


def untouched_state_stays() -> None:
    """Adagrad has a state from its start: it is there after an engine that made no step."""
    engine, client = _engine(2, "adagrad")
    engine.destroy()
    assert len(client.state) == len(list(engine.module.parameters()))
    plain = _network()
    _train_plainly(plain, MAKE["adagrad"](plain.parameters()), 2)
    _train_plainly(engine.module, client, 2)
    _assert_same(engine.module, plain)


def states_of_slices_are_dropped() -> None:
    """Stage 1: no parameter has its state on one rank, so the optimizer goes on as a new one, and a line says so."""
    engine, client = _engine(1, "adamw")
    model = engine.module
    _train(engine, 3)
    with Log() as log:
        engine.destroy()
    assert log.text.count("states of optimizer AdamW") == (torch.distributed.get_rank() == 0), log.text
    assert not client.state
    plain = _network()
    plain.load_state_dict(model.state_dict())
    _train_plainly(plain, MAKE["adamw"](plain.parameters()), 2, first=3)
    _train_plainly(model, client, 2, first=3)
    _assert_same(model, plain)


def states_get_the_dtype_of_the_parameters() -> None:
    engine, client = _engine(0, "adamw", bf16={"enabled": True})
    model = engine.module
    for step in range(2):
        engine.backward(engine(torch.ones(4, 5, dtype=torch.bfloat16)).float().pow(2).mean())
        engine.step()
    engine.destroy()
    for parameter in model.parameters():
        state = client.state[parameter]
        assert state["exp_avg"].dtype == torch.bfloat16 and state["exp_avg"].shape == parameter.shape
        assert state["step"].dtype == torch.float32 and state["step"].item() == 2
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.ones(4, 5, dtype=torch.bfloat16)).float().pow(2).mean().backward()
    client.step()
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before))


def calls_around_the_engine() -> None:
    """The client's own calls would work on the model's parameters beside the engine: they are errors while it lives."""
    engine, client = _engine(0, "momentum")
    _train(engine, 2)
    for call, instead in ((lambda: client.step(), r"engine\.step"), (lambda: client.state_dict(), r"engine\.optimizer\.state_dict"),
                          (lambda: client.load_state_dict({}), "engine.load_checkpoint")):
        with pytest.raises(ValueError, match=f"optimizer SGD belongs to an engine.*{instead}"):
            call()
    optimizer = engine.optimizer
    engine.destroy()
    client.load_state_dict(client.state_dict())
    client.step()
    for call in (optimizer.state_dict, lambda: engine.save_checkpoint("never written")):
        with pytest.raises(ValueError, match="the engine was destroyed"):
            call()
