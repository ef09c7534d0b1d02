# Every target works as the first command in a fresh clone; what a target needs is made on the way, once.
# Needed beforehand: Python 3.11 or later with pip, and make.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# The environment is made without pip and filled from outside: so it needs no ensurepip, which Debian packages apart.
PIP := $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python
HTTP ?= 127.0.0.1:8765
PYTEST_WORKERS ?= auto
PYTEST_ARGS ?=

RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run install uninstall wheel packed zipapp deb docs coverage test lint types floors check bench bench-peers profile torture crashes soak hidden model lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- the environments -------------------------------------------------------------------------------------------------

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'make: no Python 3.11 or later found; name one: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv --without-pip $(VENV)

$(RUN_READY): pyproject.toml daemon/inboxd/__init__.py locks/build.txt locks/run.txt | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r locks/build.txt -r locks/run.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(DEV_READY): $(RUN_READY) locks/dev.txt
	$(PIP) install --quiet --require-hashes -r locks/dev.txt
	@touch $@

# --- the daemon -------------------------------------------------------------------------------------------------------

run: $(RUN_READY)  ## run the daemon on inbox/ and data/, with the page on HTTP=127.0.0.1:8765
	@mkdir -p inbox data
	@echo 'inboxd: drop files into inbox/ and see http://$(HTTP)/ (Ctrl-C ends it)' >&2
	@exec $(BIN)/inboxd run --http $(HTTP)

# --- the service ------------------------------------------------------------------------------------------------------

# The service runs on the system's own Python unless another is named: one in a home folder is out of its sandbox's reach.
install:  ## install the systemd service, or bring it up to this checkout, as root (DROPINS="postgresql page notify")
	@$(if $(filter command environment,$(origin PYTHON)),PYTHON='$(PYTHON)') systemd/install.sh install $(DROPINS:%=--drop-in %)

uninstall:  ## remove the service, but not its config and data, as root
	@systemd/install.sh uninstall

# --- what is handed on --------------------------------------------------------------------------------------------------

DIST ?= dist
BUILD ?= build
VERSION := $(shell sed -n 's/^__version__.*"\(.*\)"$$/\1/p' daemon/inboxd/__init__.py)
WHEEL := $(DIST)/inboxd-$(VERSION)-py3-none-any.whl
# The wheel and the locked dependencies, all extras included, and nothing of this checkout.
PACKED := $(BUILD)/env
PACKED_READY := $(PACKED)/.ready
PACKED_PIP := $(PYTHON) -m pip --disable-pip-version-check --python $(PACKED)/bin/python

wheel: $(WHEEL)  ## build the wheel into dist/

$(WHEEL): pyproject.toml README.md LICENSE $(shell find daemon/inboxd -type f ! -name '*.pyc') | $(RUN_READY)
	$(BIN)/hatchling build --target wheel --directory $(DIST)

packed: $(PACKED_READY)

$(PACKED_READY): $(WHEEL) locks/run.txt
	rm -rf $(PACKED)
	$(PYTHON) -m venv --without-pip $(PACKED)
	$(PACKED_PIP) install --quiet --require-hashes -r locks/run.txt
	$(PACKED_PIP) install --quiet --no-deps --no-index $(WHEEL)
	@touch $@

zipapp: $(PACKED_READY) $(DEV_READY)  ## build dist/inboxd.pyz: one file, for any machine with the Python that built it
	$(BIN)/shiv --site-packages $$(echo $(PACKED)/lib/python3.*/site-packages) --console-script inboxd --compressed \
		--reproducible --python "/usr/bin/env $$(basename $(PACKED)/lib/python3.*)" --output-file $(DIST)/inboxd.pyz

# The service runs on the system's own Python unless another is named.
deb: $(PACKED_READY)  ## build the Debian package into dist/
	@$(if $(filter command environment,$(origin PYTHON)),PYTHON='$(PYTHON)') deb/build.sh $(PACKED) $(DIST)

# --- the documents as a site ------------------------------------------------------------------------------------------

DOCS_ENV := $(BUILD)/docs-env
DOCS_READY := $(DOCS_ENV)/.ready
PAGES := $(BUILD)/pages

