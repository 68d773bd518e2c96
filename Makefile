# Everything runs in .venv, which is made on first use: Python 3.11 or newer and make are all a machine needs.
#   make test JOBS=4                    number of test processes
#   make demo PYTHON=python3.13         another interpreter
#   make test PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"    where pip finds a CPU build of torch

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
JOBS ?= $(shell "$(BIN)/python" -c 'import os; print(min(8, os.cpu_count() or 1))')
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Written when an installation has succeeded, and only then.
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile $(PIP_FLAGS) -c constraints.txt
# In place of pip's own: on all cores, and without the packages' test suites. A file that cannot be compiled is no matter.
COMPILE = $(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >/dev/null 2>&1 || true

.DEFAULT_GOAL := help
.PHONY: help demo test test-gpu lint bench bench-gpu bench-streaming screenshots clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

demo: $(RUNTIME)  ## Tell the whole story in a minute, on built-in data
	$(BIN)/torchlogit demo

test: $(DEV)  ## Run all tests, the examples in the documentation among them
	$(BIN)/python -m pytest -n $(JOBS) --doctest-modules tests src/torchlogit

test-gpu: $(DEV)  ## Compare fits on a CUDA device with the CPU's (those tests alone)
	TRITON_INTERPRET=0 $(BIN)/python -m pytest tests/contracts/test_cuda_device.py

lint: $(DEV)  ## Check style, types and the direction of imports
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(BENCH)  ## Compare with other packages; BENCH_FLAGS=--write keeps the table
	$(BIN)/python benchmarks/fit.py $(BENCH_FLAGS)

bench-streaming: $(BENCH)  ## Compare on a file larger than the memory allowed; BENCH_FLAGS=--write keeps the table
	$(BIN)/python benchmarks/streaming.py $(BENCH_FLAGS)

bench-gpu: $(DEV)  ## Measure on a CUDA device; BENCH_FLAGS=--write keeps the numbers
	$(BIN)/python benchmarks/gpu.py $(BENCH_FLAGS)

screenshots: $(DEV)  ## Make the README's pictures anew, in Chromium
	$(BIN)/python docs/screenshots.py

clean:  ## Remove .venv, caches and builds
	rm -rf $(VENV) build dist torchlogit-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "torchlogit needs Python 3.11 or newer; name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@rm -f $(RUNTIME) $(DEV)
	@echo "Setting up $(VENV) (once; torch is the largest part) ..."
	@"$(PYTHON)" -m venv $(VENV) || { echo "$(PYTHON) cannot make virtual environments:" \
		"install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(INSTALL) -e .
	@$(COMPILE)
	@touch $@

# After the runtime, never beside it: one pip at a time, also under `make -j`.
$(DEV): $(RUNTIME)
	@echo "Installing what the tests need (once) ..."
	@$(INSTALL) -e ".[dev]"
	@$(COMPILE)
	@touch $@

# Not every package has a build for every machine; the benchmarks skip what is absent. So each is installed by itself.
$(BENCH): $(DEV)
	@echo "Installing the packages to compare with (once) ..."
	@for package in $$($(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"])'); do \
		$(INSTALL) --only-binary :all: "$$package" || echo "$$package has no build for this machine: it is skipped"; done
	@touch $@
