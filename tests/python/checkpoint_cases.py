"""What every rank runs for test_checkpoint.py."""

from __future__ import annotations

import os
from typing import Any, Callable, Optional

import torch
from torch import nn

import hydrofoil
from hydrofoil import utils
from tests.python.access_cases import Log
from tests.support import models
from tests.support.models import Odd, plain, raises, rank, world_size

CLIENT_STATE = {"epoch": 7, "name": "x", "seen": {7: 1, (2, "a"): [None]}, "shape": (2, (3,)), "__hydrofoil__": "tuple"}


def _make(stage: int, dtype: str = "fp32", optimizer: str = "config", scheduler: str = "none", seed: int = 0, accumulation: int = 1,
          **more: Any) -> Any:
    model = plain(seed)
    section = more.pop("optimizer_section", None)
    if more.pop("frozen_block", False):
        model.blocks[1].requires_grad_(False)
    settings = models.config(stage, dtype, accumulation, **more)
    settings["optimizer"] = section or settings["optimizer"]
    arguments: dict[str, Any] = {}
    if scheduler == "hydrofoil":
        settings["scheduler"] = {"type": "WarmupDecayLR", "params": {"total_num_steps": 20, "warmup_num_steps": 3}}
    if optimizer != "config":
        settings.pop("optimizer")
        trainable = [p for p in model.parameters() if p.requires_grad]
        groups = [{"params": [p for p in trainable if p.dim() > 1]}, {"params": [p for p in trainable if p.dim() <= 1], "lr": 0.02}]
        kinds = {"client_adamw": (torch.optim.AdamW, {"lr": 0.01}), "client_rprop": (torch.optim.Rprop, {"lr": 0.01}),
                 "client_sgd": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9})}
        kind, params = kinds[optimizer]
        arguments["optimizer"] = kind(groups, **params)
    if scheduler == "MultiStepLR":
        settings["scheduler"] = {"type": "MultiStepLR", "params": {"milestones": [1, 4], "gamma": 0.1}}
    if scheduler == "torch":
        arguments["lr_scheduler"] = lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return hydrofoil.initialize(model=model, config=settings, **arguments)[0]


def _everything(engine: Any) -> dict[str, Any]:
    result = models.full_state(engine)
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad and engine.optimizer is not None:
            result["master " + name] = utils.safe_get_full_fp32_param(parameter)
    return result


def resume(stage: int, dtype: str, optimizer: str, scheduler: str, accumulation: int, directory: str, bf16_states: bool = False) -> None:
    """Five steps without a break, and three, a checkpoint, another engine, two more: the same bits."""
    make = dict(stage=stage, dtype=dtype, optimizer=optimizer, scheduler=scheduler, accumulation=accumulation)
    if dtype == "fp16":
        make["fp16"] = {"enabled": True, "initial_scale_power": 8, "loss_scale_window": 2}
    if bf16_states:
        make["bf16"] = {"bf16_optimizer_states": True}
    engine = _make(**make)
    losses = models.train(engine, 3)
    assert engine.save_checkpoint(directory, client_state=CLIENT_STATE) is True
    losses += models.train(engine, 2, first=3)
    expected, lr, scale, counters = _everything(engine), engine.get_lr(), engine.loss_scale, _counters(engine)
    engine.destroy()
    other = _make(**make, seed=9)
    path, client_state = other.load_checkpoint(directory)
    assert path.startswith(directory) and client_state == CLIENT_STATE
    assert other.global_steps == 3
    assert losses[3:] == models.train(other, 2, first=3)
    assert (other.get_lr(), other.loss_scale, _counters(other)) == (lr, scale, counters)
    models.assert_equal(_everything(other), expected)
    other.destroy()


