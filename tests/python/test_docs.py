"""The documentation: the site builds without a warning, every code block runs, every error message is one of the code's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.doc_blocks import PAGES, REPOSITORY, Block, all_blocks
from tests.support.launcher import environment, program  # noqa: F401

BLOCKS = all_blocks()
# `text` is output; C++ is compiled with the C++ tests (tests/CMakeLists.txt), CMake in test_cmake_package.py.
EXECUTED_HERE = ("python", "bash", "json")
KNOWN = (*EXECUTED_HERE, "cpp", "cmake", "text")
PREAMBLE = "from tests.support.doc_names import *\n"
TINY = {"model_type": "llama", "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}


def blocks(language: str) -> list[object]:
    return [pytest.param(block, id=block.name) for block in BLOCKS if block.language == language and block.not_run is None]


def named(page: str, language: str, part: str) -> Block:
    return next(block for block in BLOCKS if block.page == page and block.language == language and part in block.code)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the pages speak of, as the quick start has them."""
    (tmp_path / "ds_config.json").write_text(named("index.md", "json", "train_batch_size").code)
    (tmp_path / "train.py").write_text(arguments_too(named("index.md", "python", "init_distributed").code))
    for name in ("llama-70b", "my-model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "h100.json").write_text(json.dumps({"bf16_flops": 4e14, "host_bytes_per_s": 4e11}))
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("All work and no play makes Jack a dull boy. " * 400)
    return tmp_path


def arguments_too(code: str) -> str:
    """The quick start's script, with the arguments that a DeepSpeed script has."""
    parse = "import argparse\nimport hydrofoil\nhydrofoil.add_config_arguments(argparse.ArgumentParser()).parse_known_args()\n"
    return parse + code


def run(command: list[str], cwd: Path, program: str, environment: dict[str, str]) -> None:  # noqa: F811
    paths = {"PATH": f"{Path(program).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
             "PYTHONPATH": f"{REPOSITORY}:{environment.get('PYTHONPATH', '')}", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, cwd=cwd, env={**environment, **paths}, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def test_every_block_has_a_language_that_is_checked() -> None:
    assert [block.name for block in BLOCKS if block.language not in KNOWN] == []
    assert all(blocks(language) for language in EXECUTED_HERE)


def test_few_blocks_are_not_run() -> None:
    """A new one needs a reason here too."""
    left_out = [f"{block.page}: {block.code.splitlines()[0]}" for block in BLOCKS if block.not_run]
    assert left_out == [
        "README.md: make train        # sets everything up, trains a language model on two ranks, shows a loss curve and a sample",
        "README.md: cd examples/consumer",
        "cpp.md: cmake -B build -DCMAKE_PREFIX_PATH=$(hydrofoil --cmake-prefix)",
        "ecosystem.md: pip install ./python/compat           # the drop-in distribution named deepspeed",
        "index.md: pip install scikit-build-core",
        "plan.md: python benchmarks/plan/accuracy.py --roofs roofs.json",
    ]


@pytest.mark.parametrize("block", blocks("python"))
def test_python(block: Block, folder: Path, program: str, environment: dict[str, str]) -> None:  # noqa: F811
    if "transformers" in block.code:
        pytest.importorskip("transformers")
    (folder / "block.py").write_text(PREAMBLE + block.code)
    run([program, "run", "--quiet", "--nproc", str(block.ranks), "block.py"], folder, program, environment)


@pytest.mark.parametrize("block", blocks("bash"))
def test_bash(block: Block, folder: Path, program: str, environment: dict[str, str]) -> None:  # noqa: F811
    run(["bash", "-euo", "pipefail", "-c", block.code], folder, program, environment)


@pytest.mark.parametrize("block", blocks("json"))
def test_json(block: Block, folder: Path, program: str, environment: dict[str, str]) -> None:  # noqa: F811
    config = json.loads(block.code)
    if "train_batch_size" not in config:  # the page shows one section
        config["train_micro_batch_size_per_gpu"] = 1
    (folder / "block.json").write_text(json.dumps(config))
    run([program, "config", "explain", "block.json", "--world-size", "2", "--device", "cpu"], folder, program, environment)


# ------------------------------------------------------------------------------------------------------- the messages


def literals() -> str:
    """Text of the strings in the sources, with neighbours joined."""
    sources = [path for folder in ("hydrofoil", "apps", "python") for path in (REPOSITORY / folder).rglob("*")
               if path.suffix in (".cpp", ".h", ".py")]
    text = "\n".join(path.read_text() for path in sources)
    return re.sub(r'"\s*\n\s*f?"', "", text).replace('\\"', '"')


def messages() -> list[str]:
    page = (REPOSITORY / "docs/troubleshooting.md").read_text()
    return [message for line in page.splitlines() if line.startswith("#### ") for message in re.findall(r"`([^`]+)`", line)]


# What a shell or a test says, not this code.
OTHERS = {"command not found", "no hydrofoil program"}


def test_messages_are_those_of_the_code() -> None:
    text = literals()
    assert len(messages()) > 20
    wrong = [message for message in messages() if message not in OTHERS
             for piece in re.split(r"\.\.\.(?!\))", message) if piece.strip() and piece not in text]
    assert wrong == []


# ----------------------------------------------------------------------------------------------------------- the site


@pytest.fixture(scope="module")
def mkdocs() -> str:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    return str(Path(sys.executable).parent / "mkdocs")


def build(mkdocs: str, config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run([mkdocs, "build", "--strict", "-f", config, "-d", site], capture_output=True, text=True, timeout=600, env=settings)


def test_site_builds_without_a_warning(mkdocs: str, tmp_path: Path) -> None:
    result = build(mkdocs, REPOSITORY / "mkdocs.yml", tmp_path / "site")
    assert result.returncode == 0 and "WARNING" not in result.stderr, result.stderr
    for page in PAGES[1:]:
        assert list((tmp_path / "site").glob("index.html" if page.stem == "index" else f"{page.stem}/index.html")), page


def test_a_dead_link_would_be_a_warning(mkdocs: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# One\n\n[two](two.md)\n")
    text = (REPOSITORY / "mkdocs.yml").read_text().split("nav:")[0]
    (tmp_path / "mkdocs.yml").write_text(text)
    result = build(mkdocs, tmp_path / "mkdocs.yml", tmp_path / "site")
    assert result.returncode != 0 and "two.md" in result.stdout + result.stderr


def test_pictures_can_be_drawn_anew(program: str, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("matplotlib")
    done = subprocess.run([sys.executable, REPOSITORY / "docs/make_images.py", "--out", tmp_path], capture_output=True, text=True, timeout=600,
                          env={**os.environ, "HYDROFOIL_PROGRAM": program})
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"zero_memory.svg", "zero_step.svg"}
