#!/usr/bin/env bash
# benchmarks/setup_peers.sh: DeepSpeed (newest on PyPI) with torch and Transformers in a virtual environment of its own,
# benchmarks/.peers, so that nothing of a peer is in Hydrofoil's. FSDP2 and DDP come with torch. Idempotent.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
torch_version=${HYDROFOIL_TORCH:-2.13.0}
[ -x .peers/bin/python ] || "$python" -m venv .peers
pip() { .peers/bin/python -m pip --disable-pip-version-check -q "$@" 2> >(grep -v '^WARNING: Location' >&2); }
has() { .peers/bin/python -c "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(m) is None for m in sys.argv[1:]))" "$@"; }
has torch || { echo "[peers] installing torch $torch_version"; pip install "torch==$torch_version" numpy; }
has deepspeed || { echo "[peers] installing DeepSpeed"; pip install deepspeed; }
has transformers || { echo "[peers] installing transformers"; pip install transformers; }
# DeepSpeed compiles its CPU optimizers at first use: once, here, outside any timing.
echo "[peers] DeepSpeed compiles its operators (minutes the first time)"
.peers/bin/python - <<'PY'
import warnings

warnings.filterwarnings("ignore")
from deepspeed.ops.adam import DeepSpeedCPUAdam
import deepspeed, torch

from deepspeed.ops.adam import FusedAdam

DeepSpeedCPUAdam([torch.nn.Parameter(torch.ones(4))])
FusedAdam([torch.nn.Parameter(torch.ones(4))])
print("[peers] deepspeed", deepspeed.__version__, "torch", torch.__version__)
PY