def bf16_states_by_name(stage: int) -> None:
    """fp32 copies of bf16 values; what is set is rounded to the nearest; state_dict goes back as it was; none beside a client optimizer."""
    bf16 = {"bf16_optimizer_states": True}
    engine = _make(stage, "bf16", bf16=bf16)
    models.train(engine, 2)
    weight = engine.module.blocks[0].up.weight
    square = utils.safe_get_full_optimizer_state(weight, "exp_avg_sq")
    assert square.dtype == torch.float32 and square.shape == weight.shape and bool((square > 0).any())
    assert torch.equal(square, square.bfloat16().float())
    saved = engine.optimizer.state_dict()
    assert {state.dtype for tensors in saved["state"]["shards"] for state in tensors[1:]} == {torch.bfloat16}
    value = torch.full_like(square, 1.001)
    utils.safe_set_full_optimizer_state(weight, value, "exp_avg_sq")
    assert torch.equal(utils.safe_get_full_optimizer_state(weight, "exp_avg_sq"), torch.ones_like(square))
    engine.optimizer.load_state_dict(saved)
    assert torch.equal(utils.safe_get_full_optimizer_state(weight, "exp_avg_sq"), square)
    engine.destroy()
    raises(ValueError, lambda: _make(stage, "bf16", optimizer="client_adamw", bf16=bf16),
           "bf16.bf16_optimizer_states: got true with an optimizer of the program's own (AdamW")


def _counters(engine: Any) -> tuple[int, ...]:
    return engine.global_steps, engine.micro_steps, engine.global_samples, engine.skipped_steps


def save(stage: int, dtype: str, directory: str) -> tuple[list[float], dict[str, Any]]:
    engine = _make(stage, dtype, scheduler="hydrofoil")
    models.train(engine, 3)
    engine.save_checkpoint(directory, tag="moved")
    state = _everything(engine)
    engine.destroy()
    return [], state


def load_elsewhere(stage: int, dtype: str, saved_size: int, directory: str) -> dict[str, Any]:
    """Another world size or stage: the values are those that were saved, and training goes on."""
    engine = _make(stage, dtype, scheduler="hydrofoil", seed=4)
    assert engine.loaded_checkpoint_dp_world_size is None and engine.loaded_checkpoint_mp_world_size is None
    engine.load_checkpoint(directory, tag="moved")
    assert (engine.loaded_checkpoint_dp_world_size, engine.loaded_checkpoint_mp_world_size) == (saved_size, 1)
    state = _everything(engine)
    assert engine.global_steps == 3 and engine.optimizer is not None
    moment = utils.safe_get_full_optimizer_state(engine.module.head.weight, "exp_avg")
    assert moment.abs().sum() > 0
    models.train(engine, 1, first=3)
    engine.destroy()
    return state


def module_only(stage: int, directory: str) -> None:
    engine = _make(stage, "bf16")
    models.train(engine, 2)
    engine.save_checkpoint(directory)
    expected = _everything(engine)
    engine.destroy()
    for arguments in ({"load_module_only": True}, {"load_optimizer_states": False}):
        other = _make(stage, "bf16", seed=3)
        other.load_checkpoint(directory, **arguments)
        models.assert_equal(_everything(other), expected)
        assert other.global_steps == 0
        models.train(other, 1)
        other.destroy()


def another_dtype(stage: int, directory: str) -> None:
    """fp32 values survive as far as either side has them."""
    engines = {dtype: _make(stage, dtype) for dtype in ("bf16", "fp32")}
    engines["fp16"] = _make(stage, "fp16", fp16={"initial_scale_power": 8})
    masters = {}
    for dtype, engine in engines.items():
        models.train(engine, 2)
        engine.save_checkpoint(directory, tag=dtype)
        masters[dtype] = {n: v for n, v in _everything(engine).items() if n.startswith("master")}
    for saved, loaded in (("bf16", "fp32"), ("fp32", "bf16"), ("bf16", "fp16"), ("fp16", "bf16")):
        for arguments in ({}, {"load_module_only": True}):
            engines[loaded].load_checkpoint(directory, tag=saved, **arguments)
            state = _everything(engines[loaded])
            models.assert_equal({n: v for n, v in state.items() if n.startswith("master")}, masters[saved], f"{saved} into {loaded}")
            assert engines[loaded].loss_scale == (256 if loaded == "fp16" else 1), f"{saved} into {loaded}: its own loss scale stays"
            dtype = state["scale"].dtype
            models.assert_equal({n: state[n.removeprefix("master ")] for n in masters[saved]}, {n: v.to(dtype) for n, v in masters[saved].items()})
    for engine in engines.values():
        engine.destroy()


