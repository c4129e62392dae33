# make demo   the coverage effect on a CPU, end to end; prints where the picture is
# make test   the whole suite on a CPU
# make check  style, types
# make bench  the benchmarks, one after the other
# make slow   the long tests: every recipe in smoke form
# Each makes what it needs in .venv; nothing else is installed or changed.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# No network and no telemetry beyond the installation.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check bench slow clean

demo: .venv/installed-demo
	$(BIN)/trl-math demo

test: .venv/installed-test
	$(BIN)/python -m pytest -m "not slow"

slow: .venv/installed-test
	$(BIN)/python -m pytest -m slow

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-test
	$(BIN)/python benchmarks/sft_step.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/coverage_effect.py

.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing trl-math[$*] into .venv ..."
	@# torch first and alone: its pin is what keeps gigabytes of another build away.
	$(PIP) torch
	$(PIP) --editable ".[$*]"
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build dist *.egg-info
