"""save_checkpoint and load_checkpoint: the same bits as without a break, at any stage and world size, and clear errors."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch

from hydrofoil import _state_json
from tests.support.world import world

CASES = "tests.python.checkpoint_cases:"
STAGES = [0, 1, 2, 3]


@pytest.mark.parametrize(("dtype", "optimizer", "scheduler", "accumulation"), [
    ("fp32", "config", "hydrofoil", 1), ("bf16", "config", "none", 2), ("fp16", "config", "hydrofoil", 1), ("bf16", "client_adamw", "torch", 1),
    ("fp32", "config", "MultiStepLR", 1)])
@pytest.mark.parametrize("stage", STAGES)
def test_resume(stage: int, dtype: str, optimizer: str, scheduler: str, accumulation: int, tmp_path: Path) -> None:
    world(2).run(CASES + "resume", stage=stage, dtype=dtype, optimizer=optimizer, scheduler=scheduler, accumulation=accumulation,
                 directory=str(tmp_path))


@pytest.mark.parametrize("stage", STAGES)
def test_resume_with_bf16_states(stage: int, tmp_path: Path) -> None:
    world(2).run(CASES + "resume", stage=stage, dtype="bf16", optimizer="config", scheduler="none", accumulation=2, directory=str(tmp_path),
                 bf16_states=True)


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_states_by_name(stage: int) -> None:
    world(2).run(CASES + "bf16_states_by_name", stage=stage)


@pytest.mark.parametrize(("size", "optimizer"), [(1, "config"), (3, "config"), (3, "client_sgd"), (2, "client_rprop")])
def test_resume_at_other_world_sizes(size: int, optimizer: str, tmp_path: Path) -> None:
    world(size).run(CASES + "resume", stage=3, dtype="bf16", optimizer=optimizer, scheduler="torch", accumulation=1, directory=str(tmp_path))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(("size", "stage", "new_size", "new_stage"), [(2, 3, 3, 1), (3, 2, 1, 0), (1, 0, 2, 3), (2, 1, 2, 3)])
def test_another_world_size_and_stage(size: int, stage: int, new_size: int, new_stage: int, dtype: str, tmp_path: Path) -> None:
    of_rank = world(size).run(CASES + "save", stage=stage, dtype=dtype, directory=str(tmp_path))
    for rank, loaded in enumerate(world(new_size).run(CASES + "load_elsewhere", stage=new_stage, dtype=dtype, saved_size=size,
                                                           directory=str(tmp_path))):
        saved = of_rank[rank if size == new_size else 0][1]  # buffers are each rank's own
        assert loaded.keys() == saved.keys()
        for name, value in saved.items():
            assert torch.equal(loaded[name], value), name


@pytest.mark.parametrize("stage", STAGES)
def test_module_only(stage: int, tmp_path: Path) -> None:
    world(2).run(CASES + "module_only", stage=stage, directory=str(tmp_path))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("case", ["another_dtype", "written_before_the_save", "within_a_window"])
def test_values(case: str, stage: int, tmp_path: Path) -> None:
    world(2).run(CASES + case, stage=stage, directory=str(tmp_path))


@pytest.mark.parametrize(("dtype", "thawed", "built_frozen"), [
    ("fp32", True, False), ("fp32", False, False), ("bf16", True, True), ("bf16", False, False), ("bf16", False, True)])
@pytest.mark.parametrize("stage", STAGES)
def test_unfreeze(stage: int, dtype: str, thawed: bool, built_frozen: bool, tmp_path: Path) -> None:
    world(2).run(CASES + "unfreeze", stage=stage, dtype=dtype, thawed=thawed, built_frozen=built_frozen, directory=str(tmp_path))


@pytest.mark.parametrize(("size", "stage", "new_size", "new_stage"), [(2, 3, 3, 1), (3, 2, 1, 0), (1, 0, 2, 3)])
def test_unfreeze_elsewhere(size: int, stage: int, new_size: int, new_stage: int, tmp_path: Path) -> None:
    expected = world(size).run(CASES + "unfreeze", stage=stage, dtype="fp32", thawed=False, built_frozen=False, directory=str(tmp_path))[0]
    for state in world(new_size).run(CASES + "unfreeze_elsewhere", stage=new_stage, directory=str(tmp_path)):
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            if name.split()[-1] not in ("bias", "frozen.bias"):  # softmax and BatchNorm undo them: their gradients are rounding errors
                assert torch.allclose(state[name], value, rtol=1e-3, atol=2e-4), name


@pytest.mark.parametrize("stage", [1, 3])
def test_frozen_left_out(stage: int, tmp_path: Path) -> None:
    world(2).run(CASES + "frozen_left_out", stage=stage, directory=str(tmp_path))


@pytest.mark.parametrize("case", ["tags_and_latest", "wrong_models", "one_rank_fails", "damaged", "other_optimizer", "before_any_step",
                                  "extra_state", "tensor_lr"])
def test_errors(case: str, tmp_path: Path) -> None:
    world(2).run(CASES + case, directory=str(tmp_path))


def test_client_optimizer_at_another_world_size(tmp_path: Path) -> None:
    world(2).run(CASES + "client_at_another_world_size", directory=str(tmp_path), write=True)
    world(3).run(CASES + "client_at_another_world_size", directory=str(tmp_path), write=False)


@pytest.mark.parametrize("stage", STAGES)
def test_model_16bit(stage: int, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    world(2).run(CASES + "model_16bit", stage=stage, directory=str(tmp_path))


def test_values_come_back_as_they_were() -> None:
    counter = collections.Counter({4: 1})
    value = {"c": counter, "t": (1, [(), (2.5, None)]), 3: {True: "x", None: {}}, "n": torch.tensor(0.1), "__hydrofoil__": "dict",
             "v": torch.arange(3), "b": b"\x00\xff"}
    tensors: list[torch.Tensor] = []
    again = _state_json.loads(_state_json.dumps(value, tensors), tensors)
    assert list(again) == list(value) and type(again["c"]) is collections.Counter
    assert again.pop("n").dtype == torch.float32 and torch.equal(again.pop("v"), torch.arange(3))
    assert again == {key: item for key, item in value.items() if key not in ("n", "v")}
    assert _state_json.loads('{"a": [1, {"2": 3}]}') == {"a": [1, {"2": 3}]}  # files of before
    for bad in (object(), {object(): 1}, {1, 2}, torch.ones(2)):
        with pytest.raises(TypeError):
            _state_json.dumps(bad)
    with pytest.raises(TypeError, match=r"\['a'\]\[1\]\['deep'\]: a set"):
        _state_json.dumps({"a": [0, {"deep": {1}}]})
    with pytest.raises(ValueError, match="unknown form"):
        _state_json.loads('{"__hydrofoil__": "later"}')
