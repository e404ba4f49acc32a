# Every target sets itself up: what must be there is Python 3.11 or newer, a C compiler and CPython's headers.
# `make PYTHON=python3.12 test` picks another interpreter for a new .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# What the compiled core is made of, and what says which packages are needed: a change builds and installs again.
CORE     := $(wildcard src/overspill/_core/*.pyx src/overspill/_core/*.pxd src/overspill/_core/*.h)
BUILT_OF := $(CORE) setup.py pyproject.toml

.PHONY: help run examples test bench check docs crash asan clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo 'make run     the main job: mirror live HLS through a queue that is killed on the way'
	@echo 'make examples  small programs around a queue, one after the other'
	@echo 'make test    the tests that every change must pass'
	@echo 'make bench   ours beside its peers; writes benchmarks/results/'
	@echo 'make check   ruff, and mypy --strict'
	@echo 'make docs    run every example in the documentation and build the site, site/index.html'
	@echo 'make crash   the long crash battery'
	@echo 'make asan    the tests of the compiled core under AddressSanitizer and UBSan'
	@echo 'make clean   remove what these made, .venv included'

run: $(VENV)/has-demo
	$(BIN)/overspill demo

examples: $(VENV)/has-demo
	@set -e; for example in examples/[!f]*.py; do printf '\n%s\n' "$$example"; $(BIN)/python "$$example"; done

test: $(VENV)/has-test $(BIN)/promtool
	$(BIN)/python -m pytest -n auto --dist worksteal

bench: $(VENV)/has-bench
	$(BIN)/python -m benchmarks

check: $(VENV)/has-dev
	$(BIN)/ruff check
	$(BIN)/mypy

docs: $(VENV)/has-test
	$(BIN)/python -m pytest tests/docs
	rm -rf site
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env -b html docs site
	@echo 'site/index.html'

crash: $(VENV)/has-test
	$(BIN)/python -m pytest tests/crash tests/test_interruptions.py -m battery

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Overspill needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# A real Prometheus for the tests of the alert rules and the board: the one that is there, or Debian's package, unpacked and not installed, so that no service begins and
# nothing stays behind. Where it cannot be had the tests that need it are skipped, and say so.
APT := apt-get -qq -o APT::Sandbox::User=root -o Acquire::Retries=0 -o Acquire::http::Timeout=20
$(BIN)/promtool: | $(BIN)/python
	@if command -v prometheus promtool >/dev/null; then \
		for program in prometheus promtool; do ln -sf "$$(command -v $$program)" $(BIN)/; done; \
	elif ! command -v apt-get dpkg-deb >/dev/null; then \
		echo 'make: no Prometheus here, and no apt-get to fetch one: some tests will be skipped'; \
	else \
		mkdir -p $(VENV)/fetched && cd $(VENV)/fetched && { [ "$$(id -u)" != 0 ] || $(APT) update; } && $(APT) download prometheus \
		&& dpkg-deb -x prometheus_*.deb . && mv usr/bin/prometheus usr/bin/promtool ../bin/ \
		|| echo 'make: Prometheus could not be fetched: some tests will be skipped'; \
		rm -rf "$(CURDIR)/$(VENV)/fetched"; \
	fi

# One stamp for each extra of pyproject.toml. An editable install compiles the core in place.
$(VENV)/has-%: $(BUILT_OF) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

# The sanitizers live in a copy, so that the core of the checkout stays the ordinary one. Python itself is not built with them: their libraries
# must be loaded before it, and what CPython leaks on purpose is not looked at. PYTHONMALLOC=malloc lets them see small objects, too.
ASAN       := build/asan
ASAN_TESTS ?= tests --ignore tests/demo --ignore tests/docs --ignore tests/crash --ignore tests/metrics --ignore tests/costs --ignore tests/unit/test_stubs.py
ASAN_RUN    = PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"

ASAN_COPY   = mkdir -p $(ASAN)/tree && tar --exclude=./.venv --exclude=./build --exclude=./.git --exclude=__pycache__ --exclude='*.so' -cf - . | tar -C $(ASAN)/tree -xf -

asan: $(ASAN)/built
	rm -rf $(ASAN)/tree/tests && $(ASAN_COPY)
	cd $(ASAN)/tree && $(ASAN_RUN) ../venv/bin/python -m pytest -p no:cacheprovider $(ASAN_TESTS)

$(ASAN)/built: $(BUILT_OF) | $(ASAN)/venv
	$(ASAN_COPY)
	OVERSPILL_SANITIZE=1 $(ASAN)/venv/bin/python -m pip install --quiet --editable '$(ASAN)/tree[test]'
	@touch $@

$(ASAN)/venv: | $(BIN)/python
	$(BIN)/python -m venv $@

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-output
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f src/overspill/_core/*.so src/overspill/_core/*.c
