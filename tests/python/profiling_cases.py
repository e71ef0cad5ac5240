"""Ran on every rank by test_profiling.py."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import hydrofoil


class Model(nn.Module):
    """Three linears, the second under a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers[0](x)
        x = checkpoint(lambda y: torch.tanh(self.layers[1](y)), x, use_reentrant=False)
        return self.layers[2](x).square().sum()


def engine_of(stage: int, **settings: Any) -> hydrofoil.Engine:
    torch.manual_seed(0)
    own = {"unit_min_bytes": 0, "keep_gathered_bytes": 0, **settings.pop("hydrofoil", {})}
    config = {"train_micro_batch_size_per_gpu": 4, "optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": stage}, "hydrofoil": own,
              **settings}
    return hydrofoil.initialize(model=Model(), config=config)[0]


def train(engine: hydrofoil.Engine, micro_steps: int) -> None:
    for _ in range(micro_steps):
        engine.backward(engine(torch.ones(4, 6)))
        engine.step()


def profile_step(stage: int, path: str) -> None:
    engine = engine_of(stage, gradient_accumulation_steps=2,
                       flops_profiler={"enabled": True, "profile_step": 1, "output_file": path})
    for _ in range(3):
        before = os.path.exists(path)
        engine.backward(engine(torch.ones(4, 6)))
        engine.step()
        assert not before and not os.path.exists(path)
    train(engine, 1)
    assert os.path.exists(path) or engine.global_rank != 0
    if engine.global_rank == 0:
        os.rename(path, path + ".first")
    train(engine, 2)
    assert not os.path.exists(path)
    assert engine.flops_profiler_enabled() and engine.flops_profiler_profile_step() == 1
    torch.distributed.barrier()
    if engine.global_rank == 0:
        os.rename(path + ".first", path)
    engine.destroy()


def comm_rows(stage: int, micro_steps: int, **settings: Any) -> list[tuple[str, str, int, int]]:
    engine = engine_of(stage, comms_logger={"enabled": True, **settings})
    train(engine, 1)
    hydrofoil.comm.reset_log()
    train(engine, micro_steps)
    rows = hydrofoil.comm.log_summary()
    waited = hydrofoil.comm.log_summary(show_straggler=True)
    key = [(row.op, row.unit, row.message_bytes, row.count) for row in rows]
    assert key == [(row.op, row.unit, row.message_bytes, row.count) for row in waited], "the summary counts itself"
    for row in waited:
        assert len(row.waited_s) == engine.world_size and min(row.waited_s) >= 0 and row.total_s > 0
        assert row.average_s == pytest.approx(row.total_s / row.count)
        assert row.algorithm_bytes_per_s == pytest.approx(row.message_bytes / row.average_s)
    said = hydrofoil.comm.log_summary(show_straggler=True, return_dict=True)
    assert said["metadata"]["world_size"] == engine.world_size
    for row in waited:
        name = f"{row.op} | {row.unit}" if row.unit else row.op
        entry, late = said["summary"][name][row.message_bytes], said["straggler_analysis"][name][row.message_bytes]
        assert entry["count"] == late["count"] == row.count and entry["total_latency_ms"] == pytest.approx(1e3 * row.total_s)
        assert entry["tput_avg_gbps"] == pytest.approx(8e-9 * row.algorithm_bytes_per_s)
        assert entry["busbw_avg_gbps"] == pytest.approx(8e-9 * row.bus_bytes_per_s)
        assert late["total_comm_lat_ms"] + late["total_straggler_ms"] == pytest.approx(entry["total_latency_ms"])
    engine.destroy()
    del engine
    return key


def script_calls(backend: str) -> list[tuple[str, str, int, int, int]]:
    """A script's own calls through hydrofoil.comm, by DeepSpeed's names of arguments, counted without an engine."""
    comm = hydrofoil.comm
    group, alone = torch.distributed.new_group(backend=backend), torch.distributed.new_group([0])
    rank = torch.distributed.get_rank()
    comm.configure(enabled=True)
    comm.reset_log()
    x, both = torch.ones(4), torch.empty(8)
    comm.all_reduce(x, group=group)
    torch.testing.assert_close(x, torch.full((4,), 2.0))
    comm.all_reduce(x, group=group, prof=True, log_name="loss", debug="anything")
    comm.all_reduce(x, group=group, async_op=True).wait()
    comm.all_reduce(x, group=alone)  # rank 1 is not of it
    comm.all_gather_into_tensor(output_tensor=both, tensor=x, group=group)
    comm.reduce_scatter_tensor(output_tensor=x, tensor=both, group=group, async_op=True).wait()
    torch.testing.assert_close(x, torch.full((4,), 8.0 * 2))
    comm.all_to_all_single(both, tensor=torch.ones(8), group=group)
    comm.gather(x, [torch.empty(4), torch.empty(4)] if rank == 0 else None, dst=0, group=group)
    comm.broadcast_object_list([None], src=0, group=group)
    for work in comm.batch_isend_irecv([comm.P2POp(comm.isend, x, 1 - rank), comm.P2POp(comm.irecv, torch.empty(4), 1 - rank)]):
        work.wait()
    works = [comm.isend(x, 1 - rank), comm.irecv(torch.empty(4), 1 - rank)]
    for work in works:
        work.wait()
        assert work.is_completed()
    comm.barrier(group=group)
    rows = comm.log_summary()
    as_dict = comm.log_summary(return_dict=True)
    assert as_dict["summary"]["all_reduce | loss"][16]["count"] == 1 and as_dict["metadata"]["rank"] == rank
    assert comm.has_comm_data() and comm.get_comm_operation_count() == sum(row.count for row in rows)
    assert comm.get_logged_comm_ops() == sorted({row.op for row in rows})
    comm.configure({"comms_logger": {"enabled": True, "debug": True, "prof_all": False, "prof_ops": ["broadcast"]}})
    comm.broadcast(x, 0)
    comm.all_reduce(x)
    (row,) = comm.log_summary()
    assert row.op == "broadcast" and row.unit.startswith("profiling_cases.py:"), (row.op, row.unit)
    comm.configure(enabled=False)
    comm.all_reduce(x, prof=True)
    assert not comm.has_comm_data()
    torch.distributed.barrier()
    return [(row.op, row.unit, row.message_bytes, row.group_size, row.count) for row in rows]


def no_comm_log() -> str:
    hydrofoil.comm.configure(enabled=False)
    engine = engine_of(1)
    train(engine, 1)
    assert engine.core.comm_log is None
    with pytest.raises(ValueError, match="nothing counts collectives") as caught:
        hydrofoil.comm.log_summary()
    engine.destroy()
    return str(caught.value)


def profiler_ranges(stage: int) -> list[str]:
    """Names of hydrofoil's ranges in a torch.profiler profile of one step."""
    engine = engine_of(stage)
    train(engine, 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        train(engine, 1)
    engine.destroy()
    return sorted({event.name for event in profiler.events() if event.name.startswith("hydrofoil ")})


def trace(stage: int, path: str) -> None:
    engine = engine_of(stage, hydrofoil={"trace": {"path": path, "first_step": 2, "num_steps": 2}})
    train(engine, 2)
    assert not os.path.exists(path)
    train(engine, 2)
    engine.destroy()
