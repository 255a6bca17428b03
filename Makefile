# make demo: prepare, train, evaluate and solve.   make test: lint, types and tests.
# make test-all: the tests that are marked slow too.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all types fast-tests install clean

demo: install
	$(BIN)/hrm demo --again

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) -j2 types fast-tests

types: install
	$(BIN)/mypy

fast-tests: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-all: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

install: .venv/installed

.venv/installed: pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e .
	touch $@

clean:
	rm -rf .venv runs data
