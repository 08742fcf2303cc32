UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --frozen --all-packages
PYTEST_WORKERS ?= 3
ENGINE_HOME ?= $(HOME)/.cache/crosslogic/engine

.DEFAULT_GOAL := help
.PHONY: help run test test-engine chaos bench bench-placement lint format schemas

##@ Use
run: $(UV) ## Everything on this machine: servers, services, two simulated engines (ENGINES=http://… for real ones)
	@$(UV) sync --frozen --quiet --no-dev --inexact
	@exec .venv/bin/python -m stack

##@ Check
test: $(UV) ## The whole test suite; starts what it needs
	$(RUN) pytest -m "not engine" -n $(PYTEST_WORKERS) --dist loadgroup

test-engine: $(UV) ## The same promises against a real vLLM (installed in ENGINE_HOME on first use; or VLLM_URL)
	@[ -n "$(VLLM_URL)" ] || nice -n 10 tests/engine/install.sh $(ENGINE_HOME) $(UV)
	ENGINE_HOME=$(ENGINE_HOME) $(RUN) pytest -m engine tests/engine

bench: $(UV) ## CPU per request and per streamed chunk, beside nginx and the Rust routers in the same run (ROUNDS=3, OUT=file.json)
	PYTHONPATH=tests ROUNDS=$(ROUNDS) OUT=$(OUT) $(RUN) --group bench python -m bench

bench-placement: $(UV) ## Slots taken and given back beside redis-py, decisions over 1000 nodes, strategies on a simulated fleet
	PYTHONPATH=tests $(RUN) python -m bench.placement
	PYTHONPATH=tests $(RUN) python -m bench.fleet

chaos: $(UV) ## Kill, pause and stop processes under load; prints sent, billed, lost, twice (KILLS=20, SEED=random)
	PYTHONPATH=tests KILLS=$(KILLS) SEED=$(SEED) $(RUN) python -m chaos

lint: $(UV) ## ruff, mypy, import contracts, generated schemas up to date
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy libs/*/src services/*/src
	$(RUN) lint-imports
	$(RUN) python -m common.schema --check proto-schemas
	$(RUN) python -m gateway.document --check proto-schemas

##@ Change
format: $(UV) ## Format and apply safe fixes
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

schemas: $(UV) ## Write proto-schemas/ from the code
	$(RUN) python -m common.schema proto-schemas
	$(RUN) python -m gateway.document proto-schemas

##@ Help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv==0.13.9
