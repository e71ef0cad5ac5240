"""The bytes to train on: which files, what is held out, and which windows each rank takes at each step.

Nothing is kept in memory but the list of files: a window is read from disk when a step needs it.
"""

from __future__ import annotations

import os
import sysconfig
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch

HOLD_OUT_EVERY = 20
_SKIPPED_FOLDERS = frozenset({"test", "idlelib", "site-packages", "dist-packages", "__pycache__"})
_SNIFFED_BYTES = 8192
_MASK64 = (1 << 64) - 1


class DataError(Exception):
    """The data cannot be trained on; the message says why, for the user."""


@dataclass(frozen=True)
class Segment:
    """`length` bytes of a file, from byte `start` on."""

    path: Path
    start: int
    length: int


class ByteStream:
    """Segments one after the other, read as if they were one file."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = [segment for segment in segments if segment.length > 0]
        self._ends = list(accumulate(segment.length for segment in self.segments))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def num_windows(self, context: int) -> int:
        """How many windows of `context` bytes, each with the byte that follows it, fit without overlap."""
        return max(0, (len(self) - 1) // context)

    def read(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length). Raises DataError where the files have become shorter, IndexError outside."""
        if start < 0 or length < 0 or start + length > len(self):
            raise IndexError(f"bytes [{start}, {start + length}) of a stream of {len(self)}")
        pieces = []
        at = bisect_right(self._ends, start)
        while length > 0:
            segment = self.segments[at]
            skipped = start - (self._ends[at] - segment.length)
            count = min(length, segment.length - skipped)
            pieces.append(_read_piece(segment.path, segment.start + skipped, count))
            start, length, at = start + count, length - count, at + 1
        return b"".join(pieces)


@dataclass(frozen=True)
class Corpus:
    """Text to train on and text held out; `name` and `num_skipped` (binary files left out) are for the report."""

    name: str
    train: ByteStream
    held_out: ByteStream
    num_skipped: int = 0


def load_corpus(data: str | os.PathLike[str] | None, context: int) -> Corpus:
    """Finds the text in `data` (a file or a folder; None is this interpreter's standard library) and splits it.

    Every 20th file, by name, is held out; of fewer than 20 files it is the last twentieth of each.
    Raises DataError where the data is missing, empty, binary, or too short for one window on either side.
    """
    if data is None:
        name, root = "Python's standard library", Path(sysconfig.get_paths()["stdlib"])
        paths = _python_sources(root)
        if not paths:
            raise DataError(f"this interpreter has no library source in {root}; name a file or folder with --data")
    else:
        root = Path(data)
        name = str(root)
        if not root.exists():
            raise DataError(f"{root} does not exist; --data takes a text file or a folder of them")
        paths = [root] if root.is_file() else sorted(_files(root, lambda folder: False))
    texts = [path for path in paths if _is_text(path)]
    if paths and not texts:
        raise DataError(f"{root} is binary (it holds zero bytes); --data takes plain text")
    sized = [(path, path.stat().st_size) for path in texts]
    sized = [(path, size) for path, size in sized if size > 0]
    if not sized:
        raise DataError(f"{root} is empty; --data takes a text file or a folder of them")
    train, held_out = _split(sized)
    for stream, what in ((train, "train on"), (held_out, "hold out")):
        if stream.num_windows(context) < 1:
            total = sum(size for _, size in sized)
            raise DataError(
                f"{root} is too short: {total} bytes leave {len(stream)} to {what}, expected at least {context + 1}"
            )
    return Corpus(name, train, held_out, len(paths) - len(texts))


