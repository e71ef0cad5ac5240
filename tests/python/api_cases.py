"""What every rank runs for test_engine_api.py."""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
from typing import Any

import torch
from torch import nn

import hydrofoil
from hydrofoil import comm, utils
from tests.python.access_cases import Log
from tests.support import models
from tests.support.models import Odd, plain, raises, rank, world_size


def names_and_values(stage: int) -> None:
    """Every name that the engine and the optimizer promise, and what it says."""
    torch.manual_seed(0)
    model = Odd()
    settings = models.config(stage, "fp16", 2, fp16={"enabled": True, "initial_scale_power": 6}, gradient_clipping=0.5,
                             scheduler={"type": "WarmupLR", "params": {"warmup_max_lr": 0.01, "warmup_num_steps": 5}})
    engine, optimizer, loader, scheduler = hydrofoil.initialize(model=model, model_parameters=model.parameters(), config=settings)
    assert isinstance(engine, hydrofoil.DeepSpeedEngine) and isinstance(engine, nn.Module)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert loader is None and engine.training_dataloader is None
    assert engine.module is model and engine.optimizer is optimizer and engine.lr_scheduler is scheduler
    assert engine.device == torch.device("cpu") and engine.global_rank == rank() and engine.local_rank == rank()
    assert engine.world_size == engine.dp_world_size == world_size() and engine.mp_world_size == 1
    assert engine.config is settings and len(engine.param_names) == len(list(model.parameters()))
    assert (engine.train_batch_size(), engine.train_micro_batch_size_per_gpu(), engine.gradient_accumulation_steps()) == (
        8 * world_size(), 4, 2) == engine.get_batch_info()
    assert engine.gradient_clipping() == 0.5 and engine.zero_optimization_stage() == stage
    assert engine.zero_optimization() is (stage > 0) and engine.fp16_enabled() and not engine.bfloat16_enabled()
    assert engine.get_global_grad_norm() is None
    assert engine.loss_scale == engine.cur_scale == optimizer.loss_scale == optimizer.cur_scale == 64.0
    assert engine.dynamic_loss_scale() and optimizer.dynamic_loss_scale
    assert engine.steps_per_print() is None or engine.steps_per_print() >= 1
    assert engine.wall_clock_breakdown() is False and engine.dump_state() is False and engine.dataloader_drop_last() is False
    assert engine.optimizer_name() == "AdamW" and engine.scheduler_name() == "WarmupLR"
    assert engine.zero_optimization_partition_gradients() is (stage >= 2) and engine.zero_optimization_partition_weights() is (stage >= 3)
    assert engine.zero_gather_16bit_weights_on_model_save() is False
    assert engine.get_data_parallel_rank() == rank() and engine.get_model_parallel_rank() == 0
    assert engine.embedding is model.embedding  # what the engine has not, the module has
    raises(AttributeError, lambda: engine.nothing_like_it, "nothing_like_it")
    assert engine.train() is engine and engine.training and model.training
    engine.eval()
    assert not engine.training and not model.training
    engine.train()
    states = []
    for micro in range(4):
        assert engine.is_gradient_accumulation_boundary() is (micro % 2 == 1)
        loss = models.loss_of(engine, models.batch(micro))
        assert torch.equal(engine.backward(loss), loss / 2)
        engine.step()
        states.append((engine.micro_steps, engine.global_steps, engine.global_samples, engine.was_step_applied()))
    batch = 8 * world_size()
    assert states == [(1, 0, 0, False), (2, 1, batch, True), (3, 1, batch, False), (4, 2, 2 * batch, True)], states
    assert engine.skipped_steps == 0 and optimizer.overflow is False
    norm = engine.get_global_grad_norm()
    assert norm > 0 and math.isfinite(norm) and optimizer._global_grad_norm == norm
    assert engine.get_lr() == optimizer.get_lr() == [group["lr"] for group in optimizer.param_groups] == scheduler.get_last_lr()
    assert engine.get_mom() == [(0.9, 0.999)]
    engine.set_gradient_accumulation_boundary(True)
    engine.backward(models.loss_of(engine, models.batch(9)))
    engine.step()
    assert engine.global_steps == 3
    engine.set_gradient_accumulation_boundary(False)
    assert not engine.is_gradient_accumulation_boundary()
    engine.backward(models.loss_of(engine, models.batch(9)))
    engine.step()
    assert engine.global_steps == 3
    engine.zero_grad()
    optimizer.zero_grad()
    optimizer.zero_grad(set_to_none=False)
    raises(ValueError, lambda: optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]}), "initialize")
    optimizer.override_loss_scale(32.0)
    assert engine.loss_scale == 32.0
    if stage < 2 or world_size() == 1 and stage < 2:
        with engine.no_sync():
            engine.backward(models.loss_of(engine, models.batch(1)))
    else:
        raises(ValueError, lambda: engine.no_sync().__enter__(), "stage")
    engine.zero_grad()
    assert "train_batch_size" in engine.explain() and engine.memory_report().parameter_bytes > 0
    assert set(engine.module_state_dict()) == set(model.state_dict())
    assert "frozen.weight" not in engine.module_state_dict(exclude_frozen_parameters=True)
    engine.destroy()