def written_before_the_save(stage: int, directory: str) -> None:
    """Parameters that were written since the last step win over their masters, as in the next step."""
    engine = _make(stage, "bf16")
    models.train(engine, 2)
    with torch.no_grad(), hydrofoil.zero.GatheredParameters(list(engine.module.parameters()), modifier_rank=0):
        for parameter in engine.module.blocks.parameters():
            parameter.clamp_(-0.01, 0.01)
    engine.save_checkpoint(directory)
    other = _make(stage, "bf16", seed=5)
    other.load_checkpoint(directory)
    assert models.train(engine, 2, first=2) == models.train(other, 2, first=2)
    models.assert_equal(_everything(other), _everything(engine))
    engine.destroy()
    other.destroy()


def _train_alike(engine: Any, steps: int, first: int) -> None:
    """The same gradients at any world size."""
    for step in range(first, first + steps):
        engine.backward(models.loss_of(engine, models.batch(step, 0)))
        engine.step()


def _freeze(engine: Any, frozen: bool) -> None:
    """Of a layer that was trained before."""
    engine.module.blocks[1].requires_grad_(not frozen)


def _moments(engine: Any) -> dict[str, torch.Tensor]:
    return {f"{key} {name}": utils.safe_get_full_optimizer_state(parameter, key)
            for name, parameter in engine.module.named_parameters() for key in ("exp_avg", "exp_avg_sq")}


def _train_partly(engine: Any, thawed: bool) -> None:
    _train_alike(engine, 2, 0)
    _freeze(engine, True)
    engine.module.frozen.requires_grad_(True)
    _train_alike(engine, 2, 2)
    _freeze(engine, not thawed)
    _train_alike(engine, 1, 4)


def _train_the_rest(engine: Any) -> dict[str, torch.Tensor]:
    engine.module.frozen.requires_grad_(True)
    _train_alike(engine, 1, 5)
    _freeze(engine, False)
    _train_alike(engine, 2, 6)
    result = _everything(engine) | _moments(engine)
    engine.destroy()
    return result


def unfreeze(stage: int, dtype: str, thawed: bool, built_frozen: bool, directory: str) -> dict[str, torch.Tensor]:
    """Layers that freeze and thaw: what they missed and what they keep meanwhile is in the checkpoint."""
    engine = _make(stage, dtype)
    _train_partly(engine, thawed)
    engine.save_checkpoint(directory)
    expected = _train_the_rest(engine)
    other = _make(stage, dtype, seed=6, frozen_block=built_frozen)
    other.load_checkpoint(directory)
    _freeze(other, not thawed)
    models.assert_equal(_train_the_rest(other), expected)
    return expected


def unfreeze_elsewhere(stage: int, directory: str) -> dict[str, torch.Tensor]:
    engine = _make(stage, seed=6)
    models.train(engine, 1)
    engine.load_checkpoint(directory)
    _freeze(engine, True)
    return _train_the_rest(engine)


def before_any_step(directory: str) -> None:
    """States of an engine that has trained do not outlive the loading of a checkpoint without states."""
    engine = _make(2)
    engine.save_checkpoint(directory)
    models.train(engine, 2)
    expected = _everything(engine)
    engine.load_checkpoint(directory)
    models.train(engine, 2)
    names = {n for n in expected if n.startswith("master")}
    models.assert_equal({n: v for n, v in _everything(engine).items() if n in names}, {n: expected[n] for n in names})
    engine.destroy()


def _stderr_of(action: Callable[[], Any]) -> str:
    with Log() as log:
        action()
    return log.text


