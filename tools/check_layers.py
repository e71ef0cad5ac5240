#!/usr/bin/env python3
"""Checks the includes of the C++ tree against the layers of docs/architecture.md.

Usage: tools/check_layers.py [ROOT]     (default: the repository that this file lies in)

Prints one line "file:line: what is wrong" per violation. Exit codes: 0 none, 1 some, 2 ROOT has no folder hydrofoil/.

Rules, for the files under hydrofoil/:
  - A module includes only modules of lower layers and, within its layer, those in front of it in CHAINS.
  - <module>/detail/ belongs to its module (and to the module's own tests and micro-benchmarks).
  - Includes name the full path "hydrofoil/<module>/<file>"; nothing includes apps/, python/ or tests/.
  - base, config, mesh and trace include no torch; no module includes Python or pybind11. apps/ includes neither, but for
    the program apps/train/, which links torch.
  - Headers include of torch at most ATen/core/Tensor.h and what that is made of (c10/); HEAVY_HEADERS may include more.
"""

import pathlib
import re
import sys
from typing import Iterator, NamedTuple, Optional

LAYERS = [
    ["base"],
    ["config", "mesh", "device", "storage", "trace"],
    ["memory", "kernels", "comm"],
    ["optim", "offload"],
    ["zero", "pipeline", "tensor_parallel", "sequence", "moe", "recompute", "attention", "compression"],
    ["checkpoint", "models", "data"],
    ["plan", "inference", "engine"],
]
# Within a layer, a module may include those that stand before it in one of these; all others are strangers.
CHAINS = [["device", "storage", "trace"], ["memory", "kernels", "comm"], ["optim", "offload"], ["plan", "inference", "engine"]]
WITHOUT_TORCH = {"base", "config", "mesh", "trace"}
# Built without torch, into the targets hydrofoil_options and hydrofoil_layout, whatever their module needs.
TORCHLESS_HEADERS = {
    "optim/optim_options.h", "zero/zero_options.h", "engine/engine_options.h", "engine/profiling_options.h", "memory/alignment.h", "optim/optimizer_kind.h",
    "zero/flat_layout.h", "zero/unit_planner.h", "zero/whole_modules.h",
}
HEAVY_HEADERS = {"engine/torch_nn.h"}
TORCH_PROGRAM = "apps/train/"
LIGHT_TORCH = re.compile(r"ATen/core/(Tensor|TensorBase)\.h|c10/.*")
TORCH = re.compile(r"(torch|ATen|c10|caffe2)/.*")
PYTHON = re.compile(r"(Python\.h|pybind11/.*|torch/csrc/(python_headers|Exceptions|THP.*|utils/pybind|autograd/python_.*)\b.*|torch/(extension|python)\.h)")
INCLUDE = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')
HEADER_ENDINGS = {".h", ".hpp", ".cuh"}
SOURCE_ENDINGS = {".cpp", ".cc", ".cu", ".inc"} | HEADER_ENDINGS

LAYER_OF = {module: layer for layer, modules in enumerate(LAYERS) for module in modules}


class Include(NamedTuple):
    line: int
    quoted: bool
    path: str


def includes(file: pathlib.Path) -> Iterator[Include]:
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        if match := INCLUDE.match(line):
            yield Include(number, match[1] == '"', match[2])


def may_include(module: str, other: str) -> bool:
    if module == other or LAYER_OF[other] < LAYER_OF[module]:
        return True
    return any(module in chain and other in chain[: chain.index(module)] for chain in CHAINS if module in chain)


def module_error(module: str, include: Include) -> Optional[str]:
    """What is wrong with an include of the project's own."""
    parts = include.path.split("/")
    if parts[0] != "hydrofoil" or len(parts) < 3:
        return f'"{include.path}" is not written as "hydrofoil/<module>/<file>"'
    other = parts[1]
    if other not in LAYER_OF:
        return f"{include.path} is in no module of the layer list"
    if not may_include(module, other):
        where = "of the same layer, not in front of it" if LAYER_OF[module] == LAYER_OF[other] else "of a higher layer"
        return f"{module} includes {include.path}, {where}"
    if "detail" in parts[2:-1] and other != module:
        return f"{module} includes {include.path}, which is private to {other}"
    return None


def torch_error(module: str, name: str, include: Include) -> Optional[str]:
    """What is wrong with an include of torch or Python. `name` is the file within hydrofoil/."""
    if PYTHON.fullmatch(include.path):
        return f"{include.path}: the library does not know Python"
    if not TORCH.fullmatch(include.path):
        return None
    if module in WITHOUT_TORCH or name in TORCHLESS_HEADERS:
        return f"{include.path}: {name if name in TORCHLESS_HEADERS else module} is built without torch"
    is_header = pathlib.PurePath(name).suffix in HEADER_ENDINGS
    if is_header and name not in HEAVY_HEADERS and not LIGHT_TORCH.fullmatch(include.path):
        return f"{include.path}: a header includes of torch at most ATen/core/Tensor.h"
    return None


def check_library(root: pathlib.Path) -> Iterator[str]:
    for folder in sorted((root / "hydrofoil").iterdir()):
        if not folder.is_dir():
            continue
        if folder.name not in LAYER_OF:
            yield f"hydrofoil/{folder.name}:1: this folder is in no layer of tools/check_layers.py"
            continue
        for file in sorted(path for path in folder.rglob("*") if path.suffix in SOURCE_ENDINGS):
            name = file.relative_to(root / "hydrofoil").as_posix()
            for include in includes(file):
                own = include.quoted or include.path.startswith(("hydrofoil/", "apps/", "python/", "tests/"))
                error = torch_error(folder.name, name, include)
                if error is None and own and not TORCH.fullmatch(include.path):
                    error = module_error(folder.name, include)
                if error is not None:
                    yield f"hydrofoil/{name}:{include.line}: {error}"


def check_users(root: pathlib.Path) -> Iterator[str]:
    """Files outside the library: no private headers of a module, and no torch in the program."""
    for top in ("apps", "python", "tests", "examples", "benchmarks"):
        for file in sorted(path for path in (root / top).rglob("*") if path.suffix in SOURCE_ENDINGS):
            name = file.relative_to(root).as_posix()
            for include in includes(file):
                parts = include.path.split("/")
                if parts[0] == "hydrofoil" and "detail" in parts[2:-1] and not name.startswith(
                        (f"tests/unit/{parts[1]}/", f"benchmarks/micro/{parts[1]}/")):
                    yield f"{name}:{include.line}: {include.path} is private to {parts[1]}"
                if top != "apps" or name.startswith(TORCH_PROGRAM) and not PYTHON.fullmatch(include.path):
                    continue
                if TORCH.fullmatch(include.path) or PYTHON.fullmatch(include.path):
                    yield f"{name}:{include.line}: {include.path}: the program links neither torch nor Python"


def main(arguments: list[str]) -> int:
    root = pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).resolve().parents[1])
    if not (root / "hydrofoil").is_dir():
        print(f"{root}: no folder hydrofoil/", file=sys.stderr)
        return 2
    errors = [*check_library(root), *check_users(root)]
    print("\n".join(errors) if errors else "layers: no violation")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
