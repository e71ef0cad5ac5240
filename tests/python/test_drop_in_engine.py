"""What programs of DeepSpeed's world read and call on engines and sharded parameters."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import hydrofoil
from hydrofoil import utils
from tests.support.world import world

CASES = "tests.python.drop_in_cases:"


@pytest.mark.parametrize("size", [1, 3])
def test_collectives(size: int) -> None:
    world(size).run(CASES + "collectives")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_attributes_of_sharded_parameters(size: int) -> None:
    world(size).run(CASES + "attributes")
    world(size).run(CASES + "attributes_under_init")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_local_parts(size: int) -> None:
    world(size).run(CASES + "local_parts")


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_native_optimizers(stage: int) -> None:
    world(2).run(CASES + "native_optimizers", stage=stage)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_batch_sizes(stage: int) -> None:
    world(2).run(CASES + "batch_sizes", stage=stage)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_coalesced_backwards(stage: int) -> None:
    world(2).run(CASES + "coalesced", stage=stage)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_consolidated_state_dict(stage: int) -> None:
    world(2).run(CASES + "consolidated", stage=stage)


def test_leaf_modules_by_class_name_and_suffix() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    assert utils.set_z3_leaf_modules(model, [nn.Sequential]) == [model, model[1]] == utils.get_z3_leaf_modules(model)
    assert utils.unset_z3_leaf_modules(model, ["torch.nn.modules.container.Sequential"]) == [model, model[1]] and not utils.get_z3_leaf_modules(model)
    assert utils.set_z3_leaf_modules_by_name(model, ["1.0"]) == [model[1][0]]
    assert utils.set_z3_leaf_modules_by_suffix(model, ["1"]) == [model[1]]
    with pytest.raises(ValueError, match="no modules of .* found"):
        utils.set_z3_leaf_modules_by_name(model, ["7"])


def test_config_getters(tmp_path: Path) -> None:
    """A config as a dict, as a file and as base64 text; what is not given has DeepSpeed's default, what is not built is off."""
    values = {"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "AdamW", "params": {"lr": 0.5}},
              "zero_optimization": {"stage": 3, "reduce_bucket_size": 7, "stage3_prefetch_bucket_size": "auto"}}
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(values))
    for config in (values, str(path), json.dumps(values), base64.urlsafe_b64encode(json.dumps(values).encode()).decode()):
        engine = hydrofoil.initialize(model=nn.Linear(2, 2), config=config)[0]
        assert engine.zero_reduce_bucket_size() == 7 and engine.zero_prefetch_bucket_size() == 50_000_000
        assert engine.optimizer_params() == {"lr": 0.5} and engine.scheduler_params() is None and engine.initial_dynamic_scale() == 65536
        assert not engine.elasticity_enabled() and engine.curriculum_learning_config() == {} and engine.zero_offload_param() is None
        engine.destroy()


def test_helpers() -> None:
    with utils.OnDevice(torch.bfloat16, "meta"):
        linear = nn.Linear(3, 3)
    assert linear.weight.is_meta and linear.weight.dtype == torch.bfloat16 and torch.get_default_dtype() == torch.float32
    view = torch.zeros(1000)[:2]
    assert utils.clone_tensors_for_torch_save({"a": [view]})["a"][0].untyped_storage().nbytes() == 8
    with pytest.raises(ValueError, match="log level: got 'loud'"):
        utils.set_log_level_from_string("loud")
