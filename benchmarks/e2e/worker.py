"""One rank of one competitor. It waits for turns on a pipe, so that several competitors can take turns on one machine:

    steps N     run N optimizer steps; answers one line of JSON with their times, losses and CPU seconds
    memory N    the same while a thread samples the memory
    quit
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import warnings

warnings.filterwarnings("ignore")

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from shapes import SHAPES  # noqa: E402

CLIP = 1.0


def rollup() -> dict[str, int]:
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return {line.split(":")[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}


def unmapped_memfd_kib(world: int) -> float:
    """This rank's share of memfds that no mapping shows; a mapped one is in PSS already."""
    with open("/proc/self/maps", encoding="ascii", errors="replace") as file:
        mapped = {int(line.split()[4]) for line in file if "/memfd:" in line}
    total = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "memfd:" in os.readlink(f"/proc/self/fd/{fd}"):
                status = os.stat(f"/proc/self/fd/{fd}")
                total += status.st_blocks // 2 if status.st_ino not in mapped else 0
        except OSError:
            continue  # closed meanwhile
    return total / world


class MemorySampler:
    def __init__(self, world: int) -> None:
        self.pss_kib = self.rss_kib = 0.0
        self._world, self._stop = world, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            values = rollup()
            self.pss_kib = max(self.pss_kib, values["Pss"] + unmapped_memfd_kib(self._world))
            self.rss_kib = max(self.rss_kib, values["Rss"])
            self._stop.wait(0.01)

    def __enter__(self) -> "MemorySampler":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


class PlainStep:
    """DDP and FSDP2, whose users write the loop."""

    def __init__(self, model: torch.nn.Module, lr: float, accumulation: int, no_sync) -> None:
        self.model, self.accumulation, self.no_sync = model, accumulation, no_sync
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, fused=True)

    def step(self, shape, batches) -> float:
        total = 0.0
        for i, (inputs, targets) in enumerate(batches):
            last = i == self.accumulation - 1
            self.no_sync(self.model, last)
            loss = shape.loss(self.model, inputs, targets)
            (loss / self.accumulation).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total / self.accumulation


class BareStep:
    """Forward and backward of plain PyTorch only: what no engine can save."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def step(self, shape, batches) -> float:
        for inputs, targets in batches:
            loss = shape.loss(self.model, inputs, targets)
            loss.backward()
            self.model.zero_grad()
        return loss.item()


class EngineStep:
    """Hydrofoil and DeepSpeed: the same three calls."""

    def __init__(self, engine) -> None:
        self.engine = engine

    def step(self, shape, batches) -> float:
        total = 0.0
        for inputs, targets in batches:
            loss = shape.loss(self.engine, inputs, targets)
            self.engine.backward(loss)
            self.engine.step()
            total += loss.item()
        return total / len(batches)


def build(arguments: argparse.Namespace, shape):
    torch.manual_seed(0)
    low = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    model = shape.build()
    if arguments.engine in ("hydrofoil", "deepspeed"):
        package = __import__(arguments.engine)
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": arguments.accumulation,
            "gradient_clipping": CLIP,
            "steps_per_print": 10**9,
            "optimizer": {"type": "AdamW", "params": {"lr": shape.lr, "weight_decay": 0.01}},
            "zero_optimization": {"stage": arguments.stage},
        }
        if arguments.dtype == "bf16":
            config["bf16"] = {"enabled": True}
        if arguments.persistence_threshold is not None:
            config["zero_optimization"]["stage3_param_persistence_threshold"] = arguments.persistence_threshold
        package.init_distributed("gloo")
        engine, *_ = package.initialize(model=model, model_parameters=model.parameters(), config=config)
        return EngineStep(engine)
    dist.init_process_group("gloo")
    if arguments.engine == "bare":
        return BareStep(model.to(low))
    if arguments.engine == "ddp":
        ddp = torch.nn.parallel.DistributedDataParallel(model.to(low))
        return PlainStep(ddp, shape.lr, arguments.accumulation, lambda m, last: setattr(m, "require_backward_grad_sync", last))
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=low) if arguments.dtype == "bf16" else MixedPrecisionPolicy()
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    for module in model.modules():
        if type(module).__name__ == shape.block_type:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return PlainStep(model, shape.lr, arguments.accumulation, lambda m, last: m.set_requires_gradient_sync(last))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["hydrofoil", "deepspeed", "fsdp2", "ddp", "bare"], required=True)
    parser.add_argument("--shape", choices=list(SHAPES), required=True)
    parser.add_argument("--stage", type=int, default=0)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--persistence-threshold", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    answers = os.fdopen(int(os.environ["BENCH_ANSWERS"]), "w", buffering=1)
    turns = os.fdopen(int(os.environ["BENCH_TURNS"]), "r", buffering=1)
    shape = SHAPES[arguments.shape]
    trained = build(arguments, shape)
    rank, world = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(1 + rank)
    low = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    print(json.dumps({"ready": True}), file=answers)
    for turn in turns:
        command, *rest = turn.split()
        if command == "quit":
            break
        times, losses = [], []
        cpu = time.process_time()
        sampler = MemorySampler(world) if command == "memory" else None
        if sampler:
            sampler.__enter__()
        for _ in range(int(rest[0])):
            batches = [shape.batch(generator, low) for _ in range(arguments.accumulation)]
            started = time.perf_counter()
            losses.append(trained.step(shape, batches))
            times.append(time.perf_counter() - started)
        if sampler:
            sampler.__exit__()
        answer = {"times": times, "losses": losses, "cpu_s": (time.process_time() - cpu) / len(times)}
        if sampler:
            answer |= {"pss_mib": sampler.pss_kib / 1024, "rss_mib": sampler.rss_kib / 1024}
        print(json.dumps(answer), file=answers)
    os._exit(0)  # the peers' groups need not be taken down in order


if __name__ == "__main__":
    main()
