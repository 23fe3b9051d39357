# Each target sets itself up on a bare machine with Python 3.11+, git and make.
# PYTHON=python3.12 make …   uses another interpreter; LONG=1 make test adds the long tests.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
unexport PYTHONDONTWRITEBYTECODE  # a process that compiles every module anew starts in twice the time
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --require-hashes --no-deps -r
PYTEST := $(VENV)/bin/python -m pytest
CONFIG ?= config/parapet.yaml

IN_PROCESS := not process and not long and not redis and not exhaustive
CHECK := $(IN_PROCESS) and not thorough
# Not even read by the quick run: what starts processes, and the SDKs, which take seconds to import.
HEAVY := --ignore tests/story --ignore tests/chaos --ignore tests/sdk
COMPILED := build/compiled
SLOW := $(if $(LONG),process or redis or long,(process or redis) and not long and not exhaustive)

# $(call system,COMMAND,PACKAGE): have COMMAND, with the system's packages if that is allowed.
define system
	@$(1) >/dev/null 2>&1 && exit 0; \
	say() { echo "make: $(2) is missing and cannot be installed here; install it (Debian: apt-get install $(2))" >&2; exit 1; }; \
	command -v apt-get >/dev/null || say; \
	sudo=; if [ "$$(id -u)" != 0 ]; then sudo -n true 2>/dev/null || say; sudo="sudo -n"; fi; \
	echo "installing $(2) …"; \
	log=$$(mktemp); export DEBIAN_FRONTEND=noninteractive; \
	$$sudo apt-get -qq install -y --no-install-recommends $(2) >"$$log" 2>&1 \
	  || { $$sudo apt-get -qq update && $$sudo apt-get -qq install -y --no-install-recommends $(2); } >>"$$log" 2>&1 \
	  || { tail -n 3 "$$log" >&2; say; }; \
	$(1) >/dev/null 2>&1 || say
endef

# $(call story,PYTEST,ARGUMENTS): tests with real processes.  What fails is played once more by itself,
# and then it counts: a machine that does other things misses a bar of milliseconds now and then.
define story
	$(1) $(2) || { code=$$?; [ $$code = 1 ] || exit $$code; echo "--- once more, what failed:"; \
	  $(1) --last-failed --last-failed-no-failures=none $(2); }
endef

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.run ## two fake providers, a failover and a guardrail to try; needs no key
	@$(VENV)/bin/python -m proxy demo

.PHONY: run
run: $(VENV)/.run ## serve CONFIG (config/parapet.yaml): callers use their own provider keys
	@$(VENV)/bin/python -m proxy serve -c $(CONFIG)

.PHONY: check
check: $(VENV)/.dev ## format, lint, import stairs, types, fast tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/mypy
	$(PYTEST) -n auto $(HEAVY) -m "$(CHECK)"

.PHONY: test
test: $(VENV)/.dev redis ## every test, with real processes and a real Redis; LONG=1: the long ones too
	$(PYTEST) -n auto -m "$(IN_PROCESS)"
	$(call story,$(PYTEST),-m "$(SLOW)")

.PHONY: chaos
chaos: $(VENV)/.dev ## the scorecard of failover: real faults, official SDKs; FAST=1 ONLY=S08,P04 WORKERS=1
	$(VENV)/bin/python -m tests.chaos $(if $(FAST),,--full) $(if $(ONLY),--only $(ONLY)) $(if $(WORKERS),--workers $(WORKERS))

.PHONY: chaos-long
chaos-long: $(VENV)/.dev ## a steady load while the primary fails in seven ways; DURATION=300 WORKERS=1
	$(VENV)/bin/python -m tests.chaos.steady --seconds $(or $(DURATION),300) $(if $(WORKERS),--workers $(WORKERS))

.PHONY: chaos-frozen
chaos-frozen: $(VENV)/.dev redis ## what callers notice while Redis or the control process is frozen; CYCLES=4 WORKERS=2
	$(VENV)/bin/python -m tests.chaos.frozen $(if $(CYCLES),--cycles $(CYCLES)) $(if $(WORKERS),--workers $(WORKERS))

.PHONY: coverage
coverage: $(VENV)/.dev ## how much of the code the tests without processes run, line by line
	$(VENV)/bin/python -m coverage run -m pytest -m "$(IN_PROCESS)"
	@$(VENV)/bin/python -m coverage report --format=total | sed 's/^/coverage of these, in percent: /'

.PHONY: bench-control
bench-control: $(VENV)/.dev ## events a second and lists over 1,000,000 events, 10,000 documents (some minutes)
	$(VENV)/bin/python -m benchmarks.control --events 1000000

.PHONY: compiled
compiled: $(COMPILED)/.built ## the hot path as C, in build/compiled (some minutes)

.PHONY: test-compiled
test-compiled: $(COMPILED)/.built redis ## the fast tests and the stories over the compiled hot path
	cd $(COMPILED) && ../../$(VENV)/bin/python -m pytest -p no:cacheprovider --ignore tests/house $(HEAVY) --ignore tests/fuzz/test_guard_mutants.py -n auto -m "$(CHECK)"
	cd $(COMPILED) && ../../$(VENV)/bin/python -m pytest -p no:cacheprovider -n auto --ignore tests/fuzz/test_guard_mutants.py -m "(exhaustive or thorough) and not process" tests/fuzz tests/gateway tests/routing tests/sdk
	cd $(COMPILED); $(call story,../../$(VENV)/bin/python -m pytest,-m "(exhaustive or process and not redis) and not long" tests/story tests/contract/test_fuzzed.py)

