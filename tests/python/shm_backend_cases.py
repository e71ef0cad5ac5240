"""Ran on every rank by test_shm_backend.py: the same calls over Gloo and over hydrofoil_shm, compared."""

from __future__ import annotations

import os
from typing import Any, Callable, Optional

import torch
import torch.distributed as dist
from torch.distributed import ReduceOp
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import hydrofoil

SIZES = (0, 1, 7, 1000003)
GLOO_REDUCES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int32, torch.int64)
MOVED = (torch.float32, torch.float64, torch.bfloat16, torch.bool, torch.uint8, torch.int16, torch.int64, torch.complex64)

_group: Optional[Any] = None


def shm() -> Any:
    """A group over all ranks that the cases of a session share."""
    global _group
    if _group is None:
        _group = dist.new_group(backend="hydrofoil_shm")
    return _group


def data(numel: int, dtype: torch.dtype, rank: Optional[int] = None, seed: int = 0) -> torch.Tensor:
    rank = dist.get_rank() if rank is None else rank
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(numel, generator=generator, dtype=torch.float64).to(dtype)
    return torch.randint(0, 2 if dtype is torch.bool else 6, (numel,), generator=generator).to(dtype)


def expect(got: torch.Tensor, wanted: torch.Tensor, what: Any, tolerance: float = 1e-5) -> None:
    """The same bits among two ranks; among more the order of a sum is another. 16-bit sums round once here, often in Gloo."""
    assert got.dtype == wanted.dtype and got.shape == wanted.shape, what
    if dist.get_world_size() == 2 and got.dtype not in (torch.bfloat16, torch.float16):
        assert torch.equal(got, wanted), what
    else:
        tolerance = 3e-2 if got.dtype in (torch.bfloat16, torch.float16) else tolerance
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}")


def compare(call: Callable[[Any], list[torch.Tensor]], what: Any, tolerance: float = 1e-5) -> None:
    for got, wanted in zip(call(shm()), call(dist.group.WORLD), strict=True):
        expect(got, wanted, what, tolerance)


def reductions() -> None:
    size, rank = dist.get_world_size(), dist.get_rank()

    def all_reduce(group: Any) -> list[torch.Tensor]:
        tensor = data(numel, dtype)
        dist.all_reduce(tensor, op, group=group)
        return [tensor]

    def reduce(group: Any) -> list[torch.Tensor]:
        tensor = data(numel, dtype)
        dist.reduce(tensor, size - 1, op, group=group)
        return [tensor] if rank == size - 1 else []

    def reduce_scatter(group: Any) -> list[torch.Tensor]:
        output, given = torch.zeros(numel, dtype=dtype), data(numel * size, dtype)
        before = given.clone()
        dist.reduce_scatter_tensor(output, given, op, group=group)
        assert torch.equal(given, before) or group is not _group
        return [output]

    for dtype in GLOO_REDUCES:
        for op in (ReduceOp.SUM, ReduceOp.MAX, ReduceOp.MIN, ReduceOp.PRODUCT):
            for numel in SIZES if dtype in (torch.float32, torch.bfloat16, torch.float64) else SIZES[:3]:
                for call in (all_reduce, reduce, reduce_scatter):
                    if numel or call is not reduce:
                        compare(call, (call.__name__, dtype, op, numel))
    numel = 33
    for dtype in (torch.uint8, torch.int32, torch.int64):
        for op in (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR):
            compare(all_reduce, (dtype, op))


def reductions_that_gloo_has_not() -> None:
    """Against their definition."""
    ranks = range(dist.get_world_size())

    def reduced(op: Any, dtype: torch.dtype) -> torch.Tensor:
        tensor = data(50, dtype)
        dist.all_reduce(tensor, op, group=shm())
        return tensor

    for dtype in (torch.float32, torch.float64, torch.complex64, torch.bfloat16):
        mean = sum(data(50, dtype, rank).to(torch.complex128 if dtype.is_complex else torch.float64) for rank in ranks) / len(ranks)
        torch.testing.assert_close(reduced(ReduceOp.AVG, dtype), mean.to(dtype))
    bools = torch.stack([data(50, torch.bool, rank) for rank in ranks])
    assert torch.equal(reduced(ReduceOp.SUM, torch.bool), bools.any(0))
    assert torch.equal(reduced(ReduceOp.MAX, torch.bool), bools.any(0))
    assert torch.equal(reduced(ReduceOp.MIN, torch.bool), bools.all(0))
    assert torch.equal(reduced(ReduceOp.BXOR, torch.bool), bools.sum(0) % 2 == 1)
    shorts = torch.stack([data(50, torch.int16, rank) for rank in ranks])
    assert torch.equal(reduced(ReduceOp.SUM, torch.int16), shorts.sum(0).to(torch.int16))
    assert torch.equal(reduced(ReduceOp.MIN, torch.int16), shorts.min(0).values)
    mixed = [data(9, torch.float32), data(70000, torch.float64), data(0, torch.int64)]
    works = [dist.all_reduce(tensor, group=shm(), async_op=True) for tensor in mixed]
    for work in works:
        work.wait()
    torch.testing.assert_close(mixed[1], sum(data(70000, torch.float64, rank) for rank in ranks))