def optimizer_state_dict(stage: int, client: bool) -> None:
    """The optimizer's state_dict is this rank's: loaded into another engine the run goes on with the same bits."""
    def make() -> Any:
        model = plain()
        trainable = [p for p in model.parameters() if p.requires_grad]
        if client:
            return hydrofoil.initialize(model=model, optimizer=torch.optim.Adam(trainable, lr=0.01), config=models.config(stage, "bf16", optimizer=None))
        return hydrofoil.initialize(model=model, config=models.config(stage, "bf16"))

    engine, optimizer, _, _ = make()
    models.train(engine, 2)
    optimizer.param_groups[0]["lr"] = 0.02
    state, values = optimizer.state_dict(), engine.module_state_dict()
    assert state["param_groups"][0]["lr"] == 0.02 and state["state"]
    losses = models.train(engine, 2, first=2)
    expected = models.full_state(engine)
    engine.destroy()
    other, again, _, _ = make()
    other.load_module_state_dict(values)
    again.load_state_dict(state)
    assert models.train(other, 2, first=2) == losses
    models.assert_equal(models.full_state(other), expected)
    raises(ValueError, lambda: again.load_state_dict({"state": {}, "param_groups": []}), "state")
    other.destroy()


def optimizer_state_dict_keeps_the_loss_scaler() -> None:
    """After an overflow the scale goes the same way in the engine that loads: window and hysteresis count on."""
    keys = {"enabled": True, "initial_scale_power": 4, "hysteresis": 2, "loss_scale_window": 2}

    def make(**fp16: Any) -> Any:
        torch.manual_seed(0)
        return hydrofoil.initialize(model=nn.Linear(4, 1), config=models.config(1, fp16={**keys, **fp16}))[0]

    def step(engine: Any, number: int) -> float:
        scale = float("inf") if number in (2, 5) else 1.0
        engine.backward(engine(torch.ones(2, 4).half()).float().pow(2).mean() * scale)
        engine.step()
        return engine.loss_scale

    engine, other, older, constant = make(), make(), make(), make(loss_scale=8.0)
    for number in range(4):
        step(engine, number)
    state = engine.optimizer.state_dict()
    other.optimizer.load_state_dict(state)
    scales = [step(engine, number) for number in range(4, 9)]
    assert scales == [16.0, 8.0, 8.0, 8.0, 16.0]
    assert [step(other, number) for number in range(4, 9)] == scales
    del state["state"]["loss_scaler"], state["state"]["missed_steps"]  # as it was before
    older.optimizer.load_state_dict(state)
    assert older.loss_scale == 16.0
    older.optimizer.load_state_dict(constant.optimizer.state_dict())  # a constant scale has no counters
    assert older.loss_scale == 8.0
    for made in (engine, other, older, constant):
        made.destroy()


