# make quickstart: train, decode and score in minutes.   make test: the tests.
# Both make what they need: a virtual environment in .venv and the install.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: quickstart test test-long lint format

quickstart: $(READY)
	$(BIN)/python scripts/quickstart.py

test: .venv/ready-dev
	$(BIN)/python -m pytest -n 2 -m "not long"

test-long: .venv/ready-dev
	$(BIN)/python -m pytest -m long

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

.venv/ready-dev: $(READY)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@
