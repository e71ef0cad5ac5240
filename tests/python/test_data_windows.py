"""C++ and Python take the same windows of the same files for the same seed (hydrofoil/data, examples/.../data.py)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.python.test_language_model import data

REPOSITORY = Path(__file__).resolve().parents[2]
CONTEXT, GLOBAL_BATCH, SEED, NUM_STEPS = 16, 12, 5, 30

# index, size, seed, epoch and where it is sent; the same table stands in tests/unit/data/permutation_test.cpp.
GOLDEN = [
    (0, 1, 0, 0, 0),
    (1, 2, 0, 0, 1),
    (2, 3, 1, 0, 2),
    (4, 5, 1, 2, 4),
    (16, 17, -1, 0, 11),
    (999, 1000, 3, 0, 317),
    (999, 1000, 3, 1, 894),
    (0, 1025, 1234, 7, 445),
    (123456, 1048576, 1, 0, 616614),
    (5, 1099511627777, 42, 3, 962996258602),
    (4611686018427387903, 4611686018427387904, 9223372036854775807, 9, 1620290998179044138),
    (12345, 9223372036854775807, -(2**63), 4611686018427387904, 8663858579837584608),
]


@pytest.mark.parametrize(("index", "size", "seed", "epoch", "expected"), GOLDEN)
def test_the_permutation_is_the_one_of_the_table(index: int, size: int, seed: int, epoch: int, expected: int) -> None:
    assert data.permuted(index, size, seed, epoch) == expected


@pytest.fixture(scope="module")
def program() -> str:
    candidates = [os.environ.get("HYDROFOIL_DATA_CHECK")]
    candidates += [str(REPOSITORY / "build" / preset / "tests/data_check") for preset in ("release", "dev")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    pytest.skip("no data_check program: set HYDROFOIL_DATA_CHECK or build the target data_check")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files whose order by path differs from that of their strings, some to be left out."""
    names = ["a-b.txt", "a.txt", "a/z.txt", "a/b/c.txt", "B.txt", "ä.txt"] + [f"many/{index}" for index in range(30)]
    for index, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1 + (index * 37 + byte * byte) % 255 for byte in range(60 + 17 * index)))
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\0\1")
    (tmp_path / ".hidden").write_bytes(b"hidden")
    return tmp_path


def windows_of_python(path: Path, rank: int, world_size: int, accumulation: int) -> str:
    corpus = data.load_corpus(path, CONTEXT)
    batches = data.Batches(corpus.train, CONTEXT, GLOBAL_BATCH, SEED, rank, world_size, accumulation)
    lines = [f"{len(corpus.train)} {len(corpus.held_out)} {corpus.num_skipped}\n"]
    for step in range(NUM_STEPS):
        for micro_step in range(accumulation):
            inputs, _ = batches.micro_batch(step, micro_step)
            for values in (batches.window_indices(step, micro_step), inputs.flatten().tolist()):
                lines.append("".join(f"{value} " for value in values) + "\n")
    return "".join(lines)


@pytest.mark.parametrize(("rank", "world_size", "accumulation"), [(0, 1, 1), (1, 2, 1), (2, 3, 2), (0, 4, 3)])
@pytest.mark.parametrize("name", [".", "many/29"], ids=["folder", "file"])
def test_both_take_the_same_windows(
    program: str, folder: Path, name: str, rank: int, world_size: int, accumulation: int
) -> None:
    path = folder / name
    numbers = [CONTEXT, GLOBAL_BATCH, SEED, rank, world_size, accumulation, NUM_STEPS]
    result = subprocess.run([program, *map(str, numbers), str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == windows_of_python(path, rank, world_size, accumulation)


def test_arrays_that_numpy_saved_are_read(program: str, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy writes the files")
    for dtype in ("uint8", "uint16", "uint32", "int32", "int64"):
        tokens = numpy.arange(1000).astype(dtype)
        numpy.save(tmp_path / f"{dtype}.npy", tokens)
        result = subprocess.run(
            [program, "16", "1", "0", "0", "1", "1", "1", str(tmp_path / f"{dtype}.npy")], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        sizes, window, inputs = result.stdout.splitlines()
        assert sizes == "950 50 0"
        start = 16 * int(window)
        assert [int(token) for token in inputs.split()] == tokens[start : start + 16].tolist()
    numpy.save(tmp_path / "floats.npy", numpy.zeros(1000))
    result = subprocess.run(
        [program, "16", "1", "0", "0", "1", "1", "1", str(tmp_path / "floats.npy")], capture_output=True, text=True
    )
    assert result.returncode == 1 and "floats.npy': byte 20: descr: got '<f8'" in result.stderr