def within_a_window(stage: int, directory: str) -> None:
    """The gradients of an open window are not saved: the window is repeated whole."""
    def micro_steps(engine: Any, numbers: range) -> None:
        for number in numbers:
            engine.backward(models.loss_of(engine, models.batch(number)))
            engine.step()

    engine = _make(stage, accumulation=3)
    engine.module.norm.eval()
    micro_steps(engine, range(4))
    text = _stderr_of(lambda: engine.save_checkpoint(directory))
    assert ("within an accumulation window" in text and "micro step 3" in text) == (rank() == 0), text
    micro_steps(engine, range(4, 6))
    other = _make(stage, accumulation=3, seed=8)
    other.module.norm.eval()
    other.load_checkpoint(directory)
    assert (other.micro_steps, other.global_steps) == (3, 1)
    micro_steps(other, range(3, 6))
    assert _counters(other) == _counters(engine)
    left, right = _everything(other), _everything(engine)
    assert left.pop("count") == right.pop("count") + 1
    models.assert_equal(left, right)
    assert "window" not in _stderr_of(lambda: engine.save_checkpoint(directory))
    engine.destroy()
    other.destroy()


def tags_and_latest(directory: str) -> None:
    engine = _make(1)
    assert engine.load_checkpoint(directory) == (None, None)
    models.train(engine, 1)
    engine.save_checkpoint(directory)
    models.train(engine, 1, first=1)
    engine.save_checkpoint(directory, tag="second")
    engine.save_checkpoint(directory, tag="unmarked", save_latest=False)
    assert open(os.path.join(directory, "latest")).read().strip() == "second"
    raises(ValueError, lambda: engine.load_checkpoint(directory, tag="secon"), "secon", "global_step1", "second", "unmarked")
    raises(ValueError, lambda: engine.save_checkpoint(directory, tag="a/b"), "a/b")
    path, _ = engine.load_checkpoint(directory, tag="global_step1")
    assert "global_step1" in path and engine.global_steps == 1
    assert "second" in engine.load_checkpoint(directory)[0] and engine.global_steps == 2
    engine.save_checkpoint(directory, tag="second")  # over the old one
    message = raises(ValueError, lambda: engine.save_checkpoint(directory, client_state={"x": object()}), "client_state", "a checkpoint cannot keep", "']: a ")
    assert message.startswith("save_checkpoint: client_state") and "Error" not in message, message
    engine.destroy()


def other_optimizer(directory: str) -> None:
    """States are those of one optimizer: another one takes the parameters alone."""
    kinds = {"Lion": {"lr": 0.001}, "Adagrad": {"lr": 0.01}, "SGD": {"lr": 0.1, "momentum": 0.9}, "client_adamw": {}, "AdamW": {"lr": 0.01}}
    made = {name: _make(2, optimizer="config", optimizer_section={"type": name, "params": params}) for name, params in kinds.items() if params}
    made["client_adamw"] = _make(2, optimizer="client_adamw")
    saved = {}
    for name, engine in made.items():
        models.train(engine, 1)
        saved[name] = models.full_state(engine)
        engine.save_checkpoint(directory, tag=name)
    for name, other in (("Lion", "Adagrad"), ("SGD", "Lion"), ("AdamW", "SGD"), ("client_adamw", "AdamW"), ("Lion", "client_adamw")):
        before = models.full_state(made[other])
        raises(ValueError, lambda: made[other].load_checkpoint(directory, tag=name), name.removeprefix("client_adamw"),
               other.removeprefix("client_adamw"), '"client": true' if "client_adamw" in (name, other) else "states",
               "load_optimizer_states=False")
        models.assert_equal(models.full_state(made[other]), before)
        made[other].load_checkpoint(directory, tag=name, load_optimizer_states=False)
        models.assert_equal(models.full_state(made[other]), saved[name])
        models.train(made[other], 1)
    for name, engine in made.items():
        assert engine.load_checkpoint(directory, tag=name)[0] and engine.global_steps == 1
        engine.destroy()


