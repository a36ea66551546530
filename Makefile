# Two commands for everyone: `make demo` and `make test`. Both need Python 3.11 (3.10 to 3.12), g++, cmake and make, nothing else.
# Every step leaves a stamp and is redone only when something it reads has changed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first interpreter that starts and is new enough, but not too new for concrete-python (no wheels after CPython 3.12).
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.10; do \
  $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$python; break; }; done)
# concrete-python depends on torch, whose default build on Linux brings gigabytes of CUDA libraries that nothing here uses. Where the
# package index has a CPU build under its plain name, this finds it; elsewhere: make TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
JOBS ?= 2
PYTEST_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

PY_SOURCES := $(shell find python/fhelearn -type f -not -path '*/__pycache__/*' -not -name '_core*')
CPP_SOURCES := $(shell find cpp -type f)
CPP_TESTS := $(shell find tests/cpp -type f)
LINTED_CPP := $(filter %.cpp %.hpp %.h %.inl,$(CPP_SOURCES) $(CPP_TESTS))

.PHONY: help demo test test-cpp test-python test-fhe lint format bench install wheel clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(STAMPS)/bench  ## Train, compile, encrypt, run and decrypt two models; print a table, write a plot
	$(BIN)/python -m benchmarks.demo

test: lint test-cpp test-python  ## Lint, C++ tests (plain and sanitized), Python tests

test-cpp: build/tested-dev.stamp build/tested-asan.stamp  ## The C++ unit tests, without Python, plain and under ASan + UBSan

# One thread per worker for BLAS: two workers with two threads each are slower on two cores.
test-python: $(STAMPS)/dev  ## The Python tests, but not those on ciphertexts
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --benchmark-disable $(PYTEST_FLAGS)

test-fhe: $(STAMPS)/dev  ## The tests that make keys and run on ciphertexts
	$(BIN)/python -m pytest -m fhe --benchmark-disable $(PYTEST_FLAGS)

lint: $(STAMPS)/dev  ## Formatters, type checker, import rules, size limits
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cp $$($(BIN)/python -c 'import fhelearn._core as m; print(m.__file__.rpartition("/")[0])')/_core.pyi python/fhelearn/
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(LINTED_CPP)
	$(BIN)/lint-imports
	$(BIN)/lizard --length 60 --CCN 1000 --warnings_only -l python -l cpp python cpp tests benchmarks

format: $(STAMPS)/dev  ## Rewrite every source file in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(LINTED_CPP)

bench: $(STAMPS)/bench  ## Measure everything and rewrite the tables of benchmarks/README.md
	$(BIN)/python -m benchmarks.render

install: $(STAMPS)/dev  ## Make .venv and install the package with every development tool

wheel: $(STAMPS)/wheel  ## Build the wheel into dist/

clean:  ## Remove everything that make has made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# --- environment ------------------------------------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@test -n '$(PYTHON)' || { echo 'make: no Python 3.10, 3.11 or 3.12 found; install one or give its path: make PYTHON=...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	$(PIP) install --upgrade 'pip>=24'
	touch $@

$(STAMPS)/torch: $(STAMPS)/venv
	@echo 'installing $(TORCH) (about a minute; the environment takes 2.7 GB in the end)'
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	touch $@

$(STAMPS)/wheel: $(PY_SOURCES) $(CPP_SOURCES) CMakeLists.txt pyproject.toml README.md LICENSE | $(STAMPS)/venv
	@echo 'building the wheel (about a minute)'
	rm -rf dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	touch $@

# The first command brings dependencies (and does nothing when they are there), the second puts in this very wheel.
$(STAMPS)/bench $(STAMPS)/dev: $(STAMPS)/%: $(STAMPS)/wheel $(STAMPS)/torch
	$(PIP) install "$$(echo dist/fhelearn-*.whl)[$*]"
	$(PIP) install --force-reinstall --no-deps dist/fhelearn-*.whl
	touch $@

# --- C++ --------------------------------------------------------------------------------------------------------------------------

build/tested-%.stamp: $(CPP_SOURCES) $(CPP_TESTS) CMakeLists.txt CMakePresets.json
	cmake --preset $*
	cmake --build --preset $* --parallel $(JOBS)
	ctest --preset $*
	touch $@
