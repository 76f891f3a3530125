# `make` lists the targets. Everything runs in a virtual environment of its own.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := .venv-torch
WHEELS := .venv-wheels
ZIG := .venv-zig
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

NATIVE := $(wildcard csrc/*.c csrc/*.h src/flamespawn/*.pyx src/flamespawn/*.px[di] src/flamespawn/_*.c)
CSOURCES := $(wildcard csrc/*.[ch] tests/c/*.[ch] tests/c/*/*.[ch] tests/c/*/*/*.h benchmarks/*.c)

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What is missing is named here, in one line, and not by a traceback later on.
.PHONY: check-tools
check-tools:
	@PYTHON=$(PYTHON) CC=$(CC) sh wheelhouse-ci/check-tools

$(BIN)/python: | check-tools
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) --upgrade pip

$(VENV)/built: $(NATIVE) setup.py pyproject.toml | $(BIN)/python
	@echo "building the extension"
	@$(BIN)/python $(PIP_INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/linters: pyproject.toml | $(BIN)/python
	@$(BIN)/python $(PIP_INSTALL) --editable '.[test,lint]'
	@touch $@

.PHONY: build
build: $(VENV)/built ## build the extension in place

.PHONY: demo
demo: build ## run the main job on real data
	@$(BIN)/python examples/token_statistics.py

.PHONY: test
test: test-c build ## run the C tests and the Python tests
	@$(BIN)/python -m pytest

.PHONY: chaos
chaos: build ## run 10,000 random jobs, for an hour or so (CHAOS_FLAGS="--jobs 500 --delay 50")
	@$(BIN)/python tests/chaos --jobs 10000 $(CHAOS_FLAGS)

.PHONY: test-c
test-c: ## run the tests of csrc/ without Python
	@command -v $(CC) >/dev/null || { echo "missing: gcc (apt-get install gcc libc6-dev)"; exit 1; }
	@$(MAKE) --no-print-directory -C tests/c

.PHONY: test-asan
test-asan: ## run the C tests under address, undefined-behaviour and thread sanitizers
	@$(MAKE) --no-print-directory -C tests/c FLAVOUR=asan
	@$(MAKE) --no-print-directory -C tests/c FLAVOUR=tsan

.PHONY: test-kqueue
test-kqueue: ## run the C tests of the macOS and FreeBSD backends, over a stand-in for kqueue
	@for system in macosx freebsd; do for flavour in asan tsan; do \
		$(MAKE) --no-print-directory -C tests/c SYSTEM=$$system FLAVOUR=$$flavour || exit 1; \
	done; done

$(ZIG)/built: wheelhouse-ci/requirements.txt | check-tools
	@$(PYTHON) -m venv --clear $(ZIG)
	@$(ZIG)/bin/python $(PIP_INSTALL) $$(grep ^ziglang $<)
	@touch $@

.PHONY: test-cross
test-cross: $(ZIG)/built ## compile csrc/ and its tests for every platform, without a warning
	@$(ZIG)/bin/python wheelhouse-ci/compile_c.py $(TARGETS)

.PHONY: test-valgrind
test-valgrind: ## run the C tests under valgrind
	@command -v valgrind >/dev/null || { echo "missing: valgrind (apt-get install valgrind)"; exit 1; }
	@$(MAKE) --no-print-directory -C tests/c FLAVOUR=valgrind

.PHONY: test-windows-c
test-windows-c: ## run the C tests for Windows under Wine, which is installed when root
	@wheelhouse-ci/check-wine
	@$(MAKE) --no-print-directory -C tests/c SYSTEM=win; \
		status=$$?; wheelhouse-ci/run-wine build/wine-c; exit $$status

build/wine/wheelhouse/built: $(NATIVE) $(wildcard src/flamespawn/*.py) setup.py | $(WHEELS)/built
	@$(WHEELS)/bin/python wheelhouse-ci/build_wheels.py --out build/wine/wheelhouse windows-amd64
	@touch $@

.PHONY: test-windows
test-windows: $(WHEELS)/built build/wine/wheelhouse/built ## run the tests on CPython for Windows, under Wine (VERSION=3.13 TESTS=... PROCESSES=3)
	@wheelhouse-ci/test-windows $(WHEELS)/bin/python build/wine/wheelhouse/*win_amd64.whl $(or $(VERSION),3.11) $(TESTS)

.PHONY: test-pythons
test-pythons: wheel ## test the wheel on every CPython that is found here
	@wheelhouse-ci/test-pythons dist/*.whl

$(TORCH)/built: $(NATIVE) $(wildcard src/*/*.py src/flame/*/*/*.py) setup.py pyproject.toml | check-tools
	@$(PYTHON) -m venv $(TORCH)
	@$(TORCH)/bin/python $(PIP_INSTALL) --upgrade pip
	@$(TORCH)/bin/python $(PIP_INSTALL) torch==2.13.0 scikit-learn
	@$(TORCH)/bin/python $(PIP_INSTALL) '.[test,bench]'
	@touch $@

