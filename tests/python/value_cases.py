"""Full values, gradients and optimizer states of what is sharded: what every rank runs for test_parameter_access.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import hydrofoil
from hydrofoil import utils
from hydrofoil.zero import GatheredParameters
from tests.support import models
from tests.support.models import plain, raises, world_size


def engine_of(stage: int, dtype: str = "fp32", **more: Any) -> Any:
    return hydrofoil.initialize(model=plain(), config=models.config(stage, dtype, **more))[0]


OPTIMIZERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "Adam": ({"lr": 0.01}, ("exp_avg", "exp_avg_sq")), "AdamW": ({"lr": 0.01}, ("exp_avg", "exp_avg_sq")),
    "SGD": ({"lr": 0.01, "momentum": 0.9}, ("momentum_buffer",)), "Adagrad": ({"lr": 0.01}, ("sum",)), "Lion": ({"lr": 0.001}, ("exp_avg",))}


def _plain_gradients(model: nn.Module, step: int) -> None:
    """Mean gradient of all ranks' batches, in rank order."""
    for r in range(world_size()):
        (models.loss_of(model, models.batch(100 * step, r)) / world_size()).backward()


def full_values(stage: int) -> None:
    engine, model = engine_of(stage, gradient_clipping=0.0), plain()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    pairs = [(n, p, q) for (n, p), q in zip(engine.module.named_parameters(), model.parameters()) if p.requires_grad]
    assert utils.safe_get_full_grad(engine.module.head.weight) is None
    for name, parameter, _ in pairs:
        assert torch.equal(utils.safe_get_full_optimizer_state(parameter, "exp_avg"), torch.zeros(parameter.shape)), name
    for step in range(3):
        _plain_gradients(model, step)
        loss = models.loss_of(engine, models.batch(100 * step))
        engine.backward(loss)
        for name, mine, theirs in pairs:
            gradient = utils.safe_get_full_grad(mine)
            assert gradient.shape == mine.shape and gradient.dtype == torch.float32
            expected = theirs.grad if theirs.grad is not None else torch.zeros_like(theirs)
            assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6), name
        engine.step()
        optimizer.step()
        optimizer.zero_grad()
        assert utils.safe_get_full_grad(engine.module.head.weight) is None
        for name, mine, theirs in pairs:
            if name == "bias":  # softmax ignores it: its gradients are rounding noise, which Adam blows up
                continue
            assert torch.allclose(utils.safe_get_full_fp32_param(mine), theirs, rtol=1e-3, atol=1e-4), name
            if optimizer.state[theirs]:
                for key in ("exp_avg", "exp_avg_sq"):
                    assert torch.allclose(utils.safe_get_full_optimizer_state(mine, key), optimizer.state[theirs][key], rtol=1e-3,
                                          atol=1e-6), (name, key)
    assert utils.safe_get_full_fp32_param(engine.module.frozen.weight) is None
    raises(ValueError, lambda: utils.safe_set_full_fp32_param(engine.module.frozen.weight, torch.zeros(12, 12)), "frozen.weight", "frozen")
    raises(ValueError, lambda: utils.safe_get_full_optimizer_state(engine.module.head.weight, "momentum_buffer"), "exp_avg_sq",
           "momentum_buffer")
    assert utils.safe_get_full_grad(torch.zeros(3)) is None
    raises(ValueError, lambda: utils.safe_set_full_grad(torch.zeros(3), torch.zeros(3)), "Hydrofoil")
    engine.destroy()


