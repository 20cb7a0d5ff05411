# Everything that can be done with this checkout. Only Python (3.11 or newer), git and make are needed beforehand;
# the rest comes from PyPI into .venv. Arguments for pytest: make test ARGS="-k routing"

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
CODE := dispatcher backends workers benchmarks examples tests tools

.PHONY: help demo test test-kubernetes check format lock bench docs chaos clean
.DEFAULT_GOAL := help

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 18

demo: .venv/.demo  ## run the example flows on this machine, then stop everything it started
	@$(BIN)/python -m examples.demo

test: .venv/.dev  ## run the tests, three files at a time: most of them wait
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-kubernetes: .venv/.dev  ## the tests of runs on the cluster that KUBECONFIG names; see CONTRIBUTING.md
	@$(BIN)/pytest -m kubernetes $(ARGS)

check: .venv/.dev  ## format, lint, types, import contracts, the lock, budgets of size and of commands per run, prose
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.budgets
	$(BIN)/python -m tools.prose
	$(BIN)/python -m tools.lock --check
	$(BIN)/pytest -q tests/integration/test_costs.py

format: .venv/.dev  ## format the code
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

lock: .venv/.dev  ## renew compose/requirements.lock, which images install, from the package index
	$(BIN)/python -m tools.lock

bench: .venv/.dev  ## measure against bare Celery, side by side
	@$(BIN)/python -m benchmarks $(ARGS)

docs: .venv/.dev  ## build the site into site/
	$(BIN)/python -m tools.settings_table --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

chaos: .venv/.dev  ## all fault tests in their long form, a verdict per row; ARGS=--quick for the bounded one
	@$(BIN)/python -m tests.chaos $(ARGS)

clean:  ## remove what these commands made
	rm -rf .venv site dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Installing is repeated only when pyproject.toml changes.
.venv/.base:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python"; exit 1; }
	@echo "make: creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: pyproject.toml | .venv/.base
	@echo "make: installing what the demo needs into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[laptop,dask]'
	@touch $@

.venv/.dev: pyproject.toml | .venv/.base
	@echo "make: installing the development tools into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
