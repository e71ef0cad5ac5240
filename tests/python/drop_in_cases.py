"""Run on every rank by test_drop_in_engine.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import hydrofoil
from hydrofoil import ops, utils, zero
from hydrofoil.zero import GatheredParameters, ZeroParamStatus
from tests.support import models
from tests.support.models import config


def _engine(stage: int, **section: Any) -> Any:
    torch.manual_seed(0)
    return hydrofoil.initialize(model=models.Odd(), config=config(stage, **section))[0]


def collectives() -> None:
    """They take DeepSpeed's names of arguments."""
    comm, world, rank = hydrofoil.comm, models.world_size(), models.rank()
    ones = torch.ones(world)
    comm.all_reduce(ones, op=comm.ReduceOp.SUM, prof=True, log_name="mine", debug="caller")
    assert ones.eq(world).all()
    whole, part = torch.empty(world), torch.empty(1)
    comm.all_gather_into_tensor(output_tensor=whole, tensor=torch.full((1,), float(rank)), prof=False)
    assert torch.equal(whole, torch.arange(float(world)))
    comm.reduce_scatter_tensor(output_tensor=part, tensor=whole.clone(), op=comm.ReduceOp.SUM)
    assert part.item() == world * rank
    comm.all_to_all_single(output=ones, tensor=whole, log_name="mine")
    assert ones.eq(rank).all()
    comm.inference_all_reduce(ones, async_op=True).wait()
    comm.barrier(log_name="mine")


def attributes() -> None:
    """What programs read of a parameter: on sharded ones only."""
    plain = models.Odd()
    assert not any(hasattr(p, name) for p in plain.parameters() for name in ("ds_id", "ds_status", "all_gather"))
    assert not hasattr(next(_engine(2).module.parameters()), "ds_id")
    engine = _engine(3)
    world = models.world_size()
    for name, p in engine.module.named_parameters():
        assert p.ds_numel == plain.get_parameter(name).numel() and p.ds_shape == plain.get_parameter(name).shape
        parts = [None] * world
        torch.distributed.all_gather_object(parts, p.ds_tensor.clone())
        with GatheredParameters([p]):
            assert p.ds_status == ZeroParamStatus.AVAILABLE
            torch.testing.assert_close(torch.cat(parts), p.detach().flatten(), rtol=0, atol=0)
        assert p.ds_summary()["ds_numel"] == p.ds_numel and p.ds_tensor.ds_numel == p.partition_numel()
        p.all_gather()
        assert p.ds_status == ZeroParamStatus.AVAILABLE
        p.detach().sum()
        p.partition()
    ids = [p.ds_id for p in engine.module.parameters()]
    assert len(set(ids)) == len(ids)
    weight = engine.module.blocks[0].up.weight
    if world > 1:
        assert weight.ds_status == ZeroParamStatus.NOT_AVAILABLE
    weight.all_gather()
    with torch.no_grad():
        weight.fill_(float(models.rank() + 1))
    weight.partition(has_been_updated=True)
    with GatheredParameters([weight]):
        assert weight.unique().tolist() == [1.0]
    engine.destroy(gather=True)
    assert not hasattr(weight, "ds_id") and weight.sum() == weight.numel()


def attributes_under_init() -> None:
    with zero.Init(config_dict_or_path=config(3)):
        linear = nn.Linear(7, 5)
    weight = linear.weight
    assert weight.ds_numel == 35 and weight.ds_shape == (5, 7) and weight.ds_id != linear.bias.ds_id
    assert models.world_size() == 1 or weight.ds_status == ZeroParamStatus.NOT_AVAILABLE
    sizes = [None] * models.world_size()
    torch.distributed.all_gather_object(sizes, weight.ds_tensor.numel())
    assert sum(sizes) == 35
    handle = weight.all_gather_coalesced([weight, linear.bias])
    handle.wait()
    assert linear.bias.ds_status == ZeroParamStatus.AVAILABLE and weight.aligned_size() == 35 and weight.padding_size() == 0
    weight.partition([weight, linear.bias])
    with pytest.raises(NotImplementedError, match="partition_gradients"):
        weight.partition_gradients([weight])
    weight.all_gather()
    assert weight.ds_status == ZeroParamStatus.AVAILABLE and torch.isfinite(weight).all()
    weight.partition()


def init_arguments() -> None:
    """Each argument of zero.Init: of all ranks it is accepted, of some an error; a name that does not exist a TypeError."""
    everyone, alone = torch.distributed.group.WORLD, torch.distributed.new_group([0])
    for accepted in ({"data_parallel_group": everyone}, {"sequence_data_parallel_group": everyone}, {"remote_device": "cpu", "pin_memory": True},
                     {"mem_efficient_linear": False, "zero_quantized_weights": False}):
        with zero.Init(**accepted):
            assert nn.Linear(5, 7).weight.ds_shape == (7, 5)
    for refused in ({"zero_quantized_weights": True}, {"param_swapper": object()}, {"remote_device": "nvme"}, {"mpu": object()},
                    *([{"data_parallel_group": alone}] if models.world_size() > 1 and models.rank() == 0 else [])):
        with pytest.raises(NotImplementedError, match="zero.Init"):
            zero.Init(**refused)
    with pytest.raises(TypeError, match="no_such_argument"):
        zero.Init(no_such_argument=1)


