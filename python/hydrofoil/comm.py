"""`deepspeed.comm`: torch.distributed under DeepSpeed's names, and the engine's own channels."""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import sys
import weakref
from datetime import timedelta
from typing import Any, Optional, Sequence

import torch
import torch.distributed as _dist

# Before any process group exists: imported later (torch._dynamo does), its default arguments hold the world group for ever.
# destroy_process_group() then leaves Gloo's threads running, and one that drops a Python tensor while the interpreter ends
# aborts the process ("terminate called without an active exception", torch 2.13).
import torch.distributed.nn.functional as _bound_before_init  # noqa: F401
from torch.distributed import *  # noqa: F401,F403  (under the names that scripts use)
from torch.distributed import (  # noqa: F401
    ProcessGroup,
    ReduceOp,
    get_global_rank,
    get_rank,
    get_world_size,
    is_available,
    new_group,
)

from hydrofoil import _C, _comm_calls
from hydrofoil._comm_calls import P2POp  # noqa: F401
from hydrofoil._config import config_dict, resolve

__all__ = ["EngineGroups", "all_gather_coalesced", "all_reduce_coalesced", "allgather_fn", "configure", "get_all_ranks_from_group", "get_local_rank",
           "get_comm_operation_count", "get_logged_comm_ops", "get_world_group", "has_all_gather_into_tensor", "has_all_reduce_coalesced", "has_coalescing_manager", "has_comm_data",
           "has_reduce_scatter_tensor",
           "inference_all_reduce", "init_distributed", "initialize_mesh_device", "is_initialized", "log_summary", "mpi_discovery", "reduce_scatter_fn",
           "reset_log"]

