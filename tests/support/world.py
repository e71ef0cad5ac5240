"""Groups of rank processes that live through a test session, so that a case costs milliseconds and not a process start."""

from __future__ import annotations

import importlib
import multiprocessing as mp
import os
import socket
import traceback
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _serve(rank: int, size: int, port: int, pipe: Any, env: dict[str, str]) -> None:
    os.environ.update(env)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    import torch

    torch.set_num_threads(1)
    import hydrofoil

    hydrofoil.init_distributed()
    pipe.send("ready")
    while True:
        task = pipe.recv()
        if task is None:
            break
        module, function, kwargs = task
        try:
            pipe.send((True, getattr(importlib.import_module(module), function)(**kwargs)))
        except BaseException as error:  # noqa: BLE001  (the parent re-raises it)
            pipe.send((False, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))
    torch.distributed.destroy_process_group()


class World:
    """`size` processes over Gloo's rendezvous. run() calls one function on every rank and returns the results in rank order."""

    def __init__(self, size: int, env: dict[str, str] | None = None) -> None:
        self.size = size
        context = mp.get_context("spawn")
        port = _free_port()
        self._pipes, self._processes = [], []
        os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, port, there, env or {}), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(600) or pipe.recv() != "ready":
                raise RuntimeError(f"rank {rank} did not start")
        self.usable = True

    def run(self, target: str, timeout: float = 120.0, **kwargs: Any) -> list[Any]:
        """`target` is "module:function"; arguments and results are pickled. Raises RuntimeError with the rank's traceback."""
        module, function = target.split(":")
        for pipe in self._pipes:
            pipe.send((module, function, kwargs))
        results, errors = [], []
        for rank, pipe in enumerate(self._pipes):
            try:
                if not pipe.poll(timeout):
                    self.usable = False
                    errors.append(f"rank {rank}: no answer within {timeout} s")
                    continue
                good, value = pipe.recv()
            except EOFError:
                self.usable = False
                errors.append(f"rank {rank}: the process died")
                continue
            results.append(value)
            if not good:
                errors.append(f"rank {rank}: {value}")
        if errors:
            raise RuntimeError(f"{target}({kwargs}):\n" + "\n".join(errors))
        return results

    def close(self) -> None:
        for pipe in self._pipes:
            try:
                pipe.send(None)
            except OSError:
                pass
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
        self.usable = False


_worlds: dict[int, World] = {}


def world(size: int) -> World:
    """The session's group of that size; a new one where the last was lost."""
    if size not in _worlds or not _worlds[size].usable:
        if size in _worlds:
            _worlds[size].close()
        _worlds[size] = World(size)
    return _worlds[size]


def close_all() -> None:
    for group in _worlds.values():
        group.close()
    _worlds.clear()