def state_names(optimizer: str, client: bool) -> None:
    params, names = OPTIMIZERS[optimizer]
    if client:
        model = plain()
        groups = [{"params": [p for p in model.parameters() if p.requires_grad and p.dim() > 1], "lr": 0.02},
                  {"params": [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]}]
        made = getattr(torch.optim, optimizer)(groups, **params)
        engine = hydrofoil.initialize(model=model, optimizer=made, config=models.config(2, optimizer=None))[0]
    else:
        engine = engine_of(2, optimizer={"type": optimizer, "params": params})
    weight = engine.module.head.weight
    models.train(engine, 1)
    for key in names:
        value = utils.safe_get_full_optimizer_state(weight, key)
        assert value.shape == weight.shape and value.abs().sum() > 0, key
        utils.safe_set_full_optimizer_state(weight, value * 2, key)
        assert torch.equal(utils.safe_get_full_optimizer_state(weight, key), value * 2), key
    raises(ValueError, lambda: utils.safe_get_full_optimizer_state(weight, "nothing"), "nothing", names[0])
    models.train(engine, 1, first=1)
    engine.destroy()


def setters(stage: int, dtype: str) -> None:
    engine = engine_of(stage, dtype, optimizer={"type": "SGD", "params": {"lr": 1.0}}, gradient_clipping=0.0)
    weight = engine.module.head.weight
    neighbour = engine.module.blocks[0].up.weight
    kept = utils.safe_get_full_fp32_param(neighbour)
    value = torch.arange(17 * 12.0).reshape(17, 12) / 256
    utils.safe_set_full_fp32_param(weight, value)
    assert torch.equal(utils.safe_get_full_fp32_param(weight), value)
    with GatheredParameters(weight):
        assert torch.equal(weight.detach(), value.to(weight.dtype))
    assert torch.equal(utils.safe_get_full_fp32_param(neighbour), kept)
    raises(ValueError, lambda: utils.safe_set_full_grad(weight, value), "backward")
    engine.backward(models.loss_of(engine, models.batch(0)))
    for parameter in engine.module.parameters():
        if parameter.requires_grad:
            utils.safe_set_full_grad(parameter, torch.zeros(parameter.shape))
    utils.safe_set_full_grad(weight, torch.ones(17, 12))
    assert torch.equal(utils.safe_get_full_grad(weight), torch.ones(17, 12))
    engine.step()
    assert abs(engine.get_global_grad_norm() - (17 * 12) ** 0.5) < 1e-3
    assert torch.allclose(utils.safe_get_full_fp32_param(weight), value - 1, atol=1e-5)
    assert torch.equal(utils.safe_get_full_fp32_param(neighbour), kept)
    raises(ValueError, lambda: utils.safe_set_full_fp32_param(weight, torch.zeros(3)), "shape")
    engine.destroy()


def masters_after_freezing(stage: int) -> None:
    """requires_grad = False after initialize: the engine keeps a master, and says so, until the next forward lays the unit out anew."""
    engine = engine_of(stage)
    module = engine.module
    weight, frozen = module.blocks[0].up.weight, module.frozen.weight
    models.train(engine, 1)
    expected = utils.safe_get_full_fp32_param(weight)
    state = utils.safe_get_full_optimizer_state(weight, "exp_avg")
    assert state.abs().sum() > 0
    weight.requires_grad_(False)
    assert torch.equal(utils.safe_get_full_fp32_param(weight), expected)
    assert torch.equal(utils.safe_get_full_optimizer_state(weight, "exp_avg"), state)
    assert utils.safe_get_full_grad(weight) is None
    if stage == 3:
        assert utils.safe_get_local_fp32_param(weight).shape == utils.safe_get_local_optimizer_state(weight, "exp_avg").shape
    frozen.requires_grad_(True)  # no master yet
    assert utils.safe_get_full_fp32_param(frozen) is None and utils.safe_get_full_optimizer_state(frozen, "exp_avg") is None
    models.train(engine, 1, first=1)
    assert utils.safe_get_full_fp32_param(weight) is None and utils.safe_get_full_optimizer_state(weight, "exp_avg") is None
    assert utils.safe_get_full_fp32_param(frozen).shape == frozen.shape
    if stage == 3:
        assert utils.safe_get_local_fp32_param(weight) is None and utils.safe_get_local_fp32_param(frozen) is not None
    engine.destroy()
