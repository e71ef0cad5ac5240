"""The sdist, the wheel from it, and a fresh environment without a compiler that has torch and this wheel alone.

HYDROFOIL_WHEEL=FILE takes a wheel that was built before, instead of building for minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.launcher import REPOSITORY

pytestmark = pytest.mark.slow  # the whole engine is built
pytest.importorskip("scikit_build_core")


def done(command: list[object], **options: object) -> str:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=7200, **options)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    build = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    done([sys.executable, "-c", build, folder], cwd=REPOSITORY)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked sdist: what the sdist lacks, the build would miss."""
    if built := os.environ.get("HYDROFOIL_WHEEL"):
        return Path(built)
    source = tmp_path_factory.mktemp("source")
    with tarfile.open(request.getfixturevalue("sdist")) as archive:
        archive.extractall(source, filter="data")
    (root,) = source.iterdir()
    folder = tmp_path_factory.mktemp("wheel")
    done([sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", folder, root],
         env={**os.environ, "CCACHE_BASEDIR": str(root), "CCACHE_NOHASHDIR": "1"})
    (path,) = folder.iterdir()
    return path


class Fresh:
    """A virtual environment that sees torch and what it needs of the tests' own environment, and nothing else."""

    def __init__(self, folder: Path) -> None:
        import torch

        venv.create(folder, with_pip=True)
        self.folder, self.bin = folder, folder / "bin"
        self.packages = next((folder / "lib").glob("python3*/site-packages"))
        for bundled in (*self.packages.glob("setuptools*"), self.packages / "pkg_resources", self.packages / "_distutils_hack"):
            shutil.rmtree(bundled, ignore_errors=True)  # older than torch wants, in Python 3.11
        # Links, one by one, so that no hydrofoil of the tests' environment is seen.
        for entry in Path(torch.__file__).parents[1].iterdir():
            if entry.suffix != ".pth" and not entry.name.lower().startswith(("hydrofoil", "pip", "__")):
                (self.packages / entry.name).symlink_to(entry)
        # Programs that a compiler would be are not to be found; `hydrofoil run` needs none.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HYDROFOIL_", "VIRTUAL_ENV"))}
        self.environment.update(PATH=str(self.bin), HOME=str(folder / "home"), PYTHONDONTWRITEBYTECODE="1")

    def python(self, *arguments: object, **options: object) -> str:
        return done([self.bin / "python", *arguments], env=self.environment, cwd=self.folder, **options)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    return Fresh(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def installed(fresh: Fresh, wheel: Path) -> Fresh:
    fresh.before = fresh.files()
    fresh.python("-m", "pip", "install", "--no-index", wheel)
    return fresh


def test_sdist_has_the_sources_alone(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
        size = sum(member.size for member in archive.getmembers())
    tops = {name.split("/")[0] for name in names}
    assert {"CMakeLists.txt", "pyproject.toml", "PKG-INFO", "LICENSE", "README.md", "hydrofoil", "python", "apps", "cmake"} <= tops
    assert not tops & {"build", ".venv", "runs", "benchmarks", ".git"}
    assert not [name for name in names if name.endswith((".so", ".pyc", ".o", ".a"))]
    assert size < 20 << 20


def test_wheel_holds_the_package_and_the_programs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Dist: torch" in metadata
    extensions = [name for name in names if name.startswith("hydrofoil/_C.") and name.endswith(".so")]
    assert len(extensions) == 1
    assert [name for name in names if name.endswith("scripts/hydrofoil")] and [name for name in names if name.endswith("scripts/hydrofoil-train")]
    assert "hydrofoil/py.typed" in names and "hydrofoil/lib/cmake/hydrofoil/hydrofoilConfig.cmake" in names
    assert not [name for name in names if "tests/" in name or name.endswith(".pyc")]


def test_libraries_are_those_of_every_machine_and_torch(installed: Fresh) -> None:
    extension = next((installed.packages / "hydrofoil").glob("_C.*.so"))
    allowed = ("libtorch", "libc10", "libgomp", "libshm", "libstdc++", "libm.", "libgcc_s", "libc.", "libpthread", "libdl", "librt", "ld-linux")
    for file in (extension, installed.bin / "hydrofoil", installed.bin / "hydrofoil-train"):
        dynamic = done(["readelf", "-d", file])
        needed = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]
        assert needed and not [name for name in needed if not name.startswith(allowed)], (file, needed)


def test_pip_check_is_clean(installed: Fresh) -> None:
    report = subprocess.run([installed.bin / "python", "-m", "pip", "check"], env=installed.environment, capture_output=True, text=True)
    assert "hydrofoil" not in report.stdout, report.stdout


def test_it_trains_without_a_compiler(installed: Fresh, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("""
import torch, hydrofoil
torch.manual_seed(0)
hydrofoil.init_distributed()
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
engine, *_ = hydrofoil.initialize(model=model, model_parameters=model.parameters(), config={
    "train_batch_size": 8, "optimizer": {"type": "AdamW", "params": {"lr": 1e-2}}, "zero_optimization": {"stage": 3}})
inputs = torch.randn(4, 8)
losses = []
for _ in range(20):
    loss = engine(inputs).square().mean()
    engine.backward(loss)
    engine.step()
    losses.append(loss.item())
assert losses[-1] < losses[0] / 2, losses
print("rank done")
""")
    out = done([installed.bin / "hydrofoil", "run", "--nproc", "2", tmp_path / "train.py"], env=installed.environment, cwd=tmp_path)
    assert out.count("rank done") == 2


def test_the_doctor_finds_no_problem(installed: Fresh) -> None:
    report = json.loads(done([installed.bin / "hydrofoil", "doctor", "--json"], env=installed.environment, cwd=installed.folder))
    found = {finding["name"]: finding["value"] for finding in report["findings"]}
    assert str(installed.packages / "hydrofoil") in found["hydrofoil"]


def test_nothing_is_written_to_the_home_directory(installed: Fresh) -> None:
    assert not (installed.folder / "home").exists()


def test_uninstall_leaves_nothing(installed: Fresh) -> None:
    """The last test: it ends the module's installation. With byte code, as users have it."""
    settings = {name: value for name, value in installed.environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done([installed.bin / "python", "-c", "import hydrofoil.planning"], env=settings)
    done([installed.bin / "python", "-m", "pip", "uninstall", "-y", "hydrofoil"], env=installed.environment)
    left = {path for path in installed.files() - installed.before if "__pycache__" not in path or "hydrofoil" in path}
    assert left == set()