class Batches:
    """Windows of the training stream for each (step, micro step) of one rank.

    An epoch is a permutation of all windows, chosen by `seed`. The global batch of a step depends on `seed` and the
    step alone; ranks and micro steps cut it into equal parts. Raises DataError where it cannot be cut equally.
    """

    def __init__(
        self,
        stream: ByteStream,
        context: int,
        global_batch: int,
        seed: int,
        rank: int,
        world_size: int,
        accumulation: int = 1,
    ) -> None:
        parts = world_size * accumulation
        if global_batch < 1 or global_batch % parts:
            raise DataError(
                f"a global batch of {global_batch} windows cannot be cut equally for {world_size} ranks x {accumulation} "
                f"accumulation steps; expected a multiple of {parts}"
            )
        self._stream, self._context, self._seed = stream, context, seed
        self._rank, self._world_size = rank, world_size
        self._global_batch, self.micro_batch_size = global_batch, global_batch // parts
        self._num_windows = stream.num_windows(context)

    def window_indices(self, step: int, micro_step: int = 0) -> list[int]:
        """The windows that this rank takes."""
        first = step * self._global_batch + (micro_step * self._world_size + self._rank) * self.micro_batch_size
        return [self._window_at(position) for position in range(first, first + self.micro_batch_size)]

    def micro_batch(self, step: int, micro_step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (the next byte), each int64 [micro batch, context]."""
        return read_windows(self._stream, self._context, self.window_indices(step, micro_step))

    def _window_at(self, position: int) -> int:
        epoch, index = divmod(position, self._num_windows)
        return permuted(index, self._num_windows, self._seed, epoch)


def read_windows(stream: ByteStream, context: int, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of the given windows, each int64 [len(indices), context]."""
    text = bytearray().join(stream.read(index * context, context + 1) for index in indices)
    windows = torch.frombuffer(text, dtype=torch.uint8).view(len(indices), context + 1).long()
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def spread_windows(stream: ByteStream, context: int, count: int) -> list[int]:
    """At most `count` windows, evenly spread over the stream."""
    available = stream.num_windows(context)
    count = min(count, available)
    return [index * available // count for index in range(count)]


def permuted(index: int, size: int, seed: int, epoch: int) -> int:
    """Where the permutation of range(size) that `seed` and `epoch` choose sends `index`.

    A Feistel network, so it takes no memory. hydrofoil/data/permutation.cpp computes the same.
    """
    half = (max(1, (size - 1).bit_length()) + 1) // 2
    mask = (1 << half) - 1
    key = _mix(_mix(seed) + epoch)
    # The network permutes the next power of four; what falls outside is sent on until it falls inside.
    while True:
        left, right = index >> half, index & mask
        for turn in range(4):
            left, right = right, left ^ (_mix(_mix(key + turn) ^ right) & mask)
        index = left << half | right
        if index < size:
            return index


def _mix(state: int) -> int:
    """Output of splitmix64 in a state, taken modulo 2^64 (https://prng.di.unimi.it/splitmix64.c)."""
    state = (state + 0x9E3779B97F4A7C15) & _MASK64
    state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _MASK64
    state = ((state ^ state >> 27) * 0x94D049BB133111EB) & _MASK64
    return state ^ state >> 31


def _split(sized: Sequence[tuple[Path, int]]) -> tuple[ByteStream, ByteStream]:
    if len(sized) >= HOLD_OUT_EVERY:
        whole = [Segment(path, 0, size) for path, size in sized]
        held_out = whole[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY]
        del whole[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY]
        return ByteStream(whole), ByteStream(held_out)
    tails = [size // HOLD_OUT_EVERY for _, size in sized]
    heads = [Segment(path, 0, size - tail) for (path, size), tail in zip(sized, tails)]
    held_out = [Segment(path, size - tail, tail) for (path, size), tail in zip(sized, tails)]
    return ByteStream(heads), ByteStream(held_out)


def _python_sources(root: Path) -> list[Path]:
    return sorted(path for path in _files(root, _SKIPPED_FOLDERS.__contains__) if path.suffix == ".py")


def _files(root: Path, skip_folder: Callable[[str], bool]) -> Iterator[Path]:
    """Regular files under `root`, without hidden ones and without folders whose name `skip_folder` rejects."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and not skip_folder(name)]
        yield from (path for name in names if not name.startswith(".") and (path := Path(folder, name)).is_file())


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" not in file.read(_SNIFFED_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _read_piece(path: Path, start: int, length: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            piece = file.read(length)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if len(piece) != length:
        raise DataError(f"{path} changed while it was in use: {len(piece)} bytes at {start}, expected {length}")
    return piece
