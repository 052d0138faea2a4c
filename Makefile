# Each target does all of its own set-up: a machine needs make and Python 3.11 or newer, nothing else.
#
#   make demo     a thousand orders through a shop in which much goes wrong
#   make test     everything that is checked before a change is taken
#   make help     all targets

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# PYTHON=python3.12 makes the environment with that interpreter; empty: the newest one that is new enough.
PYTHON ?=
VENV ?= .venv
# Handed to pytest by `make test`, such as PYTEST_ARGS='-k world -x'.
PYTEST_ARGS ?=
BENCH_ARGS ?=
CHAOS_ARGS ?=
LOG ?=
STORE ?=

RUN := $(VENV)/bin/python
export VENV PYTHON PYTEST_ARGS

.PHONY: help demo test lint types chaos bench bench-long bench-embedded bench-cluster helpdesk format build clean venv log-is-named kind-up kind-down

help:  ## Print this list.
	@echo "usage: make TARGET"
	@sed -nE 's/^([a-z-]+):.*  ## (.*)$$/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/.ready-base  ## Send a thousand orders through a shop in which much goes wrong.
	@$(RUN) -m examples.orders.demo

test: $(VENV)/.ready-test  ## Check everything: ruff, mypy, import directions, all tests. PYTEST_ARGS narrows the tests.
	@.ci/check ruff format types imports tests

lint: $(VENV)/.ready-test  ## Only ruff and the directions of imports.
	@.ci/check ruff format imports

types: $(VENV)/.ready-test  ## Only mypy --strict.
	@.ci/check types

chaos: $(VENV)/.ready-test  ## Break everything that can break, 30 seeds each. CHAOS_ARGS='--fault F1 --seed 1003' for one round.
	@$(RUN) -m tests.chaos.campaign $(CHAOS_ARGS)

bench: $(VENV)/.ready-bench  ## Measure workers over Postgres and Kafka beside others, 20 minutes. BENCH_ARGS=--quick for a try.
	@$(RUN) -m tests.bench.durable.run $(BENCH_ARGS)

bench-long: $(VENV)/.ready-bench  ## The same beside ten million finished runs.
	@$(RUN) -m tests.bench.durable.run --long $(BENCH_ARGS)

bench-embedded: $(VENV)/.ready-bench  ## Measure the embedded engine beside DBOS on SQLite. BENCH_ARGS=--quick for a try.
	@$(RUN) -m tests.bench.run $(BENCH_ARGS)

bench-cluster: $(VENV)/.ready-test  ## Measure a whole cluster made by kind, 20 minutes, as root. BENCH_ARGS=--quick for a try.
	@$(RUN) -m tests.bench.cluster.run $(BENCH_ARGS)

helpdesk: log-is-named $(VENV)/.ready-$(if $(filter postgres,$(STORE)),test,base)  ## Replay a real event log: LOG=tickets.csv.gz [STORE=file.db | STORE=postgres].
	@$(RUN) -m $(if $(filter postgres,$(STORE)),tests.worker.helpdesk "$(LOG)",examples.helpdesk.replay "$(LOG)" $(if $(STORE),--store "$(STORE)")) --json

kind-up: $(VENV)/.ready-test  ## Bring up a cluster with PostgreSQL, Kafka and Stepwell in it, to the first run. As root.
	@tests/cluster/kind/up

kind-down:  ## Remove that cluster with all that is in it.
	@tests/cluster/kind/down

format: $(VENV)/.ready-test  ## Let ruff format and mend what it can.
	@$(VENV)/bin/ruff check --fix-only --quiet . && $(VENV)/bin/ruff format .

build: $(VENV)/.ready-base  ## Build the wheel into dist/.
	@$(RUN) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:  ## Remove the environment and everything that was made.
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv: $(VENV)/.ready-base

log-is-named:
	@test -n "$(LOG)" || { echo "which log? say: make helpdesk LOG=path/to/log.csv.gz [STORE=file.db]" >&2; exit 2; }

# A stamp is newer than pyproject.toml exactly while what it stands for is installed.
$(VENV)/.ready-base: pyproject.toml .ci/venv
	@.ci/venv base

$(VENV)/.ready-%: pyproject.toml .ci/venv $(VENV)/.ready-base
	@.ci/venv $*
