# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.9
MEMBERS := protos/stubs protos/wire services/kit services/sequence services/boot services/catalog services/scheduler services/sender services/server clients/agent clients/cli
MEMBER_FILES := $(addsuffix /pyproject.toml,$(MEMBERS))
SETUP := $(VENV)/.ready
BASELINE := protos/baseline.binpb
PYTHON_SOURCES := protos/wire services clients deploy docs tests protos/stubs/generate.py
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# A build must not depend on what else is on the machine, and every process must not compile everything anew.
unexport PYTHONPATH PYTHONDONTWRITEBYTECODE

# Tests run side by side, each lane with a network of its own; what is in the network lab runs in one lane. `LANES=` is one after the other.
LANES ?= -n 3 --dist loadgroup
COVERED ?= tests/unit

.PHONY: help setup stubs lock demo test slow coverage check lint bench fuzz picture baseline clean

help: ## List the targets.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(SETUP) ## Make the virtual environment with everything in it.

$(SETUP): requirements.lock pyproject.toml $(MEMBER_FILES) deploy/setup.sh protos/wire/hatch_build.py $(wildcard protos/wire/fleetcast_wire/*.[ch])
	@deploy/packages.sh native
	@deploy/setup.sh $(VENV) $(UV_VERSION)
	@$(UV) pip sync --quiet requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation $(addprefix -e ,$(MEMBERS))
	@touch $@

demo: $(SETUP) ## Take real images from files to three disks at once, and prove every byte.
	@deploy/packages.sh images
	@$(BIN)/python -m deploy.demo

test: $(SETUP) ## Run every test: unit, integration, end to end (the network lab as root).
	@deploy/packages.sh lab images disks boot database
	$(BIN)/pytest $(LANES) $(PYTEST_FLAGS)

slow: $(SETUP) ## Run the tests that take minutes each: further emulated machines.
	@deploy/packages.sh lab images disks boot database
	$(BIN)/pytest --slow -m slow $(PYTEST_FLAGS)

coverage: $(SETUP) ## Print how much of the branches the unit tests go through; `COVERED=tests` for all tests.
	$(BIN)/pytest $(LANES) $(COVERED) -q --no-header --cov --cov-branch --cov-report=term:skip-covered

check: lint test ## Do what CI does: lint, then test.

lint: $(SETUP) ## Check protos, stubs, style, types and imports.
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf lint
	$(BIN)/buf breaking --against $(BASELINE)
	@mkdir -p build/stubs && $(BIN)/python protos/stubs/generate.py build/stubs
	diff -r --exclude __pycache__ protos/stubs/fleetcast build/stubs/fleetcast
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(PYTHON_SOURCES)
	$(BIN)/lint-imports
	$(BIN)/python docs/picture.py --check

bench: $(SETUP) ## Measure against other tools in the network lab (as root): make bench BENCH_FLAGS=--quick
	@deploy/packages.sh lab peers
	$(BIN)/python -m tests.bench $(BENCH_FLAGS)

fuzz: $(SETUP) ## Run the property tests with 200 times as many examples (an hour): make fuzz PYTEST_FLAGS="-k wim"
	$(BIN)/pytest -m hypothesis --hypothesis-profile=fuzz $(PYTEST_FLAGS)

stubs: $(SETUP) ## Generate the committed stubs from the protos.
	$(BIN)/python protos/stubs/generate.py
	rm -rf .mypy_cache

picture: $(SETUP) ## Draw the picture of docs/architecture.md from the imports.
	$(BIN)/python docs/picture.py

baseline: $(SETUP) ## Take the protos as they are for the release that later ones must not break.
	$(BIN)/buf build --exclude-source-info --output $(BASELINE)

lock: ## Resolve the dependencies of every member anew into requirements.lock.
	@deploy/setup.sh $(VENV) $(UV_VERSION)
	$(UV) pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate $(addprefix --no-emit-package fleetcast-,stubs wire sequence kit boot catalog scheduler sender server agent cli) \
		--output-file requirements.lock --quiet
	echo grpcio-tools==1.76.0 | $(UV) pip compile - --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --output-file protos/stubs/compiler.lock --quiet

clean: ## Remove the virtual environment and the caches.
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
