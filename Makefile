# Needs Python >= 3.11, git and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install leakbench with pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "expected Python >= 3.11, got $$($(PYTHON) --version); try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## run configs/quickstart.yaml and show what leaked
	$(BIN)/bench weights fetch lpips-alexnet
	$(BIN)/bench run configs/quickstart.yaml
	@echo
	@echo "Every number above: pandas.read_parquet('results/quickstart/trials')"
	@echo "One trial:          $(BIN)/bench show results/quickstart TRIAL_ID"
	@echo "The matrix:         configs/quickstart.yaml (edit it, run again: only what is new is computed)"
	@echo "What to try next:   README.md, docs/matrix.md, $(BIN)/bench ls attacks"

test: lint ## everything that CI checks
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup

lint: setup ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## speed against peers: an hour; QUICK=1: minutes, and docs/benchmarks.md stays as it is
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench-peers]'
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.attacks \
	  $(if $(QUICK),--quick,--document docs/benchmarks.md)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.overhead \
	  $(if $(QUICK),--quick,--document docs/benchmarks.md)
ifndef QUICK
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.defended_round --document docs/benchmarks.md
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.population --document docs/benchmarks.md
endif

clean: ## remove .venv and caches, keep results
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
