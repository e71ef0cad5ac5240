# The two commands: `make train` and `make test`. Both do all the set-up first; see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NPROC ?= 2
DATA ?=
ARGS ?=
TRAIN_DATA := $(if $(DATA),--data $(abspath $(DATA)))

.PHONY: bench bench-setup bench-full bench-micro finetune help train train-cpp test test-all setup setup-test setup-test-all asan tsan fuzz lint clean

help:
	@echo "make train [DATA=file or folder] [NPROC=2] [ARGS='--stage 2']   set up, train the language model, show a sample"
	@echo "make train-cpp [DATA=...] [NPROC=2] [ARGS='--steps 100']       the same job in C++, without Python in the ranks"
	@echo "make finetune [DATA=...] [NPROC=2] [ARGS='--steps 60']          fine-tune SmolLM2-135M with Transformers' Trainer under ZeRO-3"
	@echo "make test                                                       set up, run every test but the slow ones"
	@echo "make test-all                                                   the slow ones too"
	@echo "make asan | make tsan                                           C++ tests under the sanitizers"
	@echo "make fuzz [SECONDS=60] [FUZZ_TARGETS='npy config']              fuzz each parser of outside bytes that long (needs clang)"
	@echo "make bench [ARGS='--cells compute/bf16/3']                      side by side with DeepSpeed, FSDP2 and DDP, under 20 minutes"
	@echo "make bench-full                                                 the whole grid; goes on where it stopped"
	@echo "make bench-micro [ARGS='--only kernels']                        kernels, collectives, boundaries against their roofs and peers"
	@echo "make setup                                                      only build and install into .venv/"

setup:
	@tools/setup.sh runtime

setup-test:
	@tools/setup.sh test

setup-test-all:
	@tools/setup.sh test-all

train: setup
	$(BIN)/hydrofoil run --nproc $(NPROC) examples/python/language_model/train.py $(TRAIN_DATA) $(ARGS)

# A real pretrained model, SmolLM2-135M-Instruct, by Transformers' Trainer under ZeRO-3; DATA=... trains on other text.
finetune:
	@tools/setup.sh finetune
	@test -f build/smollm2/model.safetensors || $(BIN)/python examples/python/smollm2/convert.py build/smollm2
	HF_HUB_OFFLINE=1 $(BIN)/hydrofoil run --nproc $(NPROC) examples/python/finetune/finetune.py --model build/smollm2 $(TRAIN_DATA) $(ARGS)

# The job of `make train` by `hydrofoil train`; its default data, too, is the source of Python's standard library.
STDLIB = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')
STDLIB_FILES = $(shell find $(STDLIB) -name '*.py' -size +0 -not -path '*/test/*' -not -path '*/idlelib/*' -not -path '*/site-packages/*' \
  -not -path '*/dist-packages/*' | LC_ALL=C sort)
train-cpp: setup
	$(BIN)/hydrofoil run --no-python --nproc $(NPROC) $(BIN)/hydrofoil train --config examples/cpp/language_model/ds_config.json \
	  --model examples/cpp/language_model --data $(if $(DATA),$(abspath $(DATA)),$(STDLIB_FILES)) --steps 732 $(ARGS)

test: setup-test
	ctest --test-dir build/release --output-on-failure -LE slow -j 2
	$(BIN)/python -m pytest -m "not slow"

test-all: setup-test-all
	ctest --test-dir build/release --output-on-failure -j 2
	$(BIN)/python -m pytest

# One OpenMP thread: libgomp is not instrumented. libtorch keeps memory of its own until exit: leaks are not its report.
asan: setup-test
	cmake --preset asan >/dev/null && cmake --build --preset asan
	ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 ctest --preset asan -LE slow -j 2

TSAN_TESTS := test_base test_mesh test_memory test_storage test_comm multirank_comm_collectives multirank_comm_errors
SPACE := $(subst x, ,x)
tsan: setup-test
	cmake --preset tsan >/dev/null && cmake --build --preset tsan --target $(TSAN_TESTS)
	TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp OMP_NUM_THREADS=1 ctest --preset tsan -R '^($(subst $(SPACE),|,$(TSAN_TESTS)))\.' -j 2

# New inputs gather in build/fuzz/corpus/; an input that fails is build/fuzz/<target>-crash-...
FUZZ_TARGETS ?= config manifest model_config npy safetensors
SECONDS ?= 60
fuzz:
	@command -v clang++ >/dev/null || { echo "make fuzz needs clang: sudo apt-get install clang" >&2; exit 1; }
	cmake --preset fuzz >/dev/null && cmake --build --preset fuzz
	set -e; for target in $(FUZZ_TARGETS); do mkdir -p build/fuzz/corpus/$$target; \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 build/fuzz/tests/fuzz/$${target}_fuzz -max_total_time=$(SECONDS) \
	    -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 -artifact_prefix=build/fuzz/$$target- \
	    build/fuzz/corpus/$$target tests/fuzz/seeds/$$target; done

# Peers live in an environment of their own, benchmarks/.peers; the pretrained model in build/smollm2.
bench-setup:
	@tools/setup.sh bench
	@benchmarks/setup_peers.sh
	@test -f build/smollm2/model.safetensors || $(BIN)/python examples/python/smollm2/convert.py build/smollm2

bench: bench-setup
	$(BIN)/python benchmarks/e2e/compare.py $(ARGS)

bench-full: bench-setup
	$(BIN)/python benchmarks/e2e/compare.py --full --resume --out build/bench/e2e_full.json $(ARGS)

bench-micro:
	@tools/setup.sh bench
	@benchmarks/setup_peers.sh
	cmake --preset micro >/dev/null && cmake --build --preset micro
	$(BIN)/python benchmarks/micro/run.py $(ARGS)

lint:
	$(PYTHON) tools/check_layers.py
	git ls-files '*.cpp' '*.h' | xargs clang-format-14 --dry-run -Werror

clean:
	rm -rf build
