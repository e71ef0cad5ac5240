"""The Python surface of the engine: names, config forms, data, schedules, and that supported keys do what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hydrofoil
from tests.support.world import World, world

CASES = "tests.python.api_cases:"
PACKAGE = Path(hydrofoil.__file__).parent


@pytest.mark.parametrize(("stage", "size"), [(0, 2), (1, 2), (2, 2), (3, 2), (3, 1), (3, 3)])
def test_names_and_values(stage: int, size: int) -> None:
    world(size).run(CASES + "names_and_values", stage=stage)


@pytest.mark.parametrize("client", [False, True], ids=["config", "client"])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_optimizer_state_dict(stage: int, client: bool) -> None:
    world(2).run(CASES + "optimizer_state_dict", stage=stage, client=client)


def test_optimizer_state_dict_keeps_the_loss_scaler() -> None:
    world(2).run(CASES + "optimizer_state_dict_keeps_the_loss_scaler")


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_optimizer_state_dict_keeps_missed_steps(stage: int) -> None:
    world(2).run(CASES + "optimizer_state_dict_keeps_missed_steps", stage=stage)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("case", ["training_data", "model_parameters", "schedulers", "printed_keys", "casting_keys", "debug_keys", "debug_environment"])
def test_case(case: str, size: int) -> None:
    world(size).run(CASES + case)


def test_unit_keys() -> None:
    world(2).run(CASES + "unit_keys")


def test_config_forms(tmp_path: Path) -> None:
    world(2).run(CASES + "config_forms", directory=str(tmp_path))


def test_timeout_key() -> None:
    group = World(2)  # of its own: the channel is broken afterwards
    try:
        group.run(CASES + "timeout_key")
    finally:
        group.close()


IMPORTS = """
import sys, time, torch, torch.distributed
before = set(sys.modules)
start = time.perf_counter()
import hydrofoil
print(time.perf_counter() - start)
print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))
heavy = ['transformers', 'matplotlib', 'numpy.testing', 'torch._dynamo', 'torch._inductor', 'torchvision', 'safetensors', 'pandas', 'scipy']
print([name for name in heavy if name in sys.modules and name not in before])
"""


def test_import_is_light() -> None:
    times = []
    for _ in range(3):
        output = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True).stdout.splitlines()
        times.append(float(output[0]))
        assert output[2] == "[]", output
    print(f"import hydrofoil beyond torch: {min(times):.3f} s")  # required: below 0.3 s on an idle machine


def test_another_torch_is_a_named_error(tmp_path: Path) -> None:
    copy = tmp_path / "hydrofoil"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("_C*", "__pycache__"))
    (copy / "torch_minor_version.txt").write_text("1.7\n")
    result = subprocess.run([sys.executable, "-c", "import hydrofoil"], capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1
    for part in ("ImportError", "torch 1.7", "torch 2.", "pip install"):
        assert part in result.stderr, result.stderr
