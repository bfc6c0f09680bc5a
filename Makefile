# Everything runs from .venv in this folder, which every target makes or refreshes first.
# Caches lie in .cache, so that nothing is left outside the project's folder.

PYTHON ?= python3
# More than cores: a third of the time, tests wait for what time has to bring.
TEST_WORKERS ?= 3
ARGS ?=

UV_CACHE_DIR ?= $(CURDIR)/.cache/uv
PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip
export UV_CACHE_DIR PIP_CACHE_DIR
export PIP_DISABLE_PIP_VERSION_CHECK = 1

BIN := .venv/bin
STAMP := .venv/.complete
# The scripts in .venv name its folder: when that was moved or copied, .venv is made anew.
HERE := grep -qsF "$(CURDIR)/.venv" .venv/pyvenv.cfg
$(shell $(HERE) || rm -f $(STAMP))

LOCKED := $(BIN)/uv pip compile pyproject.toml --all-extras --group dev --group applications --group docs \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup demo example test test-matrix check docs bench lock clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything installed; quick when nothing changed
	@echo "ready: $(BIN)/bemi"

demo: $(STAMP) ## Show captured changes of a small application, on a PostgreSQL of its own
	@$(BIN)/bemi demo $(ARGS)

example: $(STAMP) ## Run one of examples/, on a PostgreSQL of its own (NAME=psycopg)
	@$(BIN)/python -m examples $(if $(NAME),$(NAME),--help) $(ARGS)

test: $(STAMP) ## Run all tests against real PostgreSQL (ARGS='-k name' for some)
	@$(BIN)/pytest -n $(TEST_WORKERS) $(ARGS)

test-matrix: $(STAMP) ## Run the integration tests on PostgreSQL 14 to 18 (ARGS='--versions 14 18')
	@$(BIN)/python -m tests.matrix -n $(TEST_WORKERS) $(ARGS)

check: $(STAMP) ## Lint, format, types, architecture, documented commands
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit/test_documented.py

docs: $(STAMP) ## Build the documentation site into site/, links checked
	$(BIN)/zensical build --clean --strict

bench: $(STAMP) ## Measure throughput, latency and memory, as ratios of one run
	@$(BIN)/python -m benchmarks $(ARGS)

lock: $(STAMP) ## Resolve requirements.lock again (ARGS=--upgrade for the newest versions)
	$(LOCKED) --quiet --output-file requirements.lock $(ARGS)

clean: ## Remove everything that these targets made
	rm -rf .venv .cache build dist site src/*.egg-info .coverage* .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
		packages/js/node_modules packages/js/dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# uv itself comes out of the lock, hashed like the rest; where it has no build for this machine,
# or fails, pip installs the same lock, only slower.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is missing or older than Python 3.11" >&2; \
		echo "fix: install Python 3.11 or newer, or name it: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) has no venv or ensurepip module" >&2; \
		echo "fix: install them (Debian, Ubuntu: the package python3-venv)," >&2; \
		echo "     or name another Python: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(HERE) && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@awk '/^uv==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements.lock >.venv/uv.txt
	@if [ -z "$(NO_UV)" ] && $(BIN)/python -m pip install --quiet --require-hashes -r .venv/uv.txt \
		&& $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock; then \
		:; \
	else \
		echo "installing with pip, without uv" >&2; \
		$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock; \
	fi
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