def frozen_left_out(stage: int, directory: str) -> None:
    engine = _make(stage)
    engine.save_checkpoint(directory, exclude_frozen_parameters=True)
    expected = models.full_state(engine)
    engine.destroy()
    other = _make(stage, seed=2)
    kept = models.full_state(other)["frozen.weight"]
    raises(ValueError, lambda: other.load_checkpoint(directory), "frozen.weight")
    other.load_checkpoint(directory, load_module_strict=False)
    state = models.full_state(other)
    assert torch.equal(state["frozen.weight"], kept)
    assert torch.equal(state["head.weight"], expected["head.weight"])
    other.destroy()


class Other(Odd):
    def __init__(self, more: bool, width: int = models.WIDTH) -> None:
        super().__init__(width)
        if more:
            self.extra = nn.Parameter(torch.ones(3))


def wrong_models(directory: str) -> None:
    engine = _make(3)
    engine.save_checkpoint(directory)
    engine.destroy()
    for make, fragments in ((lambda: Other(True), ["extra"]), (lambda: Other(False, 14), ["shape", "12", "14"])):
        other = hydrofoil.initialize(model=plain(1, make), config=models.config(3))[0]
        before = models.full_state(other)
        raises(ValueError, lambda: other.load_checkpoint(directory), *fragments)
        models.assert_equal(models.full_state(other), before)
        models.train(other, 1)
        other.destroy()
    less = hydrofoil.initialize(model=plain(1, lambda: Other(True)), config=models.config(3))[0]
    less.load_checkpoint(directory, load_module_strict=False)
    less.destroy()


def one_rank_fails(directory: str) -> None:
    """What goes wrong on one rank is an error of all, at once, and nothing half-written stays."""
    engine = _make(2, hydrofoil={"collective_timeout_s": 20.0})
    models.train(engine, 1)
    engine.save_checkpoint(directory, tag="good")
    last = world_size() - 1
    bad: dict[str, Any] = {"x": object()} if rank() == last else {}
    raises(ValueError, lambda: engine.save_checkpoint(directory, tag="bad", client_state=bad), "client_state")
    assert sorted(name for name in os.listdir(directory) if not name.startswith(".")) in (["good", "latest"],), os.listdir(directory)
    message = raises(ValueError, lambda: engine.load_checkpoint(directory, tag="gone" if rank() == last else "good"), "gone")
    assert "good" in message
    missing = os.path.join(directory, "nowhere") if rank() == 0 else directory
    raises(ValueError, lambda: engine.load_checkpoint(missing), "latest")
    models.train(engine, 1, first=1)
    engine.load_checkpoint(directory)
    assert engine.global_steps == 1
    engine.destroy()


def damaged(directory: str) -> None:
    engine = _make(3)
    models.train(engine, 1)
    engine.save_checkpoint(directory, tag="whole")
    torch.distributed.barrier()
    files = [os.path.join(root, f) for root, _, names in os.walk(os.path.realpath(os.path.join(directory, "whole"))) for f in sorted(names)
             if f.endswith(".safetensors")]
    if rank() == 0:
        with open(files[-1], "r+b") as file:
            file.seek(-9, os.SEEK_END)
            byte = file.read(1)
            file.seek(-9, os.SEEK_END)
            file.write(bytes([byte[0] ^ 255]))
    torch.distributed.barrier()
    raises(ValueError, lambda: engine.load_checkpoint(directory, tag="whole"), "checksum")
    engine.destroy()


def client_at_another_world_size(directory: str, write: bool) -> Optional[str]:
    engine = _make(1, optimizer="client_adamw")
    if write:
        models.train(engine, 1)
        engine.save_checkpoint(directory)
        engine.destroy()
        return None
    message = raises(ValueError, lambda: engine.load_checkpoint(directory), "ranks", "load_optimizer_states=False")
    engine.load_checkpoint(directory, load_optimizer_states=False)
    models.train(engine, 1)
    engine.destroy()
    return message