def moves() -> None:
    size, rank = dist.get_world_size(), dist.get_rank()

    def carry(tensor: torch.Tensor, group: Any) -> torch.Tensor:
        """Gloo has not all dtypes: it moves the bytes."""
        return tensor if group is shm() else tensor.view(torch.uint8)

    def broadcast(group: Any) -> list[torch.Tensor]:
        tensor = data(numel, dtype)
        dist.broadcast(carry(tensor, group), size - 1, group=group)
        return [tensor]

    def all_gather(group: Any) -> list[torch.Tensor]:
        outputs = [torch.zeros(numel, dtype=dtype) for _ in range(size)]
        dist.all_gather([carry(output, group) for output in outputs], carry(data(numel, dtype), group), group=group)
        return outputs

    def all_gather_into_tensor(group: Any) -> list[torch.Tensor]:
        output = torch.zeros(numel * size, dtype=dtype)
        dist.all_gather_into_tensor(carry(output, group), carry(data(numel, dtype), group), group=group)
        return [output]

    def gather(group: Any) -> list[torch.Tensor]:
        outputs = [torch.zeros(numel, dtype=dtype) for _ in range(size)] if rank == 1 else []
        dist.gather(carry(data(numel, dtype), group), [carry(output, group) for output in outputs] or None, dst=1, group=group)
        return outputs

    def scatter(group: Any) -> list[torch.Tensor]:
        output = torch.zeros(numel, dtype=dtype)
        inputs = [carry(data(numel, dtype, seed=s), group) for s in range(size)]
        dist.scatter(carry(output, group), inputs if rank == 1 else None, src=1, group=group)
        return [output]

    for dtype in MOVED:
        for numel in SIZES if dtype in (torch.float32, torch.uint8) else SIZES[:3]:
            for call in (broadcast, all_gather, all_gather_into_tensor, gather, scatter):
                if numel or call not in (gather, scatter):
                    compare(call, (call.__name__, dtype, numel))


def all_to_alls() -> None:
    """Against their definition: rank r sends r + p + 1 rows to rank p."""
    size, rank = dist.get_world_size(), dist.get_rank()
    for dtype in (torch.float32, torch.bool, torch.float64):
        for row in (0, 1, 7, 40001):
            even = data(row * size, dtype)
            output = torch.zeros(row * size, dtype=dtype)
            dist.all_to_all_single(output, even, group=shm())
            wanted = torch.cat([data(row * size, dtype, peer)[rank * row:(rank + 1) * row] for peer in range(size)])
            assert torch.equal(output, wanted)

            def rows(sender: int, receiver: int) -> torch.Tensor:
                return data((sender + receiver) * row, dtype, sender, seed=receiver).view(-1, row or 1)

            inputs = [rows(rank, peer) for peer in range(size)]
            expected = [rows(peer, rank) for peer in range(size)]
            outputs = [torch.zeros_like(tensor) for tensor in expected]
            dist.all_to_all(outputs, inputs, group=shm())
            assert all(torch.equal(got, wanted) for got, wanted in zip(outputs, expected))
            joined = torch.zeros_like(torch.cat(expected))
            dist.all_to_all_single(joined, torch.cat(inputs), [len(t) for t in expected], [len(t) for t in inputs], group=shm())
            assert torch.equal(joined, torch.cat(expected))


