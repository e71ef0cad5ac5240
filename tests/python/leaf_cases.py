"""What every rank runs for test_leaf_modules.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import hydrofoil
from hydrofoil import utils
from tests.python.access_cases import Log
from tests.support import models
from tests.support.models import plain, rank


class Moe(nn.Module):
    """A gate and experts, of which each row takes one: not every forward runs all of them."""

    def __init__(self, width: int = models.WIDTH) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 3, bias=False)
        self.experts = nn.ModuleList([models.Block(width) for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.gate(x).softmax(-1)
        return sum((expert(x) * scores[..., i, None] for i, expert in enumerate(self.experts)), x)


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, models.WIDTH)
        self.first_moe, self.second_moe = Moe(), Moe()
        self.head = nn.Linear(models.WIDTH, 17)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.second_moe(self.first_moe(self.embedding(tokens)))).flatten(0, 1)


def _losses(stage: int, leaf_module: Any = None) -> tuple[list[float], list[str], str]:
    """Losses of three steps, the modules that are units as a whole, and what was logged."""
    zero = {"stage": stage, **({"leaf_module": leaf_module} if leaf_module is not None else {})}
    model = plain(0, Mixture)
    paths = [name for name, _ in model.named_modules()]
    with Log() as log:
        engine = hydrofoil.initialize(model=model, config=models.config(stage, zero_optimization=zero))[0]
    leaves = utils.get_z3_leaf_modules(model)
    assert all(utils.z3_leaf_parameter(p) for leaf in leaves for p in leaf.parameters())
    scopes = {paths[scope.module]: list(scope.units) for scope in engine.core.scopes}
    whole = [paths[i] for i, module in enumerate(model.modules()) if module in leaves]
    for path in whole:  # one unit, which no module inside has a part in
        assert len(scopes[path]) == 1 and not any(other.startswith(path + ".") for other in scopes), scopes
    losses = models.train(engine, 3)
    engine.destroy()
    return losses, whole, log.text


def config_marks_units(stage: int) -> None:
    both = ["first_moe", "second_moe"]
    expected, whole, said = _losses(stage)
    assert not whole and "leaf_module" not in said, (whole, said)
    for leaf_module, modules in (({"classes": ["Moe"]}, both), ({"classes": "tests.python.leaf_cases.Moe"}, both), ({"names": "second_moe"}, ["second_moe"]),
                                 ({"name_suffixes": ["moe"]}, both), ({"name_suffixes": ["t_moe"]}, ["first_moe"]),
                                 ({"names": ["first_moe.experts"]}, ["first_moe.experts"]),  # a list, whose forward nobody calls
                                 ({"classes": [], "names": ["first_moe"], "name_suffixes": ["d_moe"]}, both)):
        losses, whole, said = _losses(stage, leaf_module)
        assert losses == expected and whole == modules, (leaf_module, losses, expected, whole)
        assert "leaf_module" not in said, said


def config_warns_of_what_matches_nothing() -> None:
    expected, *_ = _losses(3)
    losses, whole, said = _losses(3, {"classes": ["Moe", "other.Moe"], "names": ["moe", "head"], "name_suffixes": ["expert"]})
    assert losses == expected and whole == ["first_moe", "second_moe", "head"], whole
    warning = "warning: zero_optimization.leaf_module: no module of the model matches classes other.Moe; names moe; name_suffixes expert"
    assert f"[hydrofoil rank {rank()}] {warning}" in said, said


def plan_marks_units() -> None:
    model = plain(0, Mixture)
    least = {"hydrofoil": {"unit_min_bytes": 0, "backend": "c10d"}}

    def largest(**leaf_module: Any) -> int:
        config = models.config(3, zero_optimization={"stage": 3, "leaf_module": leaf_module}, **least)
        return hydrofoil.plan(model, config, 2).largest_unit_bytes

    moe = 4 * sum(p.numel() for p in model.first_moe.parameters())
    assert largest() < moe <= largest(classes="Moe") == largest(name_suffixes="first_moe") == largest(names="second_moe")
    assert not utils.get_z3_leaf_modules(model)  # planning changes no model
