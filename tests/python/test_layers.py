"""tools/check_layers.py finds no violation in this tree, and each kind of violation in a made-up one."""

import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def check(root):
    command = [sys.executable, str(REPOSITORY / "tools/check_layers.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True)


def test_this_tree_keeps_the_layers():
    result = check(REPOSITORY)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_folder_that_is_no_repository_is_an_error(tmp_path):
    assert check(tmp_path).returncode == 2


VIOLATIONS = {
    "higher layer": ("hydrofoil/comm/a.cpp", "hydrofoil/zero/unit.h", "higher layer"),
    "higher layer, in angle brackets": ("hydrofoil/base/a.h", "<hydrofoil/comm/group.h>", "higher layer"),
    "behind it in its layer": ("hydrofoil/memory/a.h", "hydrofoil/comm/group.h", "same layer"),
    "stranger of its layer": ("hydrofoil/mesh/a.cpp", "hydrofoil/config/value.h", "same layer"),
    "private header": ("hydrofoil/engine/a.cpp", "hydrofoil/zero/detail/x.h", "private to zero"),
    "private header in an application": ("apps/x/a.cpp", "hydrofoil/zero/detail/x.h", "private to zero"),
    "private header in a foreign test": ("tests/unit/comm/a_test.cpp", "hydrofoil/zero/detail/x.h", "private to zero"),
    "unknown module": ("hydrofoil/zero/a.cpp", "hydrofoil/zeros/unit.h", "in no module"),
    "relative path": ("hydrofoil/zero/a.cpp", "unit.h", "is not written as"),
    "application": ("hydrofoil/engine/a.cpp", "apps/launcher/launch.h", "is not written as"),
    "heavy header": ("hydrofoil/zero/a.h", "<ATen/ATen.h>", "at most ATen/core/Tensor.h"),
    "operator header in a header": ("hydrofoil/zero/a.h", "<ATen/ops/add.h>", "at most ATen/core/Tensor.h"),
    "torch below": ("hydrofoil/base/a.cpp", "<c10/util/Half.h>", "without torch"),
    "torch in options": ("hydrofoil/zero/zero_options.h", "<ATen/core/Tensor.h>", "without torch"),
    "Python": ("hydrofoil/engine/a.cpp", "<Python.h>", "does not know Python"),
    "torch's Python": ("hydrofoil/engine/a.cpp", "<torch/extension.h>", "does not know Python"),
    "torch in the program": ("apps/main.cpp", "<ATen/core/Tensor.h>", "neither torch nor Python"),
    "folder in no layer": ("hydrofoil/misc/a.cpp", "hydrofoil/base/error.h", "in no layer"),
}


@pytest.mark.parametrize("kind", VIOLATIONS)
def test_violation_is_found(tmp_path, kind):
    name, included, message = VIOLATIONS[kind]
    (tmp_path / "hydrofoil").mkdir()
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    directive = included if included.startswith("<") else f'"{included}"'
    file.write_text(f"#pragma once\n\n  #  include {directive}\n")
    result = check(tmp_path)
    line = 1 if kind == "folder in no layer" else 3
    where = "hydrofoil/misc" if kind == "folder in no layer" else name
    assert result.returncode == 1
    assert result.stdout.startswith(f"{where}:{line}: ") and message in result.stdout
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "name, included",
    [
        ("hydrofoil/engine/a.h", '"hydrofoil/zero/unit.h"'),
        ("hydrofoil/comm/a.h", '"hydrofoil/kernels/cast.h"'),
        ("hydrofoil/zero/a.cpp", '"hydrofoil/zero/detail/x.h"'),
        ("tests/unit/zero/a_test.cpp", '"hydrofoil/zero/detail/x.h"'),
        ("hydrofoil/zero/zero_options.h", '"hydrofoil/config/field.h"'),
        ("hydrofoil/optim/optim_options.h", '"hydrofoil/config/field.h"'),
        ("hydrofoil/engine/engine_options.h", '"hydrofoil/config/field.h"'),
        ("hydrofoil/zero/a.cpp", "<ATen/ops/add.h>"),
        ("hydrofoil/zero/a.h", "<ATen/core/Tensor.h>"),
        ("hydrofoil/zero/a.h", "<c10/core/ScalarType.h>"),
        ("hydrofoil/engine/torch_nn.h", "<torch/nn/module.h>"),
        ("hydrofoil/base/a.cpp", "<vector>"),
        ("python/src/a.cpp", "<torch/extension.h>"),
    ],
)
def test_what_is_allowed_passes(tmp_path, name, included):
    (tmp_path / "hydrofoil").mkdir()
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#include {included}\n// #include <Python.h>\n")
    result = check(tmp_path)
    assert result.returncode == 0, result.stdout