def strided_tensors() -> None:
    """Tensors that are not contiguous, of any number of dimensions, and tensors that need gradients."""
    size = dist.get_world_size()

    def all_reduce(group: Any) -> list[torch.Tensor]:
        tensor = data(60, torch.float32).view(6, 10).t()
        scalar = torch.tensor(1.5, requires_grad=True)
        with torch.no_grad():
            dist.all_reduce(tensor, group=group)
            dist.all_reduce(scalar, group=group)
        return [tensor, scalar.detach()]

    def every_second(group: Any) -> list[torch.Tensor]:
        whole = data(60, torch.bfloat16)
        dist.broadcast(whole[::2], 0, group=group)
        return [whole]

    def gathers(group: Any) -> list[torch.Tensor]:
        outputs = [torch.zeros(4, 3).t() for _ in range(size)]
        dist.all_gather(outputs, data(12, torch.float32).view(3, 4), group=group)
        return [*outputs]

    for call in (all_reduce, gathers):
        compare(call, call.__name__)
    wanted = data(60, torch.bfloat16)
    wanted[::2] = data(60, torch.bfloat16, 0)[::2]
    assert torch.equal(every_second(shm())[0], wanted)
    output = torch.zeros(size * 6).view(6, size).t()
    dist.all_gather_into_tensor(output, torch.full((6,), float(dist.get_rank())), group=shm())
    assert torch.equal(output, torch.arange(size).float()[:, None].expand(size, 6))


def messages() -> None:
    size, rank = dist.get_world_size(), dist.get_rank()
    following, previous = (rank + 1) % size, (rank - 1) % size
    for numel in (0, 1, 1000003):
        # All send first: what does not fit the mailbox must not stop the receives.
        received = torch.zeros(numel, dtype=torch.bool)
        works = [dist.isend(data(numel, torch.bool), following, group=shm()), dist.irecv(received, previous, group=shm())]
        for work in works:
            work.wait()
        assert torch.equal(received, data(numel, torch.bool, previous))
        tensor = torch.zeros(numel)
        batch = [dist.P2POp(dist.irecv, tensor, previous, group=shm()), dist.P2POp(dist.isend, data(numel, torch.float32), following, group=shm())]
        for work in dist.batch_isend_irecv(batch):
            work.wait()
        assert torch.equal(tensor, data(numel, torch.float32, previous))
    if rank == 0:
        dist.send(torch.ones(3), 1, group=shm(), tag=5)
    if rank == 1:
        tensor = torch.zeros(3)
        dist.recv(tensor, 0, group=shm(), tag=5)
        assert tensor.sum() == 3
    dist.barrier(group=shm())


def objects() -> None:
    size, rank = dist.get_world_size(), dist.get_rank()
    gathered: list[Any] = [None] * size
    dist.all_gather_object(gathered, {"rank": rank, "text": "x" * (1000 * rank)}, group=shm())
    assert [entry["rank"] for entry in gathered] == list(range(size)) and len(gathered[-1]["text"]) == 1000 * (size - 1)
    values: list[Any] = ["from 1", 7] if rank == 1 else [None, None]
    dist.broadcast_object_list(values, src=1, group=shm())
    assert values == ["from 1", 7]
    collected: Any = [None] * size if rank == 0 else None
    dist.gather_object(rank * 10, collected, dst=0, group=shm())
    assert rank != 0 or collected == [10 * r for r in range(size)]
    scattered: list[Any] = [None]
    dist.scatter_object_list(scattered, [f"for {r}" for r in range(size)] if rank == 0 else None, src=0, group=shm())
    assert scattered == [f"for {rank}"]


def asynchronous_work() -> None:
    """Futures hold the tensors, `then` runs, works may end in any order of waiting."""
    tensors = [torch.ones(50000) for _ in range(20)]
    works = [dist.all_reduce(tensor, group=shm(), async_op=True) for tensor in tensors]
    size = dist.get_world_size()
    doubled = works[3].get_future().then(lambda future: future.value()[0] * 2)
    for work in reversed(works):
        assert work.wait()
    assert all(work.is_completed() and work.is_success() for work in works)
    assert torch.equal(doubled.wait(), torch.full((50000,), 2.0 * size))
    assert works[0].get_future().value()[0].data_ptr() == tensors[0].data_ptr()
    assert all(torch.equal(tensor, torch.full((50000,), float(size))) for tensor in tensors)


def sub_groups() -> None:
    """Groups of some ranks, several at a time, made and destroyed."""
    size, rank = dist.get_world_size(), dist.get_rank()
    pair = dist.new_group([0, size - 1], backend="hydrofoil_shm")
    alone = [dist.new_group([r], backend="hydrofoil_shm") for r in range(size)]
    for _ in range(2):
        tensor = torch.full((5,), float(rank + 1))
        if rank in (0, size - 1):
            dist.all_reduce(tensor, group=pair)
            assert tensor[0] == 1 + size
        dist.all_reduce(tensor, group=alone[rank])
        dist.all_reduce(tensor, ReduceOp.MIN, group=alone[rank])
        gathered = torch.zeros(size * 5)
        dist.all_gather_into_tensor(gathered, tensor, group=shm())
        assert gathered[5 * rank] == tensor[0]
    if rank in (0, size - 1):
        dist.destroy_process_group(pair)
    dist.destroy_process_group(alone[rank])


