# Two commands set up everything on a machine with Python 3.11 or newer and make:
# `make demo` and `make test`. The other targets are for those who change fdnn.

# The first that is new enough; `make PYTHON=/path/to/python3.12 test` says which.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt --editable
BENCH ?= $(wildcard benchmarks/[a-z]*.py)
export MPLBACKEND ?= Agg

.DEFAULT_GOAL := help
.PHONY: help demo test lint types doctest docs examples bench wheel clean
# All targets share one environment: under `make -j` too they run one after the other.
.NOTPARALLEL:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/has-examples ## Set up, then run the main job (DEMO_ARGS='--seeds 8')
	$(BIN)/python examples/quickstart.py $(DEMO_ARGS)

test: $(VENV)/has-everything ## Set up, then run the tests (PYTEST_ARGS=tests/test_tree.py)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/has-everything ## Check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/has-everything ## Check types
	$(BIN)/mypy

doctest: $(VENV)/has-everything ## Run the code in docstrings and in Markdown
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --doctest-modules --markdown-docs \
		fdnn README.md docs

docs: $(VENV)/has-everything ## Build the documentation site into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

examples: $(VENV)/has-everything ## Run every example the short way, two at a time; results go to out/
	@mkdir -p out; printf '%s\n' examples/chapter/all.py $(wildcard examples/[a-z]*.py) | \
		OMP_NUM_THREADS=1 xargs -P 2 -I{} sh -c 'name=$$(basename {} .py); \
		$(BIN)/python {} --fast --out out/$$name > out/$$name.log 2>&1 && echo "== {}" || \
		{ echo "== FAILED: {}"; cat out/$$name.log; exit 1; }'

bench: $(VENV)/has-everything ## Run the benchmarks, or one (BENCH=benchmarks/draws.py)
	@set -e; for script in $(BENCH); do echo "== $$script"; $(BIN)/python $$script; done

wheel: $(VENV)/has-everything ## Build the wheel into dist/, use it in an empty environment
	OMP_NUM_THREADS=1 $(BIN)/python .ci/wheel.py

clean: ## Remove what make made, the environment too
	rm -rf $(VENV) out site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# Stamps: a second call installs nothing, unless one of these files changed.
$(VENV)/has-examples: $(VENV)/made pyproject.toml constraints.txt
	$(INSTALL) '.[examples]'
	@touch $@

$(VENV)/has-everything: $(VENV)/made pyproject.toml constraints.txt
	$(INSTALL) '.[dev,docs,examples,finetune,jax]'
	@touch $(VENV)/has-examples $@

$(VENV)/made:
	@test -n '$(PYTHON)' && $(PYTHON) -c '$(IS_NEW_ENOUGH)' || { echo 'fdnn needs Python' \
		'3.11 or newer. Say where it is: make PYTHON=/path/to/python3.12 test' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo '$(PYTHON) cannot make environments.' \
		'On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
