"""hydrofoil_shm as a backend of plain torch.distributed, beside Gloo in the same processes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.python.example_ranks import TwoRanks, run_ranks
from tests.support.world import world

CASES = ["reductions", "reductions_that_gloo_has_not", "moves", "all_to_alls", "strided_tensors", "messages", "objects",
         "asynchronous_work", "sub_groups", "errors", "messages_that_do_not_fit", "fsdp2"]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_equals_gloo(case: str, size: int) -> None:
    world(size).run(f"tests.python.shm_backend_cases:{case}")


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("fp16_hook", [False, True])
def test_ddp_equals_gloo(size: int, fp16_hook: bool) -> None:
    world(size).run("tests.python.shm_backend_cases:ddp", fp16_hook=fp16_hook)


def test_destroyed_groups_leave_no_threads() -> None:
    for numbers, during in world(2).run("tests.python.shm_backend_cases:threads_of_groups", count=4):
        assert numbers[-1] == numbers[0] < during, (numbers, during)


BY_NAME = """
import torch
import torch.distributed as dist

import hydrofoil

for backend in ("hydrofoil_shm", "cpu:hydrofoil_shm", "cpu:gloo"):
    dist.init_process_group(backend)
    rank = dist.get_rank()
    tensor = torch.ones(3)
    dist.all_reduce(tensor)
    dist.barrier()
    names = [None, None]
    dist.all_gather_object(names, rank)
    mesh = dist.init_device_mesh("cpu", (2,))
    assert mesh.get_group().size() == 2 and names == [0, 1] and tensor[0] == 2
    other = dist.new_group()
    dist.broadcast(tensor, 0, group=other)
    dist.destroy_process_group()
try:
    work = None
    dist.init_process_group("hydrofoil_shm")
    group = dist.group.WORLD
    dist.destroy_process_group()
    group.allreduce([torch.ones(3)])
except ValueError as error:
    assert "was destroyed" in str(error), error
print("done.")
"""


def test_init_process_group_takes_the_name(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(BY_NAME, encoding="utf-8")
    assert run_ranks(script).count("done.") == 2


KILLED = """
import os
import signal
import time

import torch
import torch.distributed as dist

import hydrofoil

dist.init_process_group("hydrofoil_shm")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
model(torch.ones(1, 4)).sum().backward()
if dist.get_rank() == 1:
    os.kill(os.getpid(), signal.SIGKILL)
start = time.monotonic()
try:
    dist.all_reduce(torch.ones(7))
except hydrofoil.CommError as error:
    print("all_reduce:", error)
try:
    model(torch.ones(1, 4)).sum().backward()
except RuntimeError as error:
    print("DDP:", error)
work = dist.irecv(torch.ones(3), 1)
try:
    work.wait()
except hydrofoil.CommError as error:
    print("irecv:", error)
print("seconds:", int(time.monotonic() - start))
dist.destroy_process_group()
"""


def test_killed_peer_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(KILLED, encoding="utf-8")
    with TwoRanks(script) as ranks:
        codes, outputs = ranks.finish()
    assert codes == [0, -signal.SIGKILL], outputs
    for line in ("all_reduce: [comm] all_reduce (numel 7, float32, sum) in group", "DDP: ", "irecv: [comm] recv from 1"):
        assert line in outputs[0], outputs[0]
    assert outputs[0].count("rank 1 has died (its process ended)") >= 3, outputs[0]
    assert int(outputs[0].split("seconds: ")[1]) < 10, outputs[0]


ANOTHER_HOST = """
import ctypes
import os
from datetime import timedelta

import torch.distributed as dist

import hydrofoil

store = dist.FileStore(os.path.join(os.getcwd(), "store"), 2)
libc = ctypes.CDLL(None)
# CLONE_NEWNET for root, with CLONE_NEWUSER for others.
if os.environ["RANK"] == "1" and libc.unshare(0x40000000) and libc.unshare(0x50000000):
    print("no unshare")
try:
    dist.init_process_group("hydrofoil_shm", store=store, rank=int(os.environ["RANK"]), world_size=2, timeout=timedelta(seconds=60))
    print("no error")
except hydrofoil.CommError as error:
    print("error:", error)
"""


def test_ranks_of_two_hosts_are_told_of_gloo(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ANOTHER_HOST, encoding="utf-8")
    output = run_ranks(script)
    if "no unshare" in output:
        pytest.skip("this machine does not allow unshare")
    assert output.count("cannot share memory: rank 1: cannot reach rank 0") == 2, output
    assert output.count('init_process_group("gloo")') == 2, output