def forgotten_engine(stage: int) -> None:
    """An engine that the program has dropped without destroy() lets go of the model at the next initialize."""
    model = models.plain()
    weight = model.head.weight
    engine = hydrofoil.initialize(model=model, config=models.config(stage))[0]
    models.train(engine, 1)
    expected = utils.safe_get_full_fp32_param(weight)
    with pytest.raises(ValueError, match="belongs to an engine already"):  # while it lives
        hydrofoil.initialize(model=model, config=models.config(stage))
    models.train(engine, 0)  # no harm done
    del engine
    again = hydrofoil.initialize(model=model, config=models.config(stage))[0]
    torch.testing.assert_close(utils.safe_get_full_fp32_param(weight), expected, rtol=0, atol=0)
    models.train(again, 1)
    again.destroy(gather=True)
    again.destroy()  # again: nothing happens
    assert weight.isfinite().all()


def local_parts() -> None:
    """The parts of all ranks, one after the other, are the full values; what is set locally is what training goes on with."""
    engine = _engine(3)
    models.train(engine, 2)
    loss = engine(models.batch(0)).square().mean()
    engine.backward(loss)
    world = models.world_size()
    kinds = {"exp_avg": utils.safe_get_full_optimizer_state, "exp_avg_sq": utils.safe_get_full_optimizer_state}
    for p in [p for p in engine.module.parameters() if p.requires_grad]:
        pairs = [(utils.safe_get_local_fp32_param(p), utils.safe_get_full_fp32_param(p)), (utils.safe_get_local_grad(p), utils.safe_get_full_grad(p))]
        pairs += [(utils.safe_get_local_optimizer_state(p, kind), full(p, kind)) for kind, full in kinds.items()]
        for local, full in pairs:
            parts = [None] * world
            torch.distributed.all_gather_object(parts, local)
            torch.testing.assert_close(torch.cat(parts), full.flatten(), rtol=0, atol=0)
        utils.safe_set_local_grad(p, torch.zeros_like(utils.safe_get_local_grad(p)))
        utils.safe_set_local_optimizer_state(p, torch.full_like(utils.safe_get_local_optimizer_state(p, "exp_avg"), 2.0), "exp_avg")
        utils.safe_set_local_fp32_param(p, torch.full_like(utils.safe_get_local_fp32_param(p), 3.0))
        assert not utils.safe_get_full_grad(p).any()
        assert (utils.safe_get_full_optimizer_state(p, "exp_avg") == 2.0).all() and (utils.safe_get_full_fp32_param(p) == 3.0).all()
        with GatheredParameters([p]):
            assert (p == 3.0).all()
    utils.safe_update_full_grad_vectorized(list(engine.module.parameters()), lambda gradient, _: torch.ones_like(gradient))
    assert (utils.safe_get_full_grad(engine.module.bias) == 1.0).all()
    with pytest.raises(ValueError, match="elements, expected this rank's"):
        utils.safe_set_local_fp32_param(engine.module.bias, torch.zeros(99))
    frozen = engine.module.frozen.weight
    for get in (utils.safe_get_local_fp32_param, utils.safe_get_local_grad, utils.safe_get_full_fp32_param, utils.safe_get_full_grad):
        assert get(frozen) is None
    assert utils.safe_get_full_optimizer_state(frozen, "exp_avg") is utils.safe_get_local_optimizer_state(frozen, "exp_avg") is None
    assert utils.safe_get_full_fp32_param(torch.zeros(2)) is None
    with pytest.raises(ValueError, match="is frozen"):
        utils.safe_set_local_fp32_param(frozen, torch.zeros(0))
    with pytest.raises(ValueError, match="need zero_optimization.stage 3"):
        utils.safe_get_local_fp32_param(_engine(1).module.bias)


def native_optimizers(stage: int) -> None:
    """DeepSpeed's optimizer classes are the config's optimizers, and follow edits of their param_groups."""
    for kind, made, params in (("AdamW", lambda p: ops.DeepSpeedCPUAdam(p, lr=0.01, weight_decay=0.1), {"lr": 0.01, "weight_decay": 0.1}),
                               ("Adam", lambda p: ops.FusedAdam(p, lr=0.01, adam_w_mode=False), {"lr": 0.01, "adam_w_mode": False}),
                               ("Lion", lambda p: ops.FusedLion(p, lr=0.01), {"lr": 0.01}), ("Adagrad", lambda p: ops.DeepSpeedCPUAdagrad(p, lr=0.01), {"lr": 0.01})):
        losses = []
        for own in (False, True):
            settings = config(stage)
            settings.pop("optimizer", None)
            torch.manual_seed(0)
            model = models.Odd()
            if own:
                optimizer = made([p for p in model.parameters() if p.requires_grad])
                engine, wrapped, *_ = hydrofoil.initialize(model=model, optimizer=optimizer, config=settings)
                assert engine.core.native_optimizer is not None
            else:
                engine, wrapped, *_ = hydrofoil.initialize(model=model, config={**settings, "optimizer": {"type": kind, "params": params}})
                optimizer = wrapped
            losses.append(models.train(engine, 2))
            optimizer.param_groups[0]["lr"] = 0.001  # the user's own object, as schedulers of theirs hold it
            losses[-1] += models.train(engine, 2, first=2)
            engine.destroy()
        assert losses[0] == losses[1], kind
    with pytest.raises(NotImplementedError, match="inside hydrofoil.initialize"):
        optimizer.step()


