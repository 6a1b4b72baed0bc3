# make quickstart: train, decode and score a model in minutes.   make test: run the tests.
# Both first create the virtual environment .venv and install seqlab in it.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
READY := .venv/ready

.PHONY: quickstart test test-all test-latest test-peers torture bench docs docs-run words lint format

quickstart: $(READY)
	$(BIN)/python scripts/quickstart.py

test: .venv/ready-dev
	$(BIN)/python -m pytest -n 2 -m "not long and not peers" --max-compilations 12000

# Run all planted bugs and the long tests, but no comparisons with other toolkits.
test-all: .venv/ready-dev
	$(BIN)/python -m pytest -n 2 -m "not long and not peers" --mutants all
	$(BIN)/python -m pytest -m long

# Test on Python 3.13 with constraints-latest.txt, in a Debian system that debootstrap creates in FOLDER. Needs root.
test-latest:
	scripts/test_latest.sh $(or $(FOLDER),latest)

test-peers: .venv/ready-bench
	$(BIN)/python -m pytest -m peers

# About 40 minutes: kill training at random instants, inject faults into it, and fuzz every reader.
torture: .venv/ready-dev
	$(BIN)/python scripts/torture.py 50
	$(BIN)/python scripts/faults.py
	$(BIN)/python -m tests.fuzz 10000

# One to two hours: run every benchmark, with comparisons to other toolkits, and write docs/benchmarks.md.
# make bench FOLDER=DIR_WITH_MULTI30K
bench: .venv/ready-bench
	$(BIN)/python scripts/benchmarks.py $(if $(FOLDER),--folder '$(FOLDER)')

# The documentation as HTML, in docs/_build/html. Warnings are errors.
docs: .venv/ready-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

# The same with the tutorials executed, in docs/_build/run. An error in a cell fails.
docs-run: .venv/ready-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html -D nb_execution_mode=force -D nb_execution_timeout=300 \
		-D nb_execution_raise_on_error=1 docs docs/_build/run

# All help texts, error messages and headings of reports in one file, words.txt, to be read. Takes as long as the tests.
words: .venv/ready-dev
	rm -f words.jsonl
	$(BIN)/python -m pytest -n 2 -m "not long and not peers" --words=words.jsonl
	$(BIN)/python scripts/words.py words.jsonl words.txt

lint: .venv/ready-dev docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/prose.py

format: .venv/ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c $(CONSTRAINTS) -e .
	touch $@

.venv/ready-dev: $(READY)
	$(BIN)/pip install -q -c $(CONSTRAINTS) -e '.[dev]'
	touch $@

.venv/ready-docs: $(READY)
	$(BIN)/pip install -q -c $(CONSTRAINTS) -e '.[docs]'
	touch $@

# Joey NMT requires a protobuf version that conflicts with other packages; the extra `bench` has what it imports.
.venv/ready-bench: .venv/ready-dev
	$(BIN)/pip install -q -c $(CONSTRAINTS) -e '.[bench]'
	$(BIN)/pip install -q --no-deps joeynmt==2.3.0
	touch $@
