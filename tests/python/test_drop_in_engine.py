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
from hydrofoil.config import OffloadStateTypeEnum
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


def test_arguments_of_init() -> None:
    world(2).run(CASES + "init_arguments")


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_forgotten_engine(stage: int) -> None:
    world(2).run(CASES + "forgotten_engine", stage=stage)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_native_optimizers(stage: int) -> None:
    world(2).run(CASES + "native_optimizers", stage=stage)


@pytest.mark.parametrize("stage", [0, 3])
def test_torch_adam(stage: int) -> None:
    world(2).run(CASES + "torch_adam", stage=stage)


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
    assert utils.set_z3_leaf_modules_by_name(model, ["1.0"]) == ([model[1][0]], []) and utils.get_z3_leaf_modules(model) == [model[1][0]]
    assert utils.set_z3_leaf_modules_by_name(model, ["1.0", "7"], flag=False, raise_if_not_found=False) == ([model[1][0]], ["7"])
    assert not utils.get_z3_leaf_modules(model)
    assert utils.set_z3_leaf_modules_by_suffix(model, [".0", "1"]) == ([model[1][0], model[1]], [])
    with pytest.raises(ValueError, match=r"no modules of the names \['7'\] found"):
        utils.set_z3_leaf_modules_by_name(model, ["1.0", "7"])
    with pytest.raises(ValueError, match=r"no modules with names that end in \['x'\] found"):
        utils.set_z3_leaf_modules_by_suffix(model, ["x"])


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


def test_a_config_file_with_comments_has_getters(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{ # a comment\n"train_micro_batch_size_per_gpu": 1, // another\n"optimizer": {"type": "AdamW", "params": {"lr": 0.5,}},\n}')
    engine = hydrofoil.initialize(model=nn.Linear(2, 2), config=str(path))[0]
    assert engine.optimizer_params() == {"lr": 0.5} and engine._config.optimizer_params == {"lr": 0.5}
    engine.destroy()


@pytest.mark.parametrize("stage", [0, 3])
def test_names_of_the_engine_and_the_optimizer(stage: int) -> None:
    """The public names of DeepSpeed's engine and wrapper (reference 3.2, 3.3): a value, or an error that names the feature."""
    values = {"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": stage, "reduce_bucket_size": 7},
              "fp16": {"enabled": True, "initial_scale_power": 4}, "communication_data_type": "fp32"}
    engine, optimizer, _, _ = hydrofoil.initialize(model=nn.Linear(2, 2), config=values)
    assert engine.loss_scale == optimizer.loss_scaler.cur_scale == 16.0 and engine.loss_scale() == 0.0 and optimizer.needs_scaler()
    assert engine.communication_data_type == torch.float32 and engine.get_type() == [0.0] and engine.get_pld_theta() is None
    assert engine.checkpoint_tag_validation_enabled() is True and not engine.checkpoint_tag_validation_fail()
    assert engine.dynamic_loss_scale_args() == {"init_scale": 16, "scale_window": 1000, "min_scale": 1, "delayed_shift": 2, "consecutive_hysteresis": False}
    assert engine.mpu is None and not engine.has_moe_layers and engine.is_map_style_dataset([1]) and engine.gradient_average
    config = engine._config
    assert config.zero_config.stage == stage == config.zero_optimization_stage and config.zero_config.reduce_bucket_size == 7
    assert config.zero_enabled is (stage > 0) and config.train_batch_size == 1 and config.load_universal_checkpoint is False
    with pytest.raises(AttributeError, match="neither an option nor a config getter"):
        config.no_such_name
    engine.offload_states(include=[OffloadStateTypeEnum.optim_states])  # a CPU rank's states are there
    engine.reload_states()
    with pytest.raises(ValueError, match="include: got 'x'"):
        optimizer.offload_states(include=["x"])
    with pytest.raises(NotImplementedError, match="to nvme: offload"):
        engine.offload_states(device="nvme")
    assert optimizer.is_gradient_accumulation_boundary and len(optimizer.bit16_groups[0]) == 2
    assert optimizer.scale_if_loss("no loss") == "no loss" and optimizer.scale_if_loss(torch.tensor(2.0)).item() == 32.0
    engine.zero_grad()
    for owner, name, feature in ((engine, "checkpoint_engine", "checkpoint engine"), (engine, "losses", "sum of losses"),
                                 (optimizer, "fp32_groups_flat", "flat buffers"), (optimizer, "single_partition_of_fp32_groups", "safe_get_")):
        assert not hasattr(owner, name)
        with pytest.raises(NotImplementedError, match=feature):
            getattr(owner, name)
    for name in ("load_moe_state_dict", "register_compile_pass", "sparse_allreduce", "set_data_post_process_func", "allreduce_bucket"):
        with pytest.raises(NotImplementedError, match=f"{name}: .* not built in Hydrofoil yet"):
            getattr(engine, name)()
    with pytest.raises(AttributeError, match="no_such_name"):
        optimizer.no_such_name
    engine.compile(backend="eager", compile_kwargs={"dynamic": False})
    assert engine.is_compiled and engine.get_compile_time() == []
    engine.destroy()


def test_helpers() -> None:
    with utils.OnDevice(torch.bfloat16, "meta"):
        linear = nn.Linear(3, 3)
    assert linear.weight.is_meta and linear.weight.dtype == torch.bfloat16 and torch.get_default_dtype() == torch.float32
    view = torch.zeros(1000)[:2]
    assert utils.clone_tensors_for_torch_save({"a": [view]})["a"][0].untyped_storage().nbytes() == 8
    with pytest.raises(ValueError, match="log level: got 'loud'"):
        utils.set_log_level_from_string("loud")
