# Every target sets up what it needs: `make demo` or `make test` works in a fresh clone.
# The environment is .venv; .venv/.installed is newer than pyproject.toml and constraints.txt if it is up to date.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP_INSTALL := $(BIN)/python -m pip install -qq -c constraints.txt

# Two test processes with one thread each: the models of the tests are too small for two threads, and most of the time is
# spent in Python. The tests of a file run in one process, so that its fixtures are created once.
JOBS ?= 2
PYTEST := MPLBACKEND=agg OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --durations=15

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo check test lint format docs tutorials bench bench-quick constraints clean test-lowest test-newest test-pre-release coverage dist audit

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(STAMP)  ## Set up .venv (the other targets do so, too)

# torch is installed first, so that the build (CPU, CUDA) is chosen before other packages depend on it.
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up .venv: takes some minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP_INSTALL) --upgrade pip
	@$(PIP_INSTALL) torch
	@$(PIP_INSTALL) -e . --group dev --group doc
	@touch $@

demo: $(STAMP)  ## Embed, annotate, draw and score 583 pancreas cells
	$(BIN)/sccello demo

check: lint  ## Lint, types, import contracts and the fast tests (about three minutes)
	$(PYTEST) -m "not slow"

# pytest is last, because CI reads its closing line.
test: lint docs  ## Lint, build the documentation, run the tests
	$(PYTEST)

lint: $(STAMP)  ## ruff, mypy, the import contracts and bandit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -r src -c pyproject.toml -ll

format: $(STAMP)  ## Format the code and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## Build the documentation into docs/_build/html, warnings as errors
	@rm -rf docs/generated
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

tutorials: $(STAMP)  ## Run the tutorials alone, without building the documentation
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=180 -n $(JOBS) docs/tutorials

# DATA is a folder with cells/train and cells/eval; without it, only benchmarks on shipped cells run.
bench: $(STAMP)  ## Run all benchmarks and write docs/benchmarks.md (make bench DATA=folder)
	@$(PIP_INSTALL) -e .[bench]
	$(BIN)/python benchmarks/board.py $(if $(DATA),--data $(DATA))

bench-quick: $(STAMP)  ## The same in a few minutes with less precision; nothing is written
	$(BIN)/python benchmarks/board.py --quick

constraints: $(STAMP)  ## Pin the versions installed in .venv
	$(BIN)/python scripts/pin_constraints.py > constraints.new
	mv constraints.new constraints.txt

# Other versions of the dependencies, each in an environment of its own outside the working tree. Deprecation warnings of
# versions other than the pinned ones are not errors.
OTHER ?= $(or $(TMPDIR),/tmp)
OTHER_PYTEST = MPLBACKEND=agg OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n $(JOBS) --dist loadfile \
	-W ignore::DeprecationWarning -W ignore::FutureWarning -W ignore::PendingDeprecationWarning

test-lowest:  ## Run the tests against the lowest versions of all dependencies
	$(PYTHON) -m venv $(OTHER)/sccello-lowest
	$(PYTHON) scripts/lowest.py > $(OTHER)/sccello-lowest/lowest.txt
	$(OTHER)/sccello-lowest/bin/python -m pip install -qq --upgrade pip
	$(OTHER)/sccello-lowest/bin/python -m pip install -qq -c $(OTHER)/sccello-lowest/lowest.txt torch
	$(OTHER)/sccello-lowest/bin/python -m pip install -qq -c $(OTHER)/sccello-lowest/lowest.txt -e .[scale] --group test
	$(call OTHER_PYTEST,$(OTHER)/sccello-lowest)

test-newest test-pre-release:  ## Run the tests against the newest (pre-release) versions (PYTHON=python3.14 for another Python)
	$(PYTHON) -m venv $(OTHER)/sccello-$@
	$(OTHER)/sccello-$@/bin/python -m pip install -qq --upgrade pip
	$(OTHER)/sccello-$@/bin/python -m pip install -qq torch
	$(OTHER)/sccello-$@/bin/python -m pip install -qq $(if $(findstring pre,$@),--pre) -e .[scale] --group test
	$(call OTHER_PYTEST,$(OTHER)/sccello-$@)

coverage: $(STAMP)  ## Run the tests with line coverage into coverage.xml
	@$(PIP_INSTALL) pytest-cov
	$(PYTEST) --cov=sccello_tools --cov-report=xml

dist: $(STAMP)  ## Build wheel and sdist, check them, and run the demo from the wheel in an empty environment
	@rm -rf dist
	@$(PIP_INSTALL) build twine
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python scripts/check_dist.py dist --demo

# Needs an advisory service on the network, so it is not part of `make test`.
audit: $(STAMP)  ## Check the pinned versions for known vulnerabilities (needs the network)
	$(BIN)/python -m pip install -qq pip-audit
	$(BIN)/pip-audit --no-deps --disable-pip -r constraints.txt || \
		{ echo "pip-audit found something, or its advisory service cannot be reached from here."; exit 1; }

clean:  ## Remove everything that make creates
	rm -rf .venv docs/_build docs/generated build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