def optimizer_state_dict_keeps_missed_steps(stage: int) -> None:
    """A parameter that was frozen for some steps has a bias correction of its own, before it thaws and after."""
    def step(engine: Any, number: int) -> None:
        models.train(engine, 1, first=number)

    def make() -> Any:
        return hydrofoil.initialize(model=plain(), config=models.config(stage))[0]

    for thaws_before in (True, False):
        engine = make()
        engine.module.blocks[1].requires_grad_(False)
        step(engine, 0)
        step(engine, 1)
        if thaws_before:
            engine.module.blocks[1].requires_grad_(True)
            step(engine, 2)
        other = make()
        if not thaws_before:
            other.module.blocks[1].requires_grad_(False)
            step(other, 9)  # makes the layout
        other.load_module_state_dict(engine.module_state_dict())
        other.optimizer.load_state_dict(engine.optimizer.state_dict())
        for made in (engine, other):
            made.module.blocks[1].requires_grad_(True)
            step(made, 3)
        models.assert_equal(models.full_state(other), models.full_state(engine))
        for wrong in ([0], [-1] * len(engine.core.missed_steps)):
            with_wrong = engine.optimizer.state_dict()
            with_wrong["state"]["missed_steps"] = wrong
            raises(ValueError, lambda state=with_wrong: other.optimizer.load_state_dict(state), "expected")
        engine.destroy()
        other.destroy()


def training_data() -> None:
    data = torch.utils.data.TensorDataset(torch.arange(50), torch.arange(50) * 2)
    model = nn.Linear(2, 2)
    settings = models.config(1, dataloader_drop_last=True)
    engine, _, loader, _ = hydrofoil.initialize(model=model, config=settings, training_data=data)
    assert loader is engine.training_dataloader
    sizes = [len(a) for a, b in loader]
    assert all(size == 4 for size in sizes) and len(sizes) == len(loader) == 50 // world_size() // 4
    seen = torch.cat([a for a, b in loader])
    everyone: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(everyone, seen.tolist())
    together = sum(everyone, [])
    assert len(set(together)) == len(together)  # no sample twice
    assert seen.tolist() != torch.cat([a for a, b in loader]).tolist()  # another order in the next pass
    whole = engine.deepspeed_io(data, batch_size=3, route="eval")
    firsts = [a.tolist() for a, b in whole]
    assert firsts == [a.tolist() for a, b in whole]
    engine.destroy()
    doubled = hydrofoil.initialize(model=nn.Linear(2, 2), config=models.config(0), training_data=data,
                                   collate_fn=lambda items: [a * 10 for a, b in items])[2]
    assert all(value % 10 == 0 for batch in doubled for value in batch)
    assert sum(len(batch) for batch in doubled) >= 50 // world_size()
    repeating = utils.RepeatingLoader(doubled)
    assert sum(1 for _ in zip(range(3 * len(doubled)), repeating)) == 3 * len(doubled)


def model_parameters() -> None:
    """Lists, generators, (name, parameter) pairs, groups, callables."""
    def losses(**arguments: Any) -> list[float]:
        torch.manual_seed(0)
        model = Odd()
        made = {key: value(model) for key, value in arguments.items()}
        engine, optimizer, _, _ = hydrofoil.initialize(model=model, config=models.config(2, optimizer=None if "optimizer" in made else
                                                                                         {"type": "AdamW", "params": {"lr": 0.01}}), **made)
        result = models.train(engine, 2)
        engine.destroy()
        return [*result, len(optimizer.param_groups)]

    trainable = lambda model: [p for p in model.parameters() if p.requires_grad]  # noqa: E731
    expected = losses()
    assert losses(model_parameters=lambda m: m.parameters()) == expected
    assert losses(model_parameters=lambda m: list(m.named_parameters())) == expected
    assert losses(model_parameters=lambda m: [{"params": trainable(m)}]) == expected
    two = losses(model_parameters=lambda m: [{"params": trainable(m)[:2], "lr": 0.01}, {"params": trainable(m)[2:], "weight_decay": 0.0}])
    assert two == [*expected[:2], 2]
    other = losses(model_parameters=lambda m: [{"params": trainable(m)[:2], "lr": 0.1}, {"params": trainable(m)[2:]}])
    assert other[1] != expected[1]
    mine = losses(optimizer=lambda m: torch.optim.AdamW(trainable(m), lr=0.01, weight_decay=0.0))
    called = losses(optimizer=lambda m: (lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.0)))
    assert mine == called and all(abs(a - b) < 1e-4 for a, b in zip(mine, expected))
    raises(ValueError, lambda: losses(optimizer=lambda m: torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0)), "not parameters of the model")


