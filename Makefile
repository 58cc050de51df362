# Everything a person or a machine does with this project, by name.
# `make demo` and `make test` need nothing but python3 (3.11 or 3.12) and a package index.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0
# torch's threads sleep while they wait: spinning, they take the cores from one another
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: venv demo test check bench

venv: .venv/ready

.venv/ready: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt torch
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/vgmedgen-simulate

test: check
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --cov --cov-report=term:skip-covered
	$(BIN)/coverage report --include='vgmedgen/exchange/*,client/egress.py,client/gate.py,client/policy.py,client/turns.py' --fail-under=100

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv
	$(BIN)/pytest tests/benchmarks -m '' --no-cov -s
