"""What `import hydrofoil` never does: compile, start a program, write a file, touch CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Audit events of everything that would start a program or change the file system.
WATCH = """
import os, sys
import torch
seen = []
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "pty.spawn", "os.mkdir",
             "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.", "tempfile.", "socket.connect",
             "socket.bind")

def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.startswith(FORBIDDEN):
        seen.append((event, str(arguments)))

sys.dont_write_bytecode = True
sys.addaudithook(watch)
"""


def run(script: str, **settings: str) -> str:
    result = subprocess.run([sys.executable, "-c", script], env={**os.environ, **settings}, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_nothing_is_started_or_written() -> None:
    out = run(WATCH + "import hydrofoil\nassert not seen, seen\nprint('done')")
    assert out == "done\n"


@pytest.mark.parametrize("deed", ["open('/tmp/hydrofoil_import_probe', 'w')", "import subprocess; subprocess.run(['true'])",
                                  "os.makedirs('/tmp/hydrofoil_import_probe.d', exist_ok=True); os.rmdir('/tmp/hydrofoil_import_probe.d')"])
def test_the_watch_sees(deed: str) -> None:
    assert run(WATCH + deed + "\nprint(len(seen))").strip() != "0"


def test_no_compiler_is_needed(tmp_path: Path) -> None:
    run("import hydrofoil, torch\nassert hydrofoil.plan", PATH=str(tmp_path), CC="/nowhere/cc", CXX="/nowhere/c++")


def test_home_stays_empty(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    caches = {name: "" for name in ("XDG_CACHE_HOME", "TORCH_HOME", "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR")}
    run("import hydrofoil", HOME=str(home), **caches)
    assert list(home.iterdir()) == []


def test_a_home_that_cannot_be_there_does_not_matter() -> None:
    run("import hydrofoil", HOME="/proc/nobody")


def test_cuda_is_not_touched() -> None:
    run("""
import torch
def touched(*arguments, **options):
    raise AssertionError("import hydrofoil touched CUDA")
for name in ("_lazy_init", "init", "is_available", "device_count", "current_device", "get_device_properties"):
    setattr(torch.cuda, name, touched)
import hydrofoil
assert not torch.cuda.is_initialized()
import os
open_files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
assert not [path for path in open_files if path.startswith("/dev/nvidia")], open_files
""")