.PHONY: test-oldkernel
test-oldkernel: build ## run the tests with what old kernels and containers refuse, one by one
	@$(BIN)/python -m pytest -m 'oldkernel or not oldkernel' tests/test_old_kernel.py

.PHONY: test-torch
test-torch: $(TORCH)/built ## run what needs torch: its tests, and DDP training on 4 ranks
	@$(TORCH)/bin/python -m pytest tests/test_torch.py
	@$(TORCH)/bin/python examples/ddp_digits.py

.PHONY: bench
bench: $(TORCH)/built ## measure against the C floor and the peers (BENCH_FLAGS=--quick)
	@$(TORCH)/bin/python benchmarks/join.py $(BENCH_FLAGS)
	@$(TORCH)/bin/python benchmarks/start.py $(BENCH_FLAGS)
	@$(TORCH)/bin/python benchmarks/payload.py $(BENCH_FLAGS)

.PHONY: lint
lint: build $(VENV)/linters ## check style, types, workflows, and what Cython has to say
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy --platform win32 --follow-imports silent src/flamespawn/_*_windows.py
	@$(BIN)/clang-format --dry-run --Werror $(CSOURCES)
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@# Warnings and performance hints of Cython are failures: it must have nothing to say.
	@said=$$($(BIN)/cython -3 -Wextra -I src src/flamespawn/_native.pyx -o build/lint.c 2>&1); \
		test -z "$$said" || { echo "$$said"; exit 1; }

.PHONY: fix
fix: $(VENV)/linters ## repair what the linters can repair
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/clang-format -i $(CSOURCES)

.PHONY: docs
docs: build ## build the documentation into docs/_build
	@$(BIN)/python $(PIP_INSTALL) 'sphinx>=8' 'myst-parser>=4' furo
	@$(BIN)/python -m sphinx -W -n -q -b html docs docs/_build

.PHONY: wheel
wheel: | $(BIN)/python ## build a wheel for this machine into dist/
	@rm -rf dist && mkdir -p build
	@$(BIN)/python $(PIP_INSTALL) build
	@$(BIN)/python -m build --outdir dist . >build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	@ls dist

$(WHEELS)/built: wheelhouse-ci/requirements.txt
	@python=$$(wheelhouse-ci/find-pythons | sed -n 's/^3\.11 //p'); \
		test -n "$$python" || { echo "missing: CPython 3.11 (pyenv install 3.11)"; exit 1; }; \
		PYTHON=$$python CC=true sh wheelhouse-ci/check-tools && $$python -m venv --clear $(WHEELS)
	@$(WHEELS)/bin/python $(PIP_INSTALL) -r $<
	@touch $@

.PHONY: wheel-all
wheel-all: $(WHEELS)/built ## build the wheels for all platforms, and the sdist, into wheelhouse/
	@$(WHEELS)/bin/python wheelhouse-ci/build_wheels.py $(TARGETS)

.PHONY: wheel-test
wheel-test: $(WHEELS)/built ## install each of these wheels and run a job (WHEEL_TEST="--newest --musl")
	@test -d wheelhouse || $(MAKE) --no-print-directory wheel-all
	@$(WHEELS)/bin/python wheelhouse-ci/test_wheels.py $(WHEEL_TEST) $(TARGETS)

.PHONY: wheel-same
wheel-same: $(WHEELS)/built ## build everything twice, and compare the bytes
	@$(WHEELS)/bin/python wheelhouse-ci/check_same.py $(TARGETS)

.PHONY: wheel-sbom
wheel-sbom: $(WHEELS)/built ## write down what the wheels consist of and were built with (CycloneDX)
	@$(WHEELS)/bin/python wheelhouse-ci/sbom.py wheelhouse

.PHONY: wheel-identifiers
wheel-identifiers: $(WHEELS)/built ## compare cibuildwheel's configuration with the list of targets
	@$(WHEELS)/bin/python wheelhouse-ci/check_identifiers.py

.PHONY: test-cibuildwheel
test-cibuildwheel: $(WHEELS)/built ## run cibuildwheel for manylinux x86_64, in an image that is made here
	@PYTHON=$(CURDIR)/$(WHEELS)/bin/python wheelhouse-ci/test-cibuildwheel

.PHONY: test-aarch64
test-aarch64: $(WHEELS)/built ## run the C tests, a job and Python tests with the wheel, on aarch64 under qemu
	@PYTHON=$(CURDIR)/$(WHEELS)/bin/python wheelhouse-ci/test-aarch64

.PHONY: clean
clean: ## remove everything that was built
	@rm -rf build dist wheelhouse $(VENV) $(TORCH) $(WHEELS) $(ZIG) docs/_build src/*.egg-info src/flamespawn/*.so
