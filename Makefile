# Everything runs from here; each step leaves a stamp in .stamps/ and is not redone.
#
#   make demo            embedded PostgreSQL, two tenants, the proxy, a tour; stays up   (ONCE=1: exits)
#   make test            every test but the long ones     (ARGS="-k scram" goes to pytest; "-n 0": one by one)
#   make soak, fuzz      the long ones     (SECONDS=3600: each of our parsers is fuzzed as long;
#                        STEPS=, CANCELS=: of the leak hunter, of the cancel storm)
#   make bench           the load tests                   (ARGS goes to python -m loadtests)
#   make lint            ruff, mypy, and what Cython says
#   make format          ruff format
#   make compile, debug  the Cython modules, optimized or with all checks
#   make wheel           dist/*.whl; make check-wheel also runs the demo from it
#   make install         after make wheel: what the wheel needs to run, at PREFIX=
#   make lock            new exact versions in requirements-dev.lock
#   make clean           all of it away
#   make help            this text
#
# PYTHON=python3.12 picks the interpreter; otherwise the first fit one is taken.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
JOBS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
ARGS ?=
ONCE ?=
SECONDS ?= 60
STEPS ?= 1000000
CANCELS ?= 100000
EXAMPLES ?= 2000

# hundreds of processes import the same modules: compiled once, whatever the environment says
unexport PYTHONDONTWRITEBYTECODE

CYTHON_SOURCES := setup.py $(shell find tenant_proxy -name '*.pyx' -o -name '*.pxd')
BUILD_EXT := $(PY) setup.py -q build_ext --inplace --parallel $(JOBS)
PIP := $(PY) -m pip --quiet --disable-pip-version-check

.PHONY: all demo test soak fuzz bench lint format compile debug wheel install check-wheel lock venv clean help

all: compile

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# --- set-up ------------------------------------------------------------------