def schedulers() -> None:
    def make(**arguments: Any) -> Any:
        return hydrofoil.initialize(model=plain(), config=models.config(1), **arguments)

    made = make(lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5))
    assert isinstance(made[3], torch.optim.lr_scheduler.StepLR)
    models.train(made[0], 2)
    assert made[0].get_lr() == [0.0025]
    model = plain()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    engine, wrapped, _, returned = hydrofoil.initialize(model=model, optimizer=optimizer, lr_scheduler=schedule, config=models.config(1, optimizer=None))
    assert returned is schedule
    models.train(engine, 2)
    assert engine.get_lr() == [0.025] == [group["lr"] for group in wrapped.param_groups]
    own = make(lr_scheduler=lambda optimizer: hydrofoil.lr_schedules.WarmupLR(optimizer, warmup_max_lr=0.1, warmup_num_steps=4))
    models.train(own[0], 1)
    assert own[3].get_last_lr() == own[0].get_lr()


def config_forms(directory: str) -> None:
    settings = models.config(1)
    path = os.path.join(directory, f"ds_{rank()}.json")
    with open(path, "w") as file:
        json.dump(settings, file)
    encoded = base64.urlsafe_b64encode(json.dumps(settings).encode()).decode()
    parser = hydrofoil.add_config_arguments(argparse.ArgumentParser())
    args = parser.parse_args(["--deepspeed", "--deepspeed_config", path])
    assert args.deepspeed is True
    for arguments in ({"config": settings}, {"config": path}, {"config": encoded}, {"args": args}, {"config_params": settings}):
        engine = hydrofoil.initialize(model=plain(), **arguments)[0]
        assert engine.zero_optimization_stage() == 1
        engine.destroy()
    raises(ValueError, lambda: hydrofoil.initialize(args=args, model=plain(), config=settings), "deepspeed_config", "both")
    raises(ValueError, lambda: hydrofoil.initialize(model=plain()), "config")
    raises(ValueError, lambda: hydrofoil.initialize(config=settings), "model")
    raises(ValueError, lambda: hydrofoil.initialize(model=plain(), config={**settings, "zero_optimisation": {}}), "zero_optimization")
    raises(TypeError, lambda: hydrofoil.initialize(model=plain(), config=3), "int")
    raises(NotImplementedError, lambda: hydrofoil.initialize(model=plain(), config=settings, mpu=object()), "mpu")
    only_forward = hydrofoil.initialize(model=plain(), config=models.config(3, optimizer=None))[0]
    loss = models.loss_of(only_forward, models.batch(0))
    raises(ValueError, lambda: only_forward.backward(loss), "optimizer")
    raises(ValueError, lambda: only_forward.step(), "optimizer")
    only_forward.destroy()
    assert comm.is_initialized() and comm.get_rank() == rank() and comm.get_world_size() == world_size() and comm.get_local_rank() == rank()
    hydrofoil.init_distributed()  # again: nothing happens
    comm.barrier()


# -- keys of the config ------------------------------------------------------------------------------------------------
def printed_keys() -> None:
    engine = hydrofoil.initialize(model=plain(), config=models.config(1, steps_per_print=2, wall_clock_breakdown=True))[0]
    with Log() as log:
        models.train(engine, 3)
    if rank() == 0:
        assert log.text.count("lr=[0.01], mom=[(0.9, 0.999)], grad_norm=") == 1 and "step=2, skipped=0, " in log.text, log.text
        assert log.text.count("time (ms)") == 1, log.text
        for phase in ("forward:", "backward:", "step:", "reduce wait:", "gather wait:"):
            assert phase in log.text, log.text
    else:
        assert log.text == ""
    engine.destroy()
    with Log() as log:
        hydrofoil.initialize(model=plain(), config=models.config(1, dump_state=True))[0].destroy()
    assert ("zero_optimization.stage" in log.text) is (rank() == 0), log.text
    quiet = hydrofoil.initialize(model=plain(), config=models.config(1, steps_per_print=float("inf")))[0]
    with Log() as log:
        models.train(quiet, 3)
    assert log.text == ""


class Dtypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        result = self.linear(x)
        self.seen += [x.dtype, extra["y"].dtype, extra["n"].dtype, result.dtype]
        return result