def errors() -> None:
    """What is wrong with a call is said at the call; the group works on."""

    def error(call: Callable[[], Any]) -> str:
        try:
            call()
        except ValueError as exception:
            return str(exception)
        raise AssertionError("no error")

    group = shm()
    text = error(lambda: dist.all_reduce(torch.ones(3, dtype=torch.int64), ReduceOp.AVG, group=group))
    assert "[hydrofoil_shm.allreduce] got avg of dtype Long" in text and "gloo" in text, text
    assert "band of dtype Float" in error(lambda: dist.all_reduce(torch.ones(3), ReduceOp.BAND, group=group))
    assert "premul_sum" in error(lambda: dist.all_reduce(torch.ones(3), dist._make_nccl_premul_sum(2.0), group=group))
    assert "got a tensor of numel 3, expected" in error(lambda: dist.all_gather_into_tensor(torch.ones(3), torch.ones(4), group=group))
    assert "dtype Float and Double" in error(lambda: group.allgather([[torch.ones(1)] * dist.get_world_size()], [torch.ones(1).double()]))
    assert "any" in error(lambda: dist.recv(torch.ones(3), group=group))
    dist.barrier(group=group)


def messages_that_do_not_fit() -> None:
    """A tag that is not that of the next message, over a group of its own: such an error ends a group's messages."""
    group = dist.new_group([0, 1], backend="hydrofoil_shm")
    if dist.get_rank() == 0:
        dist.send(torch.ones(3), 1, group=group, tag=1)
    elif dist.get_rank() == 1:
        try:
            dist.recv(torch.ones(3), 0, group=group, tag=2)
            raise AssertionError("no error")
        except hydrofoil.CommError as error:
            assert "rank 0 sent something else" in str(error) and "tag 1" in str(error), str(error)
    dist.barrier()
    if dist.get_rank() < 2:
        dist.destroy_process_group(group)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(13, 31)
        self.norm = torch.nn.BatchNorm1d(31)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(31, 31) for _ in range(2))
        self.last = torch.nn.Linear(31, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(torch.relu(self.first(x)))
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.last(x)


def train(model: torch.nn.Module) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(5):
        x = data(8 * 13, torch.float32, seed=step + 1).view(8, 13)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def ddp(fp16_hook: bool) -> None:
    def trained(group: Any) -> list[torch.Tensor]:
        torch.manual_seed(dist.get_rank())  # DDP broadcasts the model of rank 0
        model = DistributedDataParallel(Net(), process_group=group, bucket_cap_mb=0.004, gradient_as_bucket_view=not fp16_hook)
        if fp16_hook:
            model.register_comm_hook(group, fp16_compress_hook)
        train(model)
        return [value.detach().clone() for value in model.state_dict().values()]

    compare(trained, "DDP", 1e-3 if fp16_hook else 1e-5)  # Gloo rounds a sum of three in fp16 twice


def fsdp2() -> None:
    def trained(group: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = Net()
        mesh = DeviceMesh.from_group(group, "cpu")
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        train(model)
        total = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # a functional collective
        return [parameter.full_tensor().detach().clone() for parameter in model.parameters()] + [total.full_tensor()]

    compare(trained, "FSDP2")


def threads_of_groups(count: int) -> tuple[list[int], int]:
    """Threads of this process after each of `count` groups, which use every lane, has gone; and while one lived."""
    numbers, during = [], 0
    size, rank = dist.get_world_size(), dist.get_rank()
    for _ in range(count):
        group = dist.new_group(backend="hydrofoil_shm")
        dist.all_reduce(torch.ones(3), group=group)
        dist.all_to_all_single(torch.ones(size), torch.ones(size), group=group)
        works = [dist.isend(torch.ones(3), (rank + 1) % size, group=group), dist.irecv(torch.ones(3), (rank - 1) % size, group=group)]
        for work in works:
            work.wait()
        during = len(os.listdir("/proc/self/task"))
        dist.destroy_process_group(group)
        numbers.append(len(os.listdir("/proc/self/task")))
    return numbers, during
