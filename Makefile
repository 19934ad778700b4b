# Everything a newcomer needs: `make demo`, `make test`. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Every test module would be compiled again by every worker, and every `sandreel` by itself.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test gate format contract metrics permissions views image image-slim image-agents bench growth soak smoke-real clean

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -c 'import sys; sys.exit("sandreel needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None' && $(PYTHON) -m venv $(VENV); }
	@echo "installing (once; about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(STAMP) ## set up the virtual environment

demo: $(STAMP) ## the main job, end to end, with everything killed once on the way
	@$(BIN)/sandreel demo

test: $(STAMP) ## every test; sets up everything and needs no server
	@$(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder

gate: $(STAMP) ## format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(STAMP) ## put the code into shape
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

contract: $(STAMP) ## write docs/contract from the types
	@$(BIN)/python docs/contract/generate.py

metrics: $(STAMP) ## write docs/metrics.md from what the roles declare
	@$(BIN)/python docs/metrics_page.py

permissions: $(STAMP) ## write docs/permissions.md from the table of who may do what
	@$(BIN)/python docs/permissions_page.py

views: $(STAMP) ## write docs/views.md from what the views say of themselves
	@$(BIN)/python docs/views_page.py

image: $(STAMP) ## build the container images that are not there yet (BASE_IMAGE=… for another base)
	@$(BIN)/python image/build.py

image-slim: $(STAMP) ## only what sessions need at least: the slim session, the bus and the fence
	@$(BIN)/python image/build.py session-slim nats fence

image-agents: $(STAMP) ## those and the roles, with the four coding agents in the session: for turns in containers
	@$(BIN)/python image/build.py session-slim session-agents nats fence roles

bench: $(STAMP) ## the figures, each beside its reference in the same run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m bench

growth: $(STAMP) ## how the figures move with ten times the lines and viewers, four times the sessions
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m bench.growth

soak: $(STAMP) ## random kills for SECONDS (600), then a verdict
	@$(BIN)/python -m tests.system.soak --seconds $(or $(SECONDS),600)

smoke-real: $(STAMP) ## one small turn with the real API of every provider whose key is in the environment
	@$(BIN)/python -m tests.system.smoke_real

clean: ## remove what was made here
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis bench/results dist build