def torch_adam(stage: int) -> None:
    """Without weight_decay the step is that of torch's optimizer with torch's own default."""
    for kind, params, reference in (("AdamW", {}, torch.optim.AdamW), ("Adam", {}, torch.optim.AdamW), ("Adam", {"adam_w_mode": False}, torch.optim.Adam)):
        expected = models.plain()
        optimizer = reference([p for p in expected.parameters() if p.requires_grad], lr=0.5)  # so large that the decay shows
        for r in range(models.world_size()):
            (models.loss_of(expected, models.batch(0, r)) / models.world_size()).backward()
        optimizer.step()
        settings = config(stage, optimizer={"type": kind, "params": {"torch_adam": True, "lr": 0.5, **params}}, gradient_clipping=0.0)
        engine, wrapped, *_ = hydrofoil.initialize(model=models.plain(), config=settings)
        assert wrapped.param_groups[0]["weight_decay"] == optimizer.defaults["weight_decay"]
        models.train(engine, 1)
        state = models.full_state(engine)
        for name, value in expected.named_parameters():
            if name != "bias":  # its gradient is rounding noise, which Adam blows up
                assert torch.allclose(state[name], value, rtol=1e-4, atol=1e-5), (kind, name)
        engine.destroy()


def batch_sizes(stage: int) -> None:
    """set_train_batch_size changes the accumulation steps between windows, with the losses of an engine that was made so."""
    world = models.world_size()
    engine = _engine(stage)
    micro = engine.train_micro_batch_size_per_gpu()
    models.train(engine, 2)
    engine.set_train_batch_size(3 * micro * world)
    assert engine.get_batch_info() == (3 * micro * world, micro, 3)
    twin = _engine(stage)
    models.train(twin, 2)
    for step in range(3):  # three micro batches are their mean
        assert engine.global_steps == 2
        engine.backward(models.loss_of(engine, models.batch(step + 7)))
        assert engine.is_gradient_accumulation_boundary() == (step == 2)
        engine.step()
        if step == 1:
            with pytest.raises(ValueError, match="after 2 micro steps of an accumulation window"):
                engine.set_train_batch_size(micro * world)
    twin.backward(sum(models.loss_of(twin, models.batch(step + 7)) for step in range(3)) / 3)
    twin.step()
    assert engine.global_steps == 3
    other = twin.module_state_dict()
    for name, mine in engine.module_state_dict().items():
        if mine.is_floating_point() and name != "bias":  # whose gradient is zero but for rounding
            torch.testing.assert_close(mine, other[name], rtol=1e-4, atol=1e-5, msg=name)
    engine.set_train_micro_batch_size(5)
    assert engine.get_batch_info() == (15 * world, 5, 3)
    with pytest.raises(ValueError, match=f"got {15 * world + 1}, expected a multiple of {5 * world}"):
        engine.set_train_batch_size(15 * world + 1)


def coalesced(stage: int) -> None:
    """Two backward passes before a step are one of their losses' sum."""
    engine, twin = _engine(stage), _engine(stage)
    with engine.coalesce_grad_reduction():
        for step in range(2):
            engine.backward(models.loss_of(engine, models.batch(step)))
    twin.backward(models.loss_of(twin, models.batch(0)) + models.loss_of(twin, models.batch(1)))
    torch.testing.assert_close(utils.safe_get_full_grad(engine.module.scale), utils.safe_get_full_grad(twin.module.scale), rtol=1e-4, atol=1e-6)
    engine.step()
    assert engine.global_steps == 1
    with pytest.raises(NotImplementedError, match="got ZeRO stage 0"):
        with _engine(0).coalesce_grad_reduction():
            pass


def consolidated(stage: int) -> None:
    engine = _engine(stage)
    models.train(engine, 1)
    expected = engine.module_state_dict()
    state = engine._zero3_consolidated_16bit_state_dict()
    if models.rank() == 0:
        assert sorted(state) == sorted(expected)
        for name, value in state.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
        assert state["head.weight"] is state["embedding.weight"]
        assert "frozen.weight" in state
    else:
        assert state is None
    trained = engine._consolidated_16bit_state_dict(exclude_frozen_parameters=True)
    assert models.rank() != 0 or "frozen.weight" not in trained
    engine.empty_partition_cache()
    models.train(engine, 1)
    assert engine.get_sequence_parallel_group() is None
