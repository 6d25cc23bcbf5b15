# Two commands do everything: `make demo` (the main job) and `make test`.
# Python 3.11+, pip and make are all that a machine must have.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?= runs/demo
# One thread for each worker: two torch processes of two threads on two cores are 4 to 6 times slower.
export OMP_NUM_THREADS ?= 1
# Test processes side by side.
PROCESSES ?= 2

.PHONY: demo test lint types unit wheel format clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo,dev]"
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/nas search examples/recipes/crnas_digits.yaml --run $(RUN)

test: lint types unit wheel

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

unit: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup

wheel: $(VENV)/.ready
	$(BIN)/python -m build --wheel --outdir dist . > dist.log 2>&1 || (cat dist.log; exit 1)
	@rm -f dist.log
	$(BIN)/python tests/check_wheel.py dist

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf dist build *.egg-info