# Checked before anything else, and again whenever the venv has to be made.
$(PY):
	@mkdir -p .stamps
	@python=$$(scripts/check-machine.sh $(PYTHON)) || exit 1; \
	echo "venv in $(VENV) with $$python"; \
	rm -rf $(VENV) .stamps/*packages .stamps/compile-* && "$$python" -m venv $(VENV)

# What running takes: quick to fetch, for those who come to see the demo.
.stamps/run-packages: requirements-dev.lock pyproject.toml setup.py | $(PY)
	@mkdir -p .stamps
	@echo "packages to run"
	@$(PY) scripts/requirements.py run >.stamps/run.txt
	@$(PIP) install --constraint requirements-dev.lock -r .stamps/run.txt
	@# the package itself, editable: the tenant-proxy command; its modules are compiled below
	@TP_NO_EXTENSIONS=1 $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# What tests, lint and load tests take besides.
.stamps/packages: .stamps/run-packages
	@echo "packages to develop"
	@$(PIP) install -r requirements-dev.lock
	@touch $@

venv: .stamps/packages

# A stamp per kind, the other one removed: a change of kind compiles all anew.
.stamps/compile-release: $(CYTHON_SOURCES) .stamps/run-packages
	@echo "compiling"
	@if [ -e .stamps/compile-debug ]; then export CYTHON_FORCE_REGEN=1; force=--force; fi; \
	$(BUILD_EXT) $${force:-}
	@rm -f .stamps/compile-debug
	@touch $@

.stamps/compile-debug: $(CYTHON_SOURCES) .stamps/run-packages
	@echo "compiling with checks and assertions"
	@if [ ! -e $@ ]; then export CYTHON_FORCE_REGEN=1; force=--force; fi; \
	TP_DEBUG=1 $(BUILD_EXT) $${force:-}
	@rm -f .stamps/compile-release
	@touch $@

compile: .stamps/compile-release

debug: .stamps/compile-debug

# --- run ---------------------------------------------------------------------

# exec: Ctrl-C and SIGTERM reach the demo itself
demo: compile
	@exec $(PY) -m tenant_proxy.devel.demo $(if $(ONCE),--once) $(ARGS)

# Tests wait more than they compute: one process more than there are processors, of which four are enough.
test: compile .stamps/packages
	@n=$$(getconf _NPROCESSORS_ONLN); if [ $$n -gt 4 ]; then n=4; fi; \
	exec $(PY) -m pytest -n $$((n + 1)) --dist loadfile $(ARGS)

soak: compile .stamps/packages
	$(PY) -m pytest -m soak --timeout 7200 $(ARGS)
	TP_LEAK_STEPS=$(STEPS) TP_CANCELS=$(CANCELS) TP_SETTINGS_EXAMPLES=$(EXAMPLES) \
	$(PY) -m pytest --timeout 0 $(ARGS) tests/e2e/test_leaks.py tests/e2e/test_settings_machine.py \
	  tests/adversity/test_cancel_storm.py

fuzz: compile .stamps/packages
	FUZZ_SECONDS=$(SECONDS) $(PY) -m pytest -m fuzz --timeout 7200 $(ARGS)

# the tenants' life has programs of its own; ARGS is for the first one, and leaves them out
bench: compile .stamps/packages
	$(PY) -m loadtests $(ARGS)
	$(if $(ARGS),,for part in 'onboard --many 1000' fleet follow estate; do $(PY) -m loadtests.$$part; done)

lint: .stamps/packages
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q --noconftest -m lint tests/test_source.py

format: .stamps/packages
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# --- deliver -----------------------------------------------------------------

# Built apart from .venv's packages, with the lock's compiler and setuptools.
wheel: | $(PY)
	@rm -rf dist build
	@export CYTHON_FORCE_REGEN=1 PIP_CONSTRAINT=requirements-dev.lock PIP_BUILD_CONSTRAINT=requirements-dev.lock; \
	$(PIP) wheel --no-deps --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

# The wheel and what it needs, at the lock's versions, in a virtual environment at PREFIX
# (EXTRAS=[demo] adds an embedded PostgreSQL); the image is made so.
install:
	@[ -n "$(PREFIX)" ] || { echo "usage: make install PREFIX=/where/to" >&2; exit 1; }
	@[ -e dist ] || { echo "run make wheel first" >&2; exit 1; }
	@python=$$(scripts/check-machine.sh $(PYTHON)) || exit 1; \
	"$$python" -m venv "$(PREFIX)"; \
	"$(PREFIX)/bin/python" -m pip --quiet --disable-pip-version-check install --no-cache-dir \
	  --constraint requirements-dev.lock "$$(ls $$PWD/dist/*.whl)$(EXTRAS)"

# What a user gets: the image's steps on the image's files (those that .dockerignore lets in),
# then the demo from what was installed, away from the sources.
check-wheel:
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	mkdir "$$dir/src"; \
	sed -n 's/^!//p' .dockerignore | while read -r name; do cp -R "$$name" "$$dir/src/"; done; \
	find "$$dir/src" \( -name '*.so' -o -name '*.c' -o -name __pycache__ \) -prune -exec rm -rf {} +; \
	$(MAKE) --no-print-directory -C "$$dir/src" wheel; \
	$(MAKE) --no-print-directory -C "$$dir/src" install PREFIX="$$dir/app" EXTRAS="[demo]"; \
	if ls "$$dir"/app/lib/python*/site-packages/tenant_proxy/*/*.pyx "$$dir"/app/lib/python*/site-packages/tenant_proxy/*/*.c \
	  2>/dev/null; then echo "sources are in the wheel" >&2; exit 1; fi; \
	cd "$$dir" && app/bin/python -m tenant_proxy.devel.demo --once

# Exact versions from a clean environment; hosts of registries stay out of the file.
lock:
	@python=$$(scripts/check-machine.sh $(PYTHON)) || exit 1; \
	dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	"$$python" -m venv "$$dir/venv"; \
	"$$python" scripts/requirements.py dev >"$$dir/in.txt"; \
	"$$dir/venv/bin/python" -m pip --quiet --disable-pip-version-check install --upgrade -r "$$dir/in.txt"; \
	{ echo "# Exact versions for development and CI. Made by \`make lock\`."; \
	  "$$dir/venv/bin/python" -m pip --disable-pip-version-check freeze --all --exclude pip \
	    | LC_ALL=C sort --ignore-case; } >"$$dir/lock"; \
	cp "$$dir/lock" requirements-dev.lock

clean:
	rm -rf $(VENV) .stamps build dist .demo .test *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find tenant_proxy loadtests tests -name __pycache__ -type d -exec rm -rf {} +
	find tenant_proxy \( -name '*.so' -o -name '*.c' -o -name '*.html' \) -type f -delete