.PHONY: bench
bench: $(COMPILED)/.built nginx ## a table of ratios against nginx; SET=full PEERS=all GATE=1 INTERPRETED=1
	cd $(if $(INTERPRETED),.,$(COMPILED)) && $(CURDIR)/$(VENV)/bin/python -m benchmarks.micro.guard --brief $(if $(GATE),--gate)
	cd $(if $(INTERPRETED),.,$(COMPILED)) && $(CURDIR)/$(VENV)/bin/python -m benchmarks $(if $(SET),--set $(SET)) $(if $(PEERS),--peers $(PEERS)) $(if $(GATE),--gate)

.PHONY: quality
quality: $(VENV)/.dev ## recall and false finds of the shipped packs; fetches ordinary texts by pip
	$(VENV)/bin/python -m benchmarks.quality

.PHONY: evasion
evasion: $(VENV)/.dev ## publish what the packs find in disguise (docs/evasion.md); refuses what got worse
	$(VENV)/bin/python -m benchmarks.quality.evasion --write

.PHONY: bench-guard
bench-guard: $(COMPILED)/.built ## what the guard costs, beside what it may cost; GATE=1 INTERPRETED=1
	cd $(if $(INTERPRETED),.,$(COMPILED)) && $(CURDIR)/$(VENV)/bin/python -m benchmarks.micro.guard $(if $(GATE),--gate)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## the property tests, then the stream guard at random for MINUTES (10)
	$(PYTEST) -n auto tests/fuzz
	$(VENV)/bin/python -m tests.fuzz.guard_long --minutes $(or $(MINUTES),10)

.PHONY: openapi-snapshot
openapi-snapshot: $(VENV)/.dev ## promise what the control API's description says now; refuses what breaks a client
	@$(VENV)/bin/python -m tests.contract.snapshot

.PHONY: lock
lock: ## write requirements.lock anew from pyproject.toml
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	$(PYTHON) -m venv "$$work/venv"; "$$work/venv/bin/pip" --quiet install pip-tools; \
	compile() { "$$work/venv/bin/pip-compile" --quiet --generate-hashes --strip-extras --allow-unsafe \
	  --no-header --no-annotate --no-emit-find-links --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-options --build-deps-for=editable "$$@" pyproject.toml; }; \
	compile --output-file "$$work/run"; \
	compile --all-extras --constraint "$$work/run" --output-file "$$work/dev"; \
	{ echo '# Every package that Parapet is run and tested with, pinned by hash.  `make lock` writes this file.'; \
	  printf '\n# --- run: what the proxy needs, and what builds it\n\n'; \
	  awk 'NF && !/^ *#/' "$$work/run"; \
	  printf '\n# --- dev: what checks it\n\n'; \
	  awk 'FNR == NR { if (/^[A-Za-z0-9]/) { split($$1, a, "=="); run[a[1]] } next } \
	       /^[A-Za-z0-9]/ { split($$1, a, "=="); own = !(a[1] in run) } own && NF && !/^ *#/' \
	       "$$work/run" "$$work/dev"; } > requirements.lock

.PHONY: clean
clean: ## remove what the targets made (not ./var, the state)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .schemathesis .coverage
	find proxy tests config benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# --- set-up

.PHONY: redis nginx
redis:
	$(call system,command -v redis-server,redis-server)
nginx:
	$(call system,PATH="$$PATH:/usr/sbin" command -v nginx,nginx)

, := ,

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "make: Python 3.11 or newer is needed; name it: PYTHON=/path/to/python3.11 make …" >&2; exit 1; }
	$(call system,$(PYTHON) -c "import ensurepip$(,) venv",python3-venv)
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing the run-time packages …"
	@sed '/^# --- dev/,$$d' requirements.lock > $(VENV)/run.lock
	@$(INSTALL) $(VENV)/run.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# The sources are copied, so that no extension ever shadows a source that was edited since.
$(COMPILED)/.built: $(VENV)/.dev setup.py $(shell find proxy -type f -not -name '*.pyc')
	$(call system,(command -v cc && $(VENV)/bin/python -c "from pathlib import Path; from sysconfig import get_path; Path(get_path('include')$(,) 'Python.h').stat()"),gcc libc6-dev python3-dev)
	@echo "compiling the hot path: two to five minutes …"
	@mkdir -p $(COMPILED) && rm -rf $(COMPILED)/proxy
	@cp -R proxy setup.py pyproject.toml README.md $(COMPILED)/
	@for kept in tests benchmarks config docs; do ln -sfn ../../$$kept $(COMPILED)/$$kept; done
	@cd $(COMPILED) && PARAPET_COMPILE=1 ../../$(VENV)/bin/python setup.py --quiet build_ext --inplace --parallel 2 \
	  >compile.log 2>&1 || { tail -n 20 compile.log >&2; exit 1; }
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing the packages for checks and tests …"
	@$(INSTALL) requirements.lock
	@touch $@
