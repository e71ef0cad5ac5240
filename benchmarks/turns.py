"""Processes that wait for turns on a pipe, so that several competitors can take turns on one machine (see e2e/worker.py)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any, TextIO


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ranks:
    """The ranks of one program, which answer turns with one line of JSON each."""

    def __init__(self, name: str, command: list[str], num_ranks: int, log: Path) -> None:
        self.name, self.log = name, log
        port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._turns: list[TextIO] = []
        self._answers: list[TextIO] = []
        with open(log, "w", encoding="utf-8") as output:
            for rank in range(num_ranks):
                turns_read, turns_write = os.pipe()
                answers_read, answers_write = os.pipe()
                environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks),
                               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
                               "HF_HUB_OFFLINE": "1", "BENCH_TURNS": str(turns_read), "BENCH_ANSWERS": str(answers_write)}
                environment.pop("PYTHONPATH", None)
                self.processes.append(subprocess.Popen(command, env=environment, pass_fds=(turns_read, answers_write), stdin=subprocess.DEVNULL,
                                                       stdout=output, stderr=subprocess.STDOUT))
                os.close(turns_read)
                os.close(answers_write)
                self._turns.append(os.fdopen(turns_write, "w", buffering=1))
                self._answers.append(os.fdopen(answers_read, "r", buffering=1))

    def answers(self) -> list[dict[str, Any]]:
        lines = [answer.readline() for answer in self._answers]
        if not all(lines):
            tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{self.name} ended before its turn; the end of {self.log}:\n{tail}")
        return [json.loads(line) for line in lines]

    def turn(self, command: str) -> list[dict[str, Any]]:
        for turns in self._turns:
            print(command, file=turns)
        return self.answers()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for file in (*self._turns, *self._answers):
            try:
                file.close()
            except OSError:
                pass
