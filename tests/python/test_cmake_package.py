"""find_package(hydrofoil), of an installed tree and of the installed wheel: examples/consumer built outside this repository."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import hydrofoil
from tests.support.launcher import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


class Tree(NamedTuple):
    program: str  # bin/hydrofoil
    prefix: Path  # has lib/, include/


def command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=300, **options)


def done(*arguments: object, **options: object) -> str:
    result = command(*arguments, **options)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


def install(prefix: Path) -> Tree:
    """A developer's build, installed; the one that pip made has the layout of the wheel."""
    for build in (REPOSITORY / "build/dev", REPOSITORY / "build/release"):
        script, cache = build / "cmake_install.cmake", build / "CMakeCache.txt"
        if not script.is_file() or "hydrofoilConfig.cmake" not in script.read_text() or "\nSKBUILD:" in cache.read_text():
            continue
        result = command("cmake", "--install", build, "--prefix", prefix)
        if "cannot find" in result.stderr:
            continue  # not everything is built
        assert result.returncode == 0, result.stderr
        return Tree(str(prefix / "bin/hydrofoil"), prefix)
    pytest.skip("no whole developer's build: cmake --preset dev && ninja -C build/dev")


def installed_wheel() -> Tree:
    program = Path(sys.executable).parent / "hydrofoil"
    program = Path(os.environ.get("HYDROFOIL_PROGRAM", program))
    if not program.is_file():
        pytest.skip(f"no program {program}: install hydrofoil with pip")
    result = command(program, "--cmake-prefix")
    if result.returncode != 0:
        pytest.skip(result.stderr.strip())
    return Tree(str(program), Path(result.stdout.strip()))


