# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.9
MEMBERS := protos/stubs protos/wire services/kit services/catalog services/scheduler services/sender services/server clients/agent clients/cli
MEMBER_FILES := $(addsuffix /pyproject.toml,$(MEMBERS))
SETUP := $(VENV)/.ready
PYTHON_SOURCES := protos/wire services clients tests protos/stubs/generate.py
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# A build must not depend on what else is on the machine.
unexport PYTHONPATH

.PHONY: help setup stubs lock demo test check bench fuzz clean

help: ## List the targets.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(SETUP) ## Make the virtual environment with everything in it.

$(SETUP): requirements.lock pyproject.toml $(MEMBER_FILES) deploy/setup.sh
	@deploy/setup.sh $(VENV) $(UV_VERSION)
	@$(UV) pip sync --quiet requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation $(addprefix -e ,$(MEMBERS))
	@touch $@

stubs: $(SETUP) ## Generate the committed stubs from the protos.
	$(BIN)/python protos/stubs/generate.py
	rm -rf .mypy_cache

lock: ## Resolve the dependencies of every member anew into requirements.lock.
	@deploy/setup.sh $(VENV) $(UV_VERSION)
	$(UV) pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate $(addprefix --no-emit-package fleetcast-,stubs wire kit catalog scheduler sender server agent cli) \
		--output-file requirements.lock --quiet

clean: ## Remove the virtual environment and the caches.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
