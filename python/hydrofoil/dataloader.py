"""Distributed data loading, as `deepspeed_io` returns it."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Optional

from torch.utils import data

from hydrofoil.errors import InvalidType

__all__ = ["DataLoader", "RepeatingLoader"]


class DataLoader:
    """Micro batches of this rank; a new shuffle at each pass."""

    def __init__(self, dataset: Any, batch_size: int, rank: int, world_size: int, shuffle: bool, sampler: Any,
                 collate_fn: Optional[Callable[..., Any]], num_workers: int, drop_last: bool) -> None:
        if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
            raise InvalidType(f"training_data: got {type(dataset).__name__}, expected a torch Dataset (__len__ and __getitem__, or __iter__)")
        self.data_sampler = sampler
        if sampler is None and not isinstance(dataset, data.IterableDataset):
            self.data_sampler = data.DistributedSampler(dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, drop_last=drop_last)
        self._loader = data.DataLoader(dataset, batch_size=batch_size, sampler=self.data_sampler, collate_fn=collate_fn,
                                       num_workers=num_workers, drop_last=drop_last)
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        if hasattr(self.data_sampler, "set_epoch"):
            self.data_sampler.set_epoch(self._epoch)
        self._epoch += 1
        return iter(self._loader)


class RepeatingLoader:
    """Starts its loader again when that ends."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self._iterator = iter(loader)

    def __iter__(self) -> "RepeatingLoader":
        return self

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(self.loader)
            return next(self._iterator)
