"""`hydrofoil inspect`: safetensors files, checkpoints, and what is wrong with them."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.launcher import REPOSITORY, program  # noqa: F401

MANIFEST = REPOSITORY / "tests/fuzz/seeds/manifest/two_ranks.json"
Inspect = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def inspect(program: str) -> Inspect:  # noqa: F811
    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [program, "inspect", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)

    return run


def write_file(path: Path, tensors: dict[str, tuple[str, list[int], int]], metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file of zeros, sparse on disk; `tensors` maps a name to dtype, shape and bytes."""
    header, end = ({"__metadata__": metadata} if metadata else {}), 0
    for name, (dtype, shape, num_bytes) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + num_bytes]}
        end += num_bytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tensors = {"embed.weight": ("F32", [1000, 64], 256_000), "norm": ("BF16", [64], 128), "scalar": ("I64", [], 8)}
    return write_file(tmp_path / "model.safetensors", tensors, {"format": "pt"})


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A directory as save_checkpoint leaves it, with the tags `old` and `step3`; `latest` names the second."""
    for tag in ("old", "step3"):
        folder = tmp_path / "checkpoint" / tag
        folder.mkdir(parents=True)
        manifest = json.loads(MANIFEST.read_text())
        for file in manifest["files"]:
            (folder / file["name"]).write_bytes(bytes(file["bytes"]))
        if tag == "old":
            manifest["counters"]["global_steps"] = 1
        (folder / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "checkpoint" / "latest").write_text("step3\n")
    return tmp_path / "checkpoint"


def test_a_file_is_an_aligned_table_with_totals_and_metadata(inspect: Inspect, model: Path) -> None:
    result = inspect(model)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        f"{model}: safetensors\n\n"
        "NAME          DTYPE  SHAPE         BYTES\n"
        "embed.weight  F32    [1000, 64]  256,000\n"
        "norm          BF16   [64]            128\n"
        "scalar        I64    []                8\n"
        "\n"
        "total: 3 tensors, 64,065 elements, 256,136 bytes (250.1 KiB)\n"
        "\n"
        "metadata:\n"
        "  format: pt\n"
    )


def test_a_file_as_json(inspect: Inspect, model: Path) -> None:
    contents = json.loads(inspect("--json", model).stdout)
    assert contents["path"] == str(model) and contents["format"] == "safetensors"
    assert contents["metadata"] == {"format": "pt"}
    assert contents["tensors"][0] == {
        "name": "embed.weight", "dtype": "F32", "shape": [1000, 64], "numel": 64_000, "bytes": 256_000,
    }
    assert contents["total"] == {"tensors": 3, "numel": 64_065, "bytes": 256_136}


@pytest.mark.parametrize("arguments", [["."], ["step3"], [".", "--tag", "step3"], ["step3/"]])
def test_a_checkpoint_is_found_by_its_directory_or_the_latest(
    inspect: Inspect, checkpoints: Path, arguments: list[str]
) -> None:
    result = inspect(*arguments, cwd=checkpoints)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].endswith(": hydrofoil-checkpoint") and lines[2].split() == ["NAME", "KIND", "DTYPE", "SHAPE", "BYTES"]
    assert lines[3].split() == ["w", "master", "F32", "[5]", "20"]
    assert "  counters.global_steps: 3" in lines and "  world_size: 2" in lines and "  dtypes.model: bf16" in lines
    assert any(line.startswith("total of master: ") for line in lines)


def test_another_tag_as_json(inspect: Inspect, checkpoints: Path) -> None:
    contents = json.loads(inspect(checkpoints, "--tag=old", "--json").stdout)
    assert contents["metadata"]["counters.global_steps"] == "1"
    assert contents["tensors"][0] == {
        "name": "w", "kind": "master", "dtype": "F32", "shape": [5], "numel": 5, "bytes": 20,
    }
    assert contents["total"]["tensors"] == len(contents["tensors"])


def test_memory_does_not_grow_with_the_tensors(inspect: Inspect, tmp_path: Path) -> None:
    num_bytes = 1 << 40
    path = write_file(tmp_path / "large", {"large": ("U8", [num_bytes], num_bytes)})
    limit = 256 << 20
    result = inspect(path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert result.returncode == 0, result.stderr
    assert "1,099,511,627,776 bytes (1.0 TiB)" in result.stdout


def test_names_cannot_write_to_the_terminal(inspect: Inspect, tmp_path: Path) -> None:
    name = "a\x1b[2Jb\nc\x9bd ä"
    path = write_file(tmp_path / "file", {name: ("U8", [1], 1), "x" * 5000: ("U8", [1], 1)}, {"\x07": "\r"})
    result = inspect(path)
    assert r"a\x1b[2Jb\x0ac\x9bd ä" in result.stdout and r"\x07: \x0d" in result.stdout
    assert not set("\x1b\x9b\x07\r") & set(result.stdout)
    assert max(len(line) for line in result.stdout.splitlines() if "x" * 5000 not in line) < 200
    names = [tensor["name"] for tensor in json.loads(inspect(path, "--json").stdout)["tensors"]]
    assert names == [name, "x" * 5000]


def test_a_file_without_tensors(inspect: Inspect, tmp_path: Path) -> None:
    result = inspect(write_file(tmp_path / "none", {}))
    assert result.returncode == 0 and "total: 0 tensors, 0 elements, 0 bytes\n" in result.stdout
    assert json.loads(inspect(tmp_path / "none", "--json").stdout)["tensors"] == []


def cut_manifest(folder: Path) -> None:
    path = folder / "step3/manifest.json"
    path.write_text(path.read_text()[:-20])


DEFECTS = {
    "a truncated file": (lambda d: (d / "f").write_bytes(b"\x20\0\0\0\0\0\0\0{}"), "f", 2, "it is truncated"),
    "an empty file": (lambda d: (d / "f").write_bytes(b""), "f", 2, "got 0 bytes"),
    "a foreign file": (lambda d: (d / "f").write_bytes(b"\x80\x02}q\0K\1" * 9), "f", 2, "header length"),
    "a missing file": (lambda d: None, "f", 126, "No such file"),
    "a directory without a checkpoint": (lambda d: (d / "d").mkdir(), "d", 2, "it holds no checkpoint"),
    "a checkpoint whose file is damaged": (lambda d: (d / "step3/r1").write_bytes(b""), "step3", 2, "r1': got 0 bytes"),
    "a checkpoint whose file is missing": (lambda d: (d / "step3/r1").unlink(), "step3", 126, "r1': No such file"),
    "a manifest that is cut": (cut_manifest, "step3", 2, "manifest.json': invalid JSON"),
    "a latest that names nothing": (lambda d: (d / "latest").write_text("stp3"), ".", 2, "the nearest is 'step3'"),
    "a latest that is gone": (lambda d: (d / "latest").unlink(), ".", 2, "the tags that exist are 'old', 'step3'"),
    "a checkpoint that is gone": (lambda d: shutil.rmtree(d / "step3"), ".", 2, "no checkpoint 'step3'"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_errors_name_file_and_defect(inspect: Inspect, checkpoints: Path, defect: str) -> None:
    damage, name, code, message = DEFECTS[defect]
    damage(checkpoints)
    result = inspect(checkpoints / name)
    assert result.returncode == code and message in result.stderr and str(checkpoints) in result.stderr
    assert result.stdout == ""


def test_wrong_use(inspect: Inspect, model: Path) -> None:
    result = inspect("--jsn", model)
    assert result.returncode == 2 and "unknown flag --jsn; the nearest valid flag is --json" in result.stderr
    result = inspect(model, "--tag", "x")
    assert result.returncode == 2 and "is not a directory of checkpoints" in result.stderr
    for arguments in (["--json"], [model, model], [model, "--tag"]):
        assert inspect(*arguments).returncode == 2
    with open("/dev/full", "w") as full:
        result = subprocess.run([inspect("--help").args[0], "inspect", str(model)], stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 126 and b"cannot write the output: No space left" in result.stderr


def test_help_shows_examples_and_exit_codes(inspect: Inspect) -> None:
    for arguments in (["--help"], []):
        result = inspect(*arguments)
        assert result.returncode == 0 and "Examples:" in result.stdout and "Exit codes:" in result.stdout
