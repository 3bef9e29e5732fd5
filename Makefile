# Each target works from nothing: it makes .venv, installs the pinned versions, then does its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CODE := consortium site_agent privacy audit tests configs

.PHONY: install demo test test-fast check bench soak long-cut lock sbom proto clean help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the pinned dependencies (once; about two minutes) ..."
	$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-demo
	@echo "Installing the test tools (once) ..."
	$(PIP) install -c constraints.txt -e '.[dev]'
	# They ask for Python 3.12 and run on 3.11; they need nothing but cryptography.
	$(PIP) install --no-deps --ignore-requires-python aics-tlog==0.2.1 aics-witness==0.1.0
	# Helm's own code, for a test of the chart that is skipped without it; there is a build for Linux and macOS only.
	$(PIP) install --no-deps --only-binary :all: helm-python-sdk==0.2.2 || echo "helm-python-sdk cannot be installed here"
	@touch $@

install: $(VENV)/.installed-demo  ## make .venv with everything a coordinator and a hospital need

demo: $(VENV)/.installed-demo  ## a real four-hospital study, from YAML to a verified evidence bundle
	$(BIN)/consortium demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev  ## every test, three files at a time, in the order of tests/conftest.py
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.installed-dev  ## the tests that take seconds
	$(BIN)/python -m pytest -q -m 'not slow'

check: $(VENV)/.installed-dev  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev  ## measure; writes build/benchmarks.json
	mkdir -p build
	$(BIN)/python tests/benchmarks/run.py --out build/benchmarks.json

sbom: $(VENV)/.installed-dev  ## what a coordinator and a hospital's agent consist of, as CycloneDX, in build/
	mkdir -p build
	$(BIN)/python -m consortium.bill_of_materials configs/deploy/coordinator.lock build/coordinator.cdx.json
	$(BIN)/python -m consortium.bill_of_materials configs/deploy/site.lock build/site.cdx.json

ROUNDS ?= 200
SEED ?= 1
MINUTES ?= 60

soak: $(VENV)/.installed-dev  ## many rounds while processes are killed and stopped by chance; ROUNDS, SEED, MINUTES bound it
	mkdir -p build
	$(BIN)/python -m tests.e2e.soak --rounds $(ROUNDS) --seed $(SEED) --minutes $(MINUTES) --out build/soak.json

CUT_MINUTES ?= 10

long-cut: $(VENV)/.installed-dev  ## a study whose hospitals are cut off for CUT_MINUTES, behind firewalls; needs root
	mkdir -p build
	$(BIN)/python -m tests.e2e.long_cut --minutes $(CUT_MINUTES) --out build/long-cut.json

proto: $(VENV)/.installed-dev  ## regenerate consortium/wire/consortium_pb2.py
	$(BIN)/python -m consortium.wire.generate

lock: | $(BIN)/python  ## resolve afresh and rewrite constraints.txt and the lock files of configs/deploy
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --quiet install torch==2.13.0
	build/lock/bin/python -m pip --quiet install '.[dev]'
	( echo '# Every version that is installed, direct or not. Made by `make lock`; used by every pip call in the Makefile.'; \
	  build/lock/bin/python -m pip freeze --all --exclude hospital-consortium --exclude wheel --exclude pip | sed 's/+cpu//' ) > constraints.txt
	build/lock/bin/python configs/deploy/make_lock.py

clean:  ## remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