@pytest.fixture(scope="module", params=["installed", "wheel"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    if request.param == "wheel":
        yield installed_wheel()
        return
    prefix = tmp_path_factory.mktemp("installed")
    yield install(prefix)
    shutil.rmtree(prefix)  # hundreds of megabytes


@pytest.fixture(scope="module")
def consumer(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("consumer") / "source"
    shutil.copytree(REPOSITORY / "examples/consumer", source)
    done("cmake", "-S", source, "-B", source / "build", f"-DCMAKE_PREFIX_PATH={tree.prefix}")
    done("cmake", "--build", source / "build")
    return source / "build/tiny_llama"


def losses(output: str) -> list[float]:
    return [float(value) for value in re.findall(r"^step \d+  loss (\S+)$", output, re.MULTILINE)]


# ------------------------------------------------------------------------------------------------------- both trees


def test_the_program_says_where_its_package_is(tree: Tree) -> None:
    assert Path(done(tree.program, "--cmake-prefix").strip()) == tree.prefix
    assert (tree.prefix / "lib/cmake/hydrofoil/hydrofoilConfig.cmake").is_file()


def test_the_installed_programs_start(tree: Tree) -> None:
    assert "Usage: hydrofoil train" in done(tree.program, "train", "--help")


def test_a_program_trains_on_one_rank_and_on_two(tree: Tree, consumer: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    one = losses(done(consumer, env=environment))
    run = [tree.program, "run", "--no-python", "--nproc", 2, consumer, tmp_path / "checkpoints"]
    two = losses(done(*run, env=environment))
    assert len(one) == 10 and one[-1] < 0.6 * one[0]
    assert two == pytest.approx(one, abs=1e-4)
    assert "model.embed_tokens.weight" in done(tree.program, "inspect", tmp_path / "checkpoints")


@pytest.mark.skipif(shutil.which("ldd") is None, reason="ldd is not installed")
def test_a_program_needs_no_python_and_finds_torch(consumer: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    libraries = done("ldd", consumer, env=environment)
    assert "libtorch_cpu.so" in libraries and "not found" not in libraries
    assert "libpython" not in libraries and "libtorch_python" not in libraries


def needed(file: Path) -> list[str]:
    return re.findall(r"Shared library: \[(.*)\]", done("readelf", "--dynamic", "--wide", file))


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
def test_the_standard_library_comes_before_torch(consumer: Path) -> None:
    """libtorch_cpu.so exports a std::filesystem of its own, which crashed programs on torch 2.11."""
    for file in (consumer, Path(hydrofoil._C.__file__)):
        libraries = needed(file)
        assert libraries.index("libstdc++.so.6") < libraries.index("libtorch_cpu.so"), (file, libraries)


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for AVX-512 exist on x86-64")
def test_the_kernels_are_vectorized(tree: Tree) -> None:
    """Options of the build that come after theirs once left the loops of a release scalar, which only a stopwatch saw."""
    code = done("objdump", "--disassemble", "--no-show-raw-insn", tree.prefix / "lib/libhydrofoil_kernels.a")
    assert re.search(r"vsqrtps\s+%zmm", code), "the AVX-512 build of the optimizers has no vector square root"


def public_headers(tree: Tree) -> dict[str, list[str]]:
    """Their names and includes."""
    root = tree.prefix / "include"
    return {path.relative_to(root).as_posix(): INCLUDE.findall(path.read_text()) for path in root.rglob("*.h")}


def test_public_headers_include_public_headers_torch_and_the_standard_library(tree: Tree) -> None:
    headers = public_headers(tree)
    assert "hydrofoil/engine/initialize.h" in headers
    for name, included in headers.items():
        for other in included:
            first = other.split("/")[0]
            known = other in headers if first == "hydrofoil" else first in ("ATen", "c10", "torch") or "/" not in other
            assert known and not other.startswith("Python"), f"{name} includes {other}, which is not installed"


def test_public_headers_compile_alone(tree: Tree, tmp_path: Path) -> None:
    """A source includes its own header first, so building the library compiled that alone; the others are compiled here.

    The target all_verify_interface_header_sets (ctest: headers.compile_alone, slow) compiles them all."""
    sources = [path.read_text() for path in (REPOSITORY / "hydrofoil").rglob("*.cpp")]
    first = {included[0] for text in sources if (included := INCLUDE.findall(text))}
    others = sorted(public_headers(tree).keys() - first)
    assert len(others) < 15, "too many headers without a source of their name for a quick test"
    for number, header in enumerate(others):
        (tmp_path / f"{number}.cpp").write_text(f'#include "{header}"\n')
    names = " ".join(f"{number}.cpp" for number in range(len(others)))
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(alone CXX)\nfind_package(hydrofoil REQUIRED)\n"
        f"add_library(alone OBJECT {names})\ntarget_link_libraries(alone PRIVATE hydrofoil::hydrofoil)\n"
        "target_compile_options(alone PRIVATE -fsyntax-only -Wno-pragma-once-outside-header)\n")
    done("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={tree.prefix}")
    done("cmake", "--build", tmp_path / "build")


# ------------------------------------------------------------------------------------------------------------ torch


def fake_torch(directory: Path, version: str) -> Path:
    (directory / "lib").mkdir(parents=True)
    (directory / "include/torch/csrc/api/include").mkdir(parents=True)
    (directory / "version.py").write_text(f"__version__ = '{version}+cpu'\n")
    for name in ("libtorch.so", "libtorch_cpu.so", "libc10.so", "libgomp.so.1"):
        (directory / "lib" / name).touch()
    return directory


def configure(prefix: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Configures a project of no language, which takes no compiler's time."""
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(probe CXX)\nfind_package(hydrofoil REQUIRED)\n")
    return command("cmake", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}", *arguments)


def said(text: str) -> str:
    """CMake breaks lines of messages."""
    return " ".join(text.split())


def built_with(tree: Tree) -> str:
    return re.search(r"built with torch (\d+\.\d+)", done(tree.program, "--version"))[1]


def test_another_minor_version_of_torch_is_refused(tree: Tree, tmp_path: Path) -> None:
    other = fake_torch(tmp_path / "torch", "2.5.1")
    result = configure(tree.prefix, tmp_path / "probe", f"-DHYDROFOIL_TORCH_DIR={other}")
    assert result.returncode != 0
    message = said(result.stderr)
    assert f"works with torch {built_with(tree)} only; found torch 2.5.1 in {other}" in message
    assert "-DHYDROFOIL_TORCH_DIR=" in message


def test_a_folder_without_torch_is_refused(tree: Tree, tmp_path: Path) -> None:
    result = configure(tree.prefix, tmp_path / "probe", f"-DHYDROFOIL_TORCH_DIR={tmp_path}")
    assert result.returncode != 0
    assert f"found no torch in HYDROFOIL_TORCH_DIR, {tmp_path}" in said(result.stderr)


@pytest.mark.parametrize("fits", [True, False])
def test_the_torch_beside_a_wheel_comes_first_if_it_fits(tree: Tree, tmp_path: Path, fits: bool) -> None:
    package = tmp_path / "site-packages/hydrofoil"
    shutil.copytree(tree.prefix / "lib/cmake", package / "lib/cmake")
    for archive in (tree.prefix / "lib").glob("*.a"):
        (package / "lib" / archive.name).symlink_to(archive)
    (package / "include").symlink_to(tree.prefix / "include")
    beside = fake_torch(tmp_path / "site-packages/torch", f"{built_with(tree)}.99" if fits else "2.5.1")
    result = configure(package, tmp_path / "probe")
    assert result.returncode == 0, result.stderr
    assert (f"in {beside}" in said(result.stdout)) == fits


# ----------------------------------------------------------------------------------------------------- the program


def test_a_program_without_a_package_says_what_is_missing(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = shutil.copy(tree.program, tmp_path / "bin/hydrofoil")
    result = command(program, "--cmake-prefix")
    assert result.returncode == 126 and result.stdout == ""
    assert "no CMake package" in result.stderr and f"{tmp_path}/lib/cmake" in result.stderr and "pip install" in result.stderr


@pytest.mark.parametrize("folder", ["", "lib/python3.11/site-packages/hydrofoil", "lib/python3/dist-packages/hydrofoil", "hydrofoil"])
def test_packages_are_found_where_pip_and_cmake_put_them(tree: Tree, tmp_path: Path, folder: str) -> None:
    (tmp_path / "bin").mkdir()
    program = shutil.copy(tree.program, tmp_path / "bin/hydrofoil")
    config = tmp_path / folder / "lib/cmake/hydrofoil/hydrofoilConfig.cmake"
    config.parent.mkdir(parents=True)
    config.touch()
    assert Path(done(program, "--cmake-prefix").strip()) == tmp_path / folder
