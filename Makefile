# On a fresh machine `make demo` and `make test` do all the set-up themselves.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# TensorFlow's start-up notes are not ours to show.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export KERAS_BACKEND ?= tensorflow
# Nor is MkDocs' advertisement of its successor.
export NO_MKDOCS_2_WARNING ?= 1

# A process for each core, each with one thread (tests/conftest.py): half the time of one process with all threads.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# What rests on Keras' inner workings most.
CORE_TESTS := tests/model tests/quantize tests/quantizers tests/wrappers tests/calibration/test_observation.py tests/inspection/test_describe.py

# Of test-backends: all, unless there is less time.
BACKENDS ?= jax torch
BACKEND_TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-backends test-exhaustive test-keras-oldest test-keras-nightly lint types docs release-check benchmark benchmark-export accuracy training latency tensorrt scale data clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/installed data ## Train, quantize, fine-tune, export and run a real network
	@$(BIN)/python scripts/quietly examples/quickstart.py

test: $(VENV)/installed data lint types ## Linters, types and the tests that are not slow
	$(PYTEST) -m "not slow and not exhaustive"

test-slow: $(VENV)/installed data ## The slow tests: documentation, examples, backends, networks
	$(PYTEST) -m "slow and not exhaustive" $$(grep -rl 'mark.slow' tests --include='test_*.py')

test-backends: $(VENV)/installed data ## The tests that are not slow, on JAX and on PyTorch
	for backend in $(BACKENDS); do \
		KERAS_BACKEND=$$backend $(PYTEST) -m "not slow and not exhaustive" $(BACKEND_TESTS) || exit 1; \
	done

test-exhaustive: $(VENV)/installed data ## All other networks of keras.applications, for hours and in 16 GB
	$(PYTEST) -m exhaustive

test-keras-oldest: $(VENV)/keras-oldest data ## The core tests on the oldest Keras that pyproject.toml allows
	PYTHONPATH=$(VENV)/keras-oldest $(PYTEST) -m "not slow and not exhaustive" $(CORE_TESTS)

test-keras-nightly: $(VENV)/installed data ## The core tests on Keras' nightly build, which may fail
	@rm -rf $(VENV)/keras-nightly
	@$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/keras-nightly --pre keras-nightly
	@PYTHONPATH=$(VENV)/keras-nightly $(PYTEST) -m "not slow and not exhaustive" $(CORE_TESTS) \
		|| echo 'The core tests fail on the nightly build of Keras. That is allowed: see what changed in Keras.'

lint: $(VENV)/installed ## Check format and lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed ## Check types
	$(BIN)/mypy

docs: $(VENV)/installed ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

release-check: $(VENV)/installed ## Build wheel and sdist, install each into a clean environment, and run it
	$(BIN)/python scripts/release_check.py

benchmark: $(VENV)/installed ## Measure what quantize_model and calibrate cost
	@$(BIN)/python scripts/quietly benchmarks/quantize_time.py
	@$(BIN)/python scripts/quietly benchmarks/calibrate_time.py

accuracy: $(VENV)/installed data ## Measure what quantization loses on trained networks beside the peers', for the documentation
	@$(BIN)/python -m pip install --quiet '.[peers]'
	@$(BIN)/python scripts/quietly benchmarks/accuracy.py --docs docs/benchmarks

training: $(VENV)/installed data ## Measure quantization-aware training, for hours without a GPU, for the documentation
	@$(BIN)/python scripts/quietly benchmarks/training.py --docs docs/benchmarks

latency: $(VENV)/installed ## Measure the files in their runtimes beside the peers', for the documentation
	@$(BIN)/python -m pip install --quiet '.[peers]'
	@$(BIN)/python scripts/quietly benchmarks/latency.py --docs docs/benchmarks

tensorrt: $(VENV)/installed ## Ask NVIDIA's builder about our files and ModelOpt's, for hours, for the documentation
	@$(BIN)/python scripts/quietly benchmarks/tensorrt.py --folder .cache/tensorrt --docs docs/benchmarks

benchmark-export: $(VENV)/installed ## Measure exports beside Keras' own, for the documentation
	@$(BIN)/python scripts/quietly benchmarks/export.py --docs docs/benchmarks

scale: $(VENV)/installed ## Measure training steps by backend, and each function by the size of a network, for the documentation
	@$(BIN)/python scripts/quietly benchmarks/scale.py --docs docs/benchmarks

data: ## Get Fashion-MNIST from Debian's package where apt works; Keras downloads it elsewhere
	@./scripts/get-data

# Beside the installed Keras, which it stands in for by coming first on the path.
$(VENV)/keras-oldest: $(VENV)/installed
	@rm -rf $@
	@$(BIN)/python -m pip install --quiet --no-deps --target $@ \
		"keras==$$(sed -n 's/.*"keras>=\([0-9.]*\),.*/\1/p' pyproject.toml).*"
	@touch $@

# Whole once pip is done: an interrupted install starts again.
$(VENV)/installed: pyproject.toml
	@echo 'Installing into $(VENV), which takes a few minutes'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean: ## Remove what make made
	rm -rf $(VENV) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache quickstart_output