def model_16bit(stage: int, directory: str) -> None:
    from safetensors.torch import load_file

    engine = _make(stage, "bf16", zero_optimization={"stage": stage, "stage3_gather_16bit_weights_on_model_save": True})
    models.train(engine, 1)
    state = models.full_state(engine)
    assert engine.save_16bit_model(directory) is True
    assert engine.save_16bit_model(directory, "other.safetensors", exclude_frozen_parameters=True) is True
    raises(ValueError, lambda: engine.save_16bit_model(directory, "pytorch_model.bin"), "safetensors")
    torch.distributed.barrier()
    saved = load_file(os.path.join(directory, "model.safetensors"))
    assert set(state) - set(saved) == {"head.weight"}, set(state) ^ set(saved)  # tied: kept once
    same = {n for n in saved if rank() == 0 or not n.startswith("norm.running")}  # buffers are rank 0's
    models.assert_equal({n: saved[n] for n in same}, {n: state[n] for n in same})
    assert "frozen.weight" not in load_file(os.path.join(directory, "other.safetensors"))
    model = Odd().to(torch.bfloat16)
    model.load_state_dict(saved, strict=False)
    engine.destroy()
    if stage == 3 and world_size() > 1:
        engine = _make(3, "bf16")
        assert engine.save_16bit_model(directory + "/none") is False
        engine.destroy()


class Counted(nn.Module):
    """Its state is a value of Python's."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def get_extra_state(self) -> Any:
        return self.value

    def set_extra_state(self, state: Any) -> None:
        self.value = state


def _extra(**values: Any) -> Any:
    model = plain(1)
    for name, value in values.items():
        model.add_module(name, Counted(value))
    return hydrofoil.initialize(model=model, config=models.config(2))[0]


def extra_state(directory: str) -> None:
    value = {"n": rank(), 3: (1, None), "t": torch.arange(4.0)}
    engine = _extra(a=value, b=torch.ones(2, 3, dtype=torch.bfloat16))
    engine.save_checkpoint(directory, tag="both")
    other = _extra(a=None, b=None)
    other.load_checkpoint(directory)
    loaded = other.module.a.value
    assert torch.equal(loaded.pop("t"), value["t"]) and loaded == {"n": rank(), 3: (1, None)}
    assert torch.equal(other.module.b.value, torch.ones(2, 3, dtype=torch.bfloat16))
    state = engine.module_state_dict()
    assert state["a._extra_state"] is value and torch.equal(state["b._extra_state"], engine.module.b.value)
    other.load_module_state_dict(state)
    assert other.module.a.value is value
    more = _extra(a=None, b=None, c="kept")
    raises(ValueError, lambda: more.load_checkpoint(directory), "'c'", "extra state")
    more.load_checkpoint(directory, load_module_strict=False)
    assert more.module.c.value == "kept" and more.module.a.value["n"] == rank()
    _make(2).save_checkpoint(directory, tag="none")  # as files of before
    assert "'c'" in _stderr_of(lambda: more.load_checkpoint(directory, tag="none"))
    engine.module.a.value = [object()]
    raises(ValueError, lambda: engine.save_checkpoint(directory, tag="bad"), "module 'a'", "Counted", "get_extra_state")


def tensor_lr(directory: str) -> None:
    """A learning rate in a tensor is kept, and stays the tensor that the user holds."""
    def make(lr: torch.Tensor) -> Any:
        model, settings = plain(), models.config(1)
        settings.pop("optimizer")
        optimizer = torch.optim.SGD([{"params": [p for p in model.parameters() if p.requires_grad], "lr": lr, "note": print}], lr=0.1)
        return hydrofoil.initialize(model=model, config=settings, optimizer=optimizer)[0]

    engine, mine = make(torch.tensor(0.25)), torch.tensor(0.5)
    text = _stderr_of(lambda: engine.save_checkpoint(directory))
    assert text.count("parameter groups: note") == 1, text
    other = make(mine)
    other.load_checkpoint(directory)
    assert other.optimizer.param_groups[0]["lr"] is mine and mine.item() == 0.25