def casting_keys() -> None:
    inputs = torch.ones(2, 4), {"y": torch.ones(1), "n": torch.ones(1, dtype=torch.long)}
    cases = [
        ({"fp16": {"enabled": True, "auto_cast": True}}, [torch.float16, torch.float16, torch.long, torch.float16]),
        ({"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}, [torch.float32, torch.float32, torch.long, torch.bfloat16]),
        ({"torch_autocast": {"enabled": True}}, [torch.float32, torch.float32, torch.long, torch.bfloat16]),
        ({}, [torch.float32, torch.float32, torch.long, torch.float32]),
    ]
    for keys, expected in cases:
        model = Dtypes()
        engine = hydrofoil.initialize(model=model, config=models.config(3, **keys))[0]
        loss = engine(*inputs).float().sum()
        engine.backward(loss)
        engine.step()
        assert model.seen == expected, (keys, model.seen)
        engine.destroy()


def unit_keys() -> None:
    for keys in ({"hydrofoil": {"unit_names": ["blocks.1"]}}, {"zero_optimization": {"stage": 3, "leaf_module": {"names": ["blocks.1"]}}}):
        engine = hydrofoil.initialize(model=plain(), config=models.config(3, **keys))[0]
        models.train(engine, 1)
        engine.destroy()
    bad = models.config(3, hydrofoil={"unit_names": ["blocks.9"]})
    raises(ValueError, lambda: hydrofoil.initialize(model=plain(), config=bad), "blocks.9")

    def units(keys: list[str]) -> int:
        engine = hydrofoil.initialize(model=plain(0, Nested), config=models.config(3, hydrofoil={"unit_names": keys}))[0]
        count = max(u for scope in engine.core.scopes for u in scope.units) + 1
        engine.destroy()
        return count

    assert units(["experts"]) < units([])


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleDict({"a": nn.ModuleList([models.Block(), models.Block()]), "b": nn.ModuleList([models.Block()])})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def debug_keys() -> None:
    """enable_sanity_checks poisons what is released; results are the same."""
    losses = []
    for keys in ({}, {"zero_optimization": {"stage": 3, "enable_sanity_checks": True}}, {"hydrofoil": {"debug_checks": True}}):
        engine = hydrofoil.initialize(model=plain(), config=models.config(3, **keys))[0]
        losses.append(models.train(engine, 2))
        engine.destroy()
    assert losses[0] == losses[1] == losses[2]


def debug_environment() -> None:
    """HYDROFOIL_DEBUG logs what it checks, by name, and changes no bit; an unknown word is an error."""
    import contextlib
    import tempfile

    @contextlib.contextmanager
    def stderr_to(file: Any) -> Any:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

    losses = []
    logs = []
    try:
        for words in ("", "memory", "memory,comm|state"):
            os.environ["HYDROFOIL_DEBUG"] = words
            with tempfile.TemporaryFile("w+") as file:
                with stderr_to(file):
                    engine = hydrofoil.initialize(model=plain(), config=models.config(3))[0]
                    losses.append(models.train(engine, 2))
                    engine.destroy()
                file.seek(0)
                logs.append(file.read())
        os.environ["HYDROFOIL_DEBUG"] = "comms"
        raises(ValueError, lambda: hydrofoil.initialize(model=plain(), config=models.config(3)), "got 'comms'", "expected memory, comm or state")
    finally:
        del os.environ["HYDROFOIL_DEBUG"]
    assert losses[0] == losses[1] == losses[2]
    assert "state: " not in logs[1] and "comm: group" not in logs[1]
    if torch.distributed.get_world_size() == 1:  # nothing is sharded
        assert "state: gradients of unit blocks.1: empty -> filling" in logs[2]
        return
    for line in ("state: unit blocks.1: released -> gathering", "state: unit blocks.1: gathering -> gathered",
                 "state: gradients of unit blocks.1: empty -> filling", "all_gather of unit blocks.1 (numel"):
        assert line in logs[2], f"{line!r} is not in the log"


def timeout_key() -> None:
    """The deadline of a collective is hydrofoil.collective_timeout_s."""
    import time

    engine = hydrofoil.initialize(model=plain(), config=models.config(3, hydrofoil={"collective_timeout_s": 1.5, "unit_min_bytes": 0}))[0]
    torch.distributed.barrier()
    start = time.monotonic()
    if rank() == 0:
        raises(hydrofoil.CommError, lambda: models.train(engine, 1), "rank")
        assert time.monotonic() - start < 15
    else:
        time.sleep(5)
