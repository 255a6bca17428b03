# make demo: prepare, train, evaluate and solve.   make test: lint, types and tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test install clean

demo: install
	$(BIN)/hrm demo --again

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

install: .venv/installed

.venv/installed: pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

clean:
	rm -rf .venv runs data
