"""What the ranks of a job tell each other besides gradients: a few numbers, so that all take the same decisions."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Ranks:
    """This process's place among the ranks. With torch.distributed not initialized there is one rank."""

    def __init__(self, device: torch.device) -> None:
        self.active = dist.is_initialized()
        self.rank = dist.get_rank() if self.active else 0
        self.world_size = dist.get_world_size() if self.active else 1
        self._device = device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gather(self, *values: float) -> list[tuple[float, ...]]:
        """The values of every rank, in rank order, the same list on each: one small collective, called by all."""
        mine = torch.tensor(values, dtype=torch.float64, device=self._device)
        if not self.active:
            return [tuple(mine.tolist())]
        everyone = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(everyone, mine)
        return [tuple(row.tolist()) for row in everyone]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank. Called by all ranks."""
        return any(row[0] for row in self.gather(float(flag)))

    def wait(self) -> None:
        """Returns when all ranks have called it."""
        self.gather(0.0)

    def from_first(self, value: T) -> T:
        """Rank 0's value. Called by all ranks."""
        if not self.active:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self._device)
        return box[0]
