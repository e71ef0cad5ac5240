"""What DeepSpeed raises for a mistake, an `except` of DeepSpeed's type catches here too. Types are those of DeepSpeed 0.19's source."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from torch import nn

import hydrofoil
from hydrofoil import errors, lr_schedules, utils
from hydrofoil.config import DeepSpeedConfig, DeepSpeedConfigError
from tests.support.loops import config

Case = tuple[type[BaseException], str, Callable[[], Any]]


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def _initialize(**keys: Any) -> Any:
    settings = {name: value for name, value in (config(1) | keys).items() if value is not None}
    return hydrofoil.initialize(model=_model(), config=settings)


def _zero(stage: int = 1, **keys: Any) -> Any:
    return _initialize(zero_optimization={"stage": stage, **keys})


def _optimizer(kind: str, **params: Any) -> Any:
    return _initialize(optimizer={"type": kind, "params": params})


def _schedule(kind: str, **params: Any) -> Any:
    return _initialize(scheduler={"type": kind, "params": params})


def _client(optimizer: Any) -> Any:
    return hydrofoil.initialize(model=_model(), optimizer=optimizer, config=config(1) | {"optimizer": None})


CONFIGS: dict[str, Case] = {
    "no model": (AssertionError, "model is required", lambda: hydrofoil.initialize(config=config(1))),
    "no config": (AssertionError, "no config", lambda: hydrofoil.initialize(model=_model())),
    "two configs": (AssertionError, "give one of them", lambda: hydrofoil.initialize(
        args=argparse.Namespace(deepspeed_config="x.json"), model=_model(), config=config(1))),
    "a number as config": (ValueError, "got int, expected a dict", lambda: hydrofoil.initialize(model=_model(), config=3)),
    "no file": (ValueError, "no such file", lambda: hydrofoil.initialize(model=_model(), config="/nowhere/ds.json")),
    "no batch size": (AssertionError, "train_batch_size", lambda: _initialize(train_micro_batch_size_per_gpu=None, gradient_accumulation_steps=None)),
    "batch sizes that differ": (AssertionError, "train_batch_size 7 is not equal", lambda: _initialize(train_batch_size=7)),
    "batch size below 1": (AssertionError, "got -1", lambda: _initialize(train_micro_batch_size_per_gpu=-1)),
    "both 16-bit types": (AssertionError, "at most one", lambda: _initialize(fp16={"enabled": True}, bf16={"enabled": True})),
    "communication type": (ValueError, "communication_data_type", lambda: _initialize(communication_data_type="fp8")),
    "reduction": (ValueError, "gradient_allreduce_op", lambda: _initialize(gradient_allreduce_op="max")),
    "sum at stage 3": (ValueError, "expected mean", lambda: _initialize(zero_optimization={"stage": 3}, gradient_allreduce_op="sum")),
    "unknown key of a section": (ValueError, "unknown key", lambda: _zero(no_such_key=1)),
    "stage": (ValueError, "from 0 to 3", lambda: _zero(4)),
    "half an offload": (ValueError, "ratio", lambda: _zero(2, offload_optimizer={"device": "cpu", "ratio": 0.5})),
    "max_grad_norm": (ValueError, "max_grad_norm", lambda: _optimizer("AdamW", max_grad_norm=1.0)),
    "optimizer": (AssertionError, "unknown type", lambda: _optimizer("Foo")),
    "optimizer's parameter": (TypeError, "unknown key", lambda: _optimizer("AdamW", foo=1)),
    "schedule": (AssertionError, "unknown type", lambda: _schedule("Foo")),
    "schedule's parameter": (TypeError, "unknown key", lambda: _schedule("WarmupLR", foo=1)),
    "missing steps": (TypeError, "is missing", lambda: _schedule("WarmupDecayLR")),
    "warmup steps": (ValueError, "expected an integer >= 1", lambda: _schedule("WarmupLR", warmup_num_steps=0)),
    "tag validation": (DeepSpeedConfigError, "tag_validation", lambda: _initialize(checkpoint={"tag_validation": "foo"})),
    "DeepSpeedConfig": (AssertionError, "train_batch_size", lambda: DeepSpeedConfig({})),
    "no optimizer as optimizer": (AssertionError, "optimizer: got int", lambda: _client(3)),
    "no dataset as data": (ValueError, "training_data: got int", lambda: hydrofoil.initialize(model=_model(), config=config(1), training_data=3)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_of_configs_and_initialize(name: str) -> None:
    _check(*CONFIGS[name])


def _check(kind: type[BaseException], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=text):
        call()


def test_of_engines(tmp_path: Path) -> None:
    engine = _zero(1)[0]
    weight = next(engine.module.parameters())
    (tmp_path / "latest").write_text("nothing")
    loss = engine(torch.ones(1, 4)).sum()

    def in_no_sync(call: Callable[[], Any]) -> None:
        with engine.no_sync():
            call()

    def nested() -> None:
        with engine.no_sync(), engine.no_sync():
            pass

    cases: list[Case] = [
        (AssertionError, "got NoneType", lambda: engine.backward(None)),
        (AssertionError, "got shape", lambda: engine.backward(torch.ones(2, requires_grad=True))),
        (AssertionError, "called inside no_sync", nested),
        (AssertionError, "no_sync", lambda: in_no_sync(engine.step)),
        (ValueError, "expected a multiple of", lambda: engine.set_train_batch_size(0)),
        (ValueError, "save_dir", lambda: engine.save_checkpoint(None)),
        (ValueError, "directory", lambda: engine.save_checkpoint("")),
        (AssertionError, "no checkpoint", lambda: engine.load_checkpoint(str(tmp_path), tag="missing")),
        (AttributeError, "no_such_name", lambda: engine.no_such_name),
        (RuntimeError, "Missing", lambda: engine.load_module_state_dict({})),
        (AssertionError, "stage 3", lambda: utils.safe_get_local_fp32_param(weight)),
        (ValueError, "unknown optimizer state", lambda: utils.safe_get_full_optimizer_state(weight, "foo")),
        (KeyError, "unknown optimizer state 'foo'", lambda: utils.safe_get_full_optimizer_state(weight, "foo")),
        (AssertionError, "expected", lambda: utils.safe_set_full_fp32_param(weight, torch.zeros(3))),
    ]
    for case in cases:
        _check(*case)
    assert engine.load_checkpoint(str(tmp_path / "nowhere")) == (None, None)
    engine.backward(loss)
    engine.step()
    engine.destroy()
    plain = _zero(0)[0]
    _check(NotImplementedError, "stage 0", lambda: plain.coalesce_grad_reduction().__enter__())
    plain.destroy()
    sharding = _zero(2)[0]
    _check(AssertionError, "no_sync", lambda: sharding.no_sync().__enter__())
    sharding.destroy()
    forward_only = hydrofoil.initialize(model=_model(), config={"train_batch_size": 1})[0]
    _check(AssertionError, "no optimizer", forward_only.step)
    _check(AssertionError, "no optimizer", lambda: forward_only.backward(forward_only(torch.ones(1, 4)).sum()))
    forward_only.destroy()


def test_of_helpers() -> None:
    model = _model()
    cases: list[Case] = [
        (TypeError, "got int, expected a torch optimizer", lambda: lr_schedules.WarmupLR(3)),
        (TypeError, "unknown parameter", lambda: lr_schedules.WarmupLR(torch.optim.SGD(model.parameters(), lr=1.0), foo=1)),
        (ValueError, "no modules of", lambda: utils.set_z3_leaf_modules(model, [nn.Conv2d])),
        (AssertionError, "got 3, expected classes", lambda: utils.set_z3_leaf_modules(model, [3])),
        (RuntimeError, "expected a torch.nn.Parameter", lambda: hydrofoil.zero.register_external_parameter(model, torch.zeros(3))),
        (ValueError, "log level", lambda: utils.set_log_level_from_string("loud")),
    ]
    for case in cases:
        _check(*case)


def test_texts_are_plain() -> None:
    assert str(errors.UnknownState("a 'b'")) == "a 'b'" and not hasattr(_Without(), "feature")


class _Without:
    @property
    def feature(self) -> Any:
        raise errors.NotBuiltAttribute("feature: not built in Hydrofoil yet")