# The collectives: all_reduce, all_gather, broadcast, ...
globals().update(_comm_calls.CALLS)
all_reduce, all_gather_into_tensor, reduce_scatter_tensor = (
    _comm_calls.CALLS.get(name) for name in ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor"))

_channel_counter = itertools.count()
_logged_engines: list[weakref.ref[Any]] = []  # the C++ engines whose config has comms_logger, in the order of their making


def _register_shm_backend() -> None:
    """Makes ``init_process_group("hydrofoil_shm")`` and ``new_group(backend="hydrofoil_shm")`` known to torch."""
    if _dist.is_available() and _C.shm_process_group_name not in _dist.Backend.backend_list:
        _dist.Backend.register_backend(
            _C.shm_process_group_name, lambda options, _: _C.create_shm_process_group(options), extended_api=True, devices=["cpu"])


_register_shm_backend()


def is_initialized() -> bool:
    return _dist.is_available() and _dist.is_initialized()


def get_local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def get_world_group() -> Any:
    return _dist.group.WORLD


def get_all_ranks_from_group(group: Any = None) -> list[int]:
    return _dist.get_process_group_ranks(group if group is not None else _dist.group.WORLD)


def allgather_fn(output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: Any = None, async_op: bool = False, debug: Any = None) -> Any:
    return all_gather_into_tensor(output_tensor, input_tensor, group=group, async_op=async_op)


def reduce_scatter_fn(output_tensor: torch.Tensor, tensor: torch.Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False,
                      prof: bool = False, debug: Any = None) -> Any:
    return reduce_scatter_tensor(output_tensor, tensor, op=op, group=group, async_op=async_op, prof=prof)


def inference_all_reduce(tensor: torch.Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Any:
    return all_reduce(tensor, op=op, group=group, async_op=async_op)


def all_gather_coalesced(output_tensors: list[torch.Tensor], input_tensors: list[torch.Tensor], group: Any = None, async_op: bool = False) -> Any:
    """One gather a pair; with `async_op` a list of works."""
    works = [all_gather_into_tensor(out, one, group=group, async_op=async_op) for out, one in zip(output_tensors, input_tensors, strict=True)]
    return works if async_op else None


def all_reduce_coalesced(tensors: list[torch.Tensor], op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Any:
    works = [all_reduce(tensor, op=op, group=group, async_op=async_op) for tensor in tensors]
    return works if async_op else None


def has_all_gather_into_tensor() -> bool:
    return True


has_reduce_scatter_tensor = has_all_reduce_coalesced = has_coalescing_manager = has_all_gather_into_tensor


def initialize_mesh_device(mesh_shape: tuple[int, ...], mesh_dim_names: tuple[str, ...]) -> Any:
    return _dist.init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", mesh_shape, mesh_dim_names=mesh_dim_names)


def configure(deepspeed_config: Any = None, enabled: Optional[bool] = None, prof_all: Optional[bool] = None, prof_ops: Any = None,
              verbose: Optional[bool] = None, debug: Optional[bool] = None) -> None:
    """Counts the calls of this module from here on, whether an engine has `comms_logger` or not; `enabled=False` ends it.

    The arguments are the keys of `comms_logger`, and win over `deepspeed_config`'s. Engines go by their own configs.
    """
    section = dict(config_dict(deepspeed_config).get("comms_logger", {})) if deepspeed_config is not None else {}
    given = {"enabled": enabled, "prof_all": prof_all, "prof_ops": prof_ops, "verbose": verbose, "debug": debug}
    section.update({key: value for key, value in given.items() if value is not None})
    if section:
        config = {"train_micro_batch_size_per_gpu": 1, "comms_logger": section}
        _comm_calls.log = resolve(config, 1, True).make_comm_log()


def mpi_discovery(distributed_port: int = 29500, verbose: bool = True) -> None:
    """Rank and size from mpirun's variables, for torch.distributed's."""
    _discover_mpi()


def _discover_mpi() -> None:
    """Sets torchrun's variables from those of mpirun (OpenMPI, MPICH, MVAPICH, SLURM's PMI)."""
    for rank, size, local in (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
        ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    ):
        if rank in os.environ and "RANK" not in os.environ:
            os.environ["RANK"] = os.environ[rank]
            os.environ["WORLD_SIZE"] = os.environ[size]
            os.environ["LOCAL_RANK"] = os.environ.get(local, os.environ[rank])


def init_distributed(
    dist_backend: Optional[str] = None,
    auto_mpi_discovery: bool = True,
    distributed_port: int = 29500,
    verbose: bool = True,
    timeout: Optional[timedelta] = None,
    init_method: Optional[str] = None,
    dist_init_required: Optional[bool] = None,
    config: Any = None,
    rank: int = -1,
    world_size: int = -1,
) -> None:
    """Starts torch.distributed unless it runs already: gloo on a CPU machine, nccl beside it where there is CUDA.

    Rank and world size come from RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT (torchrun, ``hydrofoil run``) or from mpirun's
    variables; a process started plainly is a world of one.
    """
    if is_initialized() or dist_init_required is False:
        return
    if auto_mpi_discovery:
        _discover_mpi()
    env = os.environ
    env.setdefault("RANK", str(max(rank, 0)))
    env.setdefault("WORLD_SIZE", str(max(world_size, 1)))
    env.setdefault("LOCAL_RANK", env["RANK"])
    env.setdefault("MASTER_ADDR", "127.0.0.1")
    if "MASTER_PORT" not in env:
        # A world of one meets nobody: any free port will do, so that several plain runs do not collide.
        env["MASTER_PORT"] = "0" if env["WORLD_SIZE"] == "1" else str(distributed_port)
    if dist_backend is None:
        dist_backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if timeout is None:
        timeout = timedelta(minutes=float(env.get("DEEPSPEED_TIMEOUT", "10")))
    _dist.init_process_group(
        dist_backend,
        timeout=timeout,
        init_method=init_method,
        rank=int(env["RANK"]) if rank < 0 else rank,
        world_size=int(env["WORLD_SIZE"]) if world_size < 0 else world_size,
    )
    if dist_backend == "gloo":
        atexit.register(_end_process_groups)


def _end_process_groups() -> None:
    """At a good end of a script that leaves the group standing, as DeepSpeed's do: Gloo's threads end before the interpreter."""
    # After an exception a collective may still wait for ranks that never come; ending the group would wait with it.
    if is_initialized() and getattr(sys, "last_value", None) is None:
        _dist.destroy_process_group()


def log_engine(core: _C.Engine, options: _C.EngineOptions) -> None:
    """If this engine's config counts collectives, log_summary() tells of them too, and the script's own calls are counted from here on."""
    if core.comm_log is not None:
        _logged_engines.append(weakref.ref(core))
        if _comm_calls.log is None:
            _comm_calls.log = options.make_comm_log()


def _engines_with_log() -> list[Any]:
    engines = [core for core in (reference() for reference in _logged_engines) if core is not None and core.alive]
    _logged_engines[:] = [weakref.ref(core) for core in engines]
    return engines


def _rows(show_straggler: bool = False) -> list[_C.CommLogRow]:
    rows = []
    for core in _engines_with_log():
        rows += core.comm_log_with_stragglers() if show_straggler else core.comm_log.rows()
    return rows + (_comm_calls.log.rows() if _comm_calls.log is not None else [])


def log_summary(show_straggler: bool = False, return_dict: bool = False) -> Any:
    """Prints on rank 0 what `comms_logger` has counted: the engines' collectives, and the calls of this module.

    Returns the rows, or with `return_dict` what DeepSpeed makes of them: `summary`, by operation and message size, and `metadata`.
    `show_straggler`: with the time that each rank waited for the last one in the engines' collectives; collective then, over all ranks.
    """
    if _comm_calls.log is None and not _engines_with_log():
        raise ValueError('log_summary: nothing counts collectives: set "comms_logger": {"enabled": true} in the config of an engine and call it '
                         "while the engine lives, or call comm.configure(enabled=True)")
    rows = _rows(show_straggler)
    rank = _dist.get_rank() if is_initialized() else 0
    if rank == 0:
        print(_C.comm_log_text(rows), end="", flush=True)
    return _comm_calls.as_dict(rows, rank) if return_dict else rows


def has_comm_data() -> bool:
    return bool(_rows())


def get_comm_operation_count() -> int:
    """How many operations have been counted, of all kinds."""
    return sum(row.count for row in _rows())


def get_logged_comm_ops() -> list[str]:
    """The kinds of operations that have been counted."""
    return sorted({row.op for row in _rows()})


def reset_log() -> None:
    """Sets the counts of log_summary() to zero."""
    for core in _engines_with_log():
        core.comm_log.clear()
    if _comm_calls.log is not None:
        _comm_calls.log.clear()


class EngineGroups:
    """The two channels of one engine over all ranks (gathers; reductions), and the process groups under them, if any."""

    def __init__(self, backend: str, timeout_s: float, device: str = "cpu") -> None:
        self._process_groups: list[Any] = []
        if not is_initialized() or _dist.get_world_size() == 1:
            self.gather, self.reduce = _C.single_rank_groups()
            return
        number = next(_channel_counter)

        def make_process_groups() -> list[str]:
            for channel in range(2):
                self._process_groups.append(
                    _dist.new_group(timeout=timedelta(seconds=timeout_s + 30.0), group_desc=f"hydrofoil_{number}_{channel}"))
            return [group.group_name for group in self._process_groups]

        store = _dist.PrefixStore(f"hydrofoil/{number}", _dist.distributed_c10d._get_default_store())
        self.gather, self.reduce = _C.connect(
            _dist.get_rank(), _dist.get_world_size(), store, make_process_groups, backend, timeout_s, device)

    def close(self, users: Sequence[weakref.ref[Any]] = ()) -> None:
        """Ends the process groups; the channels over them must not be used any more, but that of reductions by `users`, whose end is waited for."""
        self.gather = self.reduce = None
        kept = self._process_groups[-1:] if users else []
        for group in self._process_groups[:len(self._process_groups) - len(kept)]:
            _dist.destroy_process_group(group)
        self._process_groups = kept
        if users:
            _left_groups.append((self, list(users)))


_left_groups: list[tuple[EngineGroups, list[weakref.ref[Any]]]] = []  # of engines that have ended but for their shards


def close_left_groups() -> None:
    """Ends the process groups of engines whose shards have gone to another engine, or with their model."""
    if not _left_groups:
        return
    gc.collect()  # a model and its engine are in cycles
    left, _left_groups[:] = list(_left_groups), []
    for groups, users in left:
        groups.close([user for user in users if user() is not None])
