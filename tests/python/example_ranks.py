"""Starts an example script as two ranks, with the environment that a launcher gives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


class TwoRanks:
    """Two processes of `script`, run in its folder. Close it, or use it in a `with`: no process stays behind."""

    def __init__(self, script: Path, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        common |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.processes = [
            subprocess.Popen(
                [sys.executable, script.name, *arguments],
                cwd=script.parent,
                env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]

    def finish(self, timeout_s: float = 240) -> tuple[list[int], list[str]]:
        """Exit codes and outputs once both have ended."""
        outputs = [process.communicate(timeout=timeout_s)[0] for process in self.processes]
        return [process.returncode for process in self.processes], outputs

    def __enter__(self) -> TwoRanks:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def run_ranks(script: Path, *arguments: str) -> str:
    """Output of both ranks, rank 0 first; fails with all they wrote if one failed."""
    with TwoRanks(script, *arguments) as ranks:
        codes, outputs = ranks.finish()
    assert codes == [0, 0], f"{script.name} ended with {codes}\n" + "\n".join(outputs)
    return "".join(outputs)
