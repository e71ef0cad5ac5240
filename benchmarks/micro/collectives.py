"""Collectives over shared memory (hydrofoil_shm) against Gloo, in the same two processes, in turns.

    hydrofoil run --nproc 2 benchmarks/micro/collectives.py [--sizes 65536 67108864] [--rounds 9] [--json FILE]

bench_collectives measures the same in C++, without copies on the way, and MPI. A size is in bytes of the whole tensor: the buffer of
all_reduce and broadcast, the output of all_gather, the input of reduce_scatter. A time is the slower
rank's, medians over the rounds. The roof is what one core copies per second while the other does the same (bytes read and written), and
the share of it counts the bytes that the algorithm must read and write at each rank.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.distributed as dist

import hydrofoil

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def must_move(collective: str, size: int, world: int) -> float:
    """Bytes that a rank has to read and write where the tensors are its own, not shared: the peers' parts in, its results out."""
    part = size / world
    return {
        "all_gather": 2 * part * (world - 1),  # read the others' parts, write them
        "reduce_scatter": part * world + part,  # read every rank's part, write the sum
        "all_reduce": part * world + part + 2 * part * (world - 1),  # both
        "broadcast": 2 * size,  # a rank that is not the root
    }[collective]


def call(collective: str, tensor: torch.Tensor, part: torch.Tensor, group: object) -> None:
    if collective == "all_reduce":
        dist.all_reduce(tensor, group=group)
    elif collective == "all_gather":
        dist.all_gather_into_tensor(tensor, part, group=group)
    elif collective == "broadcast":
        dist.broadcast(tensor, 0, group=group)
    else:
        dist.reduce_scatter_tensor(part, tensor, group=group)


def copy_roof(size: int, rounds: int) -> float:
    """Bytes a second, read and written, by this rank while all ranks copy."""
    source, target = torch.ones(size // 4), torch.empty(size // 4)
    times = []
    for _ in range(rounds):
        dist.barrier()
        started = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - started)
    return 2 * size / statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20], help="bytes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the results there too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    hydrofoil.init_distributed("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    groups = {"shm": dist.new_group(backend="hydrofoil_shm"), "gloo": dist.group.WORLD}
    rows = []
    for dtype_name, dtype in DTYPES.items():
        for collective in ("all_reduce", "all_gather", "reduce_scatter", "broadcast"):
            for size in arguments.sizes:
                tensor = torch.ones(size // dtype.itemsize, dtype=dtype)
                part = torch.ones(tensor.numel() // world, dtype=dtype)
                repeats = max(1, min(100, (20 << 20) // size))
                times: dict[str, list[float]] = {name: [] for name in groups}
                for round_number in range(arguments.rounds + 2):
                    for name, group in groups.items():
                        dist.barrier()
                        started = time.perf_counter()
                        for _ in range(repeats):
                            call(collective, tensor, part, group)
                        elapsed = torch.tensor((time.perf_counter() - started) / repeats)
                        dist.all_reduce(elapsed, dist.ReduceOp.MAX)
                        if round_number >= 2:
                            times[name].append(elapsed.item())
                        if collective != "all_gather":
                            tensor.fill_(1)
                roof = torch.tensor(copy_roof(max(size, 1 << 12), arguments.rounds))
                dist.all_reduce(roof, dist.ReduceOp.MIN)
                shm, gloo = (statistics.median(times[name]) for name in ("shm", "gloo"))
                rows.append({"collective": collective, "dtype": dtype_name, "bytes": size, "shm_s": shm, "gloo_s": gloo, "ratio": gloo / shm,
                             "roof_share": must_move(collective, size, world) / shm / roof.item()})
                if rank == 0:
                    row = rows[-1]
                    print(f"{collective:<15}{dtype_name}  {size / 1024:>8.0f} KiB  shm {shm * 1e6:>9.1f} us  gloo {gloo * 1e6:>9.1f} us  "
                          f"{row['ratio']:>6.1f}x  {100 * row['roof_share']:>4.0f} % of the copy roof", flush=True)
    if rank == 0 and arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