$(DOCS_READY): locks/docs.txt
	@test -n '$(PYTHON)' || { echo 'make: no Python 3.11 or later found; name one: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv --without-pip $(DOCS_ENV)
	$(PYTHON) -m pip --disable-pip-version-check --python $(DOCS_ENV)/bin/python install --quiet --require-hashes -r $<
	@touch $@

docs: $(DOCS_READY)  ## build the documents into build/site, with search; fails where a link leads nowhere
	rm -rf $(PAGES)
	mkdir -p $(PAGES)/data
	cp README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md $(PAGES)
	cp -R docs $(PAGES)
	cp -R data/samples $(PAGES)/data
	cp mkdocs.yml $(BUILD)
	$(DOCS_ENV)/bin/zensical build --strict --config-file $(BUILD)/mkdocs.yml
	@echo 'inboxd: see $(BUILD)/site/index.html' >&2

# --- what CI runs, and a developer types ------------------------------------------------------------------------------

test: $(DEV_READY)  ## run the tests (PYTEST_ARGS='-k config', PYTEST_WORKERS=0 for one process)
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m 'not systemd' $(PYTEST_ARGS) || [ $$? -eq 5 ]
	@# One machine at a time: two that boot side by side fight over the same control group. Exit code 5: none chosen.
	$(BIN)/python -m pytest -m systemd $(PYTEST_ARGS) || [ $$? -eq 5 ]

# Tests that take more than a few seconds, or a machine of their own, are left out: they reach little that these do not.
# Those that start no processes come first, in case that the time is bounded.
QUICK_FIRST := $(addprefix tests/,records config infer inbox store operate outbox web audit cli process house proof)
# Exit code 1: some test failed. Whether they pass is for `make test` to say; here everything is slower. 2: out of time.
coverage: $(DEV_READY)  ## run the quick tests, and list the modules with lines that none of them reaches
	rm -rf build/coverage
	mkdir -p build/coverage
	COVERAGE_PROCESS_START=pyproject.toml $(BIN)/python -m coverage run -m pytest -q -n $(PYTEST_WORKERS) \
		-m 'not slow and not systemd and not browser' $(PYTEST_ARGS) $(QUICK_FIRST) || [ $$? -le 2 ]
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: $(DEV_READY)  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(DEV_READY)  ## mypy, strict
	$(BIN)/mypy

floors: $(DEV_READY)  ## a module imports only from the floors below its own
	$(BIN)/python -m pytest tests/house/test_floors.py

check: lint types floors test  ## all four

# --- how fast it is ---------------------------------------------------------------------------------------------------

BENCH ?= full
ROWS ?=
PEERS := bench/.venv
PEERS_READY := $(PEERS)/.ready

$(PEERS_READY): bench/requirements.txt
	@test -n '$(PYTHON)' || { echo 'make: no Python 3.11 or later found; name one: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv --without-pip $(PEERS)
	$(PYTHON) -m pip --disable-pip-version-check --python $(PEERS)/bin/python install --quiet --require-hashes -r $<
	@touch $@

FLOOR := bench/scratch/floor

# Without a C compiler or npm the bench says so in its table, and measures the rest.
$(FLOOR)/floor: bench/peers/floor.c bench/floor.py
	-$(PYTHON) bench/floor.py $(FLOOR)

bench-peers: $(PEERS_READY) $(FLOOR)/floor  ## install what inboxd is measured against, into bench/.venv

bench: $(RUN_READY) bench-peers  ## measure every goal into bench/RESULTS.md (BENCH=quick to try, ROWS="bulk small" for some)
	$(BIN)/python -m bench --scale $(BENCH) $(ROWS)

profile: $(RUN_READY)  ## show where the time of a bulk load and of many small files goes
	$(BIN)/python -m bench.profiler

# --- what it survives -------------------------------------------------------------------------------------------------

ROUNDS ?= 100
MINUTES ?= 60
TOOLS ?=

soak: $(DEV_READY)  ## let it live a busy life for MINUTES=60; fails where something is lost or keeps growing (SEED=1)
	PYTHONPATH=tests/support $(BIN)/python tests/support/soak.py --minutes $(MINUTES) $(SEED:%=--seed %)

hidden: $(DEV_READY)  ## run the tests that name a tool on a PATH without it, one after another (TOOLS="strace ip")
	PYTHONPATH=tests/support $(BIN)/python tests/support/hidden_tools.py $(TOOLS)

torture: $(DEV_READY)  ## kill it, and fail its disk, at any system call; count what is lost or done twice (SEED=1 ROUNDS=100)
	PYTHONPATH=tests/support $(BIN)/python tests/support/torture.py --rounds $(ROUNDS) $(SEED:%=--seed %)

STATES ?= 300

crashes: $(DEV_READY)  ## make every state that a power cut may leave real, and start on it (SEED=1 STATES=300, 0 for all; WITHOUT_SYNCS=1)
	PYTHONPATH=tests/support $(BIN)/python tests/support/crashes.py --states $(STATES) $(SEED:%=--seed %) $(WITHOUT_SYNCS:1=--without-syncs)

model: $(DEV_READY)  ## search every state of the model of a file's life (needs spin and gcc)
	PYTHONPATH=tests/support $(BIN)/python tests/support/spin_model.py

# --- upkeep -----------------------------------------------------------------------------------------------------------

# Hashes are those of the public index, whatever mirror this machine is set up with; pins stay unless UPGRADE=--upgrade.
COMPILE = env -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null \
	CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --no-config --generate-hashes --allow-unsafe \
	--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options $(UPGRADE)

lock: $(DEV_READY)  ## compile locks/ anew from pyproject.toml (UPGRADE=--upgrade for newer versions)
	$(COMPILE) --only-build-deps --build-deps-for editable --output-file locks/build.txt pyproject.toml
	$(COMPILE) --extra web --extra postgres --output-file locks/run.txt pyproject.toml
	$(COMPILE) --extra web --extra postgres --extra dev --constraint locks/build.txt --constraint locks/run.txt \
		--output-file locks/dev.txt pyproject.toml
	$(COMPILE) --output-file locks/docs.txt locks/docs.in
	$(COMPILE) --output-file bench/requirements.txt bench/requirements.in

clean:  ## remove what the targets made, but not inbox/ and data/
	rm -rf $(VENV) $(PEERS) bench/scratch build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find daemon tests -name __pycache__ -type d -prune -exec rm -rf {} +
