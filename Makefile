# Everything a person runs by hand. Needs nothing but Python >= 3.11, make and git.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint types unit slow unit-and-slow chromium browser slurm-up slurm-down test-slurm test-gpu benchmark benchmark-limit benchmark-sweep clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed ## make .venv with every version pinned in constraints.txt

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "espalier needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$$(grep ^torch== constraints.txt)" setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[ray,slurm,reports,dev]'
	touch $@

quickstart: setup ## run the first study: all methods on real digits, report in runs/quickstart/report
	$(BIN)/espalier run quickstart --launcher ray --workers 2

test: setup chromium lint types ## everything CI runs
	$(MAKE) --jobs=2 --output-sync=target unit-and-slow test-slurm # jobs of the real Slurm wait more than they compute
	$(MAKE) browser

lint: setup
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

types: setup
	$(BIN)/mypy

unit: setup
	$(BIN)/pytest -q --numprocesses=3 -m "not slow and not browser and not gpu and not slurm" # many wait for processes

slow: setup
	$(BIN)/pytest -q --numprocesses=2 --dist=worksteal --durations=15 -m "slow and not browser and not gpu and not slurm"

unit-and-slow: setup
	$(MAKE) unit
	$(MAKE) slow

chromium: ## install headless Chromium from Debian's packages where it is missing
	tests/browser/install-chromium

browser: setup chromium ## open the page in headless Chromium
	$(BIN)/pytest -q -m "browser and not gpu"

slurm-up: setup ## start a real Slurm of two nodes on this machine: root on Debian
	slurm/devcluster up

slurm-down: ## stop it and remove every trace of it
	slurm/devcluster down

test-slurm: setup ## test on it; it is started if it is down, and stopped again
	$(BIN)/pytest -q --durations=15 -m "slurm and not gpu"

test-gpu: setup ## test what only a CUDA device can show, on a machine that has one; two GPUs show the most
	$(BIN)/pytest -q --durations=15 -m gpu

benchmark: setup .venv-benchmark/.installed ## measure beside PyHessian and curvlinops, half an hour; rewrites the README's table
	.venv-benchmark/bin/python -W ignore -m tests.performance.bench_products
	.venv-benchmark/bin/python -W ignore -m tests.performance.bench_execution
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.performance.bench_sharding
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.performance.bench_memory
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.performance.bench_prepare
	$(BIN)/python -W ignore -m tests.performance.bench_training
	$(BIN)/python -W ignore -m tests.performance.bench_training_accuracy
	$(BIN)/python -W ignore -m tests.performance.bench_streaming
	.venv-benchmark/bin/python -m tests.performance.readme

benchmark-sweep: setup ## a curve over 1,000 sparsities against one network per point: a quarter of an hour
	$(BIN)/python -W ignore -m tests.performance.bench_sweep
	$(BIN)/python -m tests.performance.readme

benchmark-limit: .venv-benchmark/.installed ## time to the sparsity limit against 128 steps of PyHessian: hours, for the reference
	.venv-benchmark/bin/python -W ignore -m tests.performance.bench_limit
	.venv-benchmark/bin/python -m tests.performance.readme

.venv-benchmark/.installed: pyproject.toml constraints.txt tests/performance/peers.txt
	$(PYTHON) -m venv .venv-benchmark
	.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$$(grep ^torch== constraints.txt)" setuptools
	.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable .
	.venv-benchmark/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/performance/peers.txt
	touch $@

clean: ## remove the environments and all caches; runs/ stays
	rm -rf .venv .venv-benchmark .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
