# `make lab` to learn, `make test` to be sure. Both set everything up first; `make help` lists the rest.
# Works with GNU make 3.81 and newer. Anything you may set stands after the name of the target: make run LESSON=01 SCALE=cpu

LESSON ?= 01
DATA ?=
SCALE ?=
ARGS ?=
NEW ?=
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# FRESH=1 takes the newest releases that pyproject.toml admits instead of those in constraints.txt.
export FRESH ?=
PINS := $(if $(FRESH),,--constraint constraints.txt)
CPU_WHEELS := https://download.pytorch.org/whl/cpu

# Two busy OpenMP processes on few cores spin against each other unless idle threads sleep. torch reads this when it
# is imported, so it stands here and every kernel inherits it.
export OMP_WAIT_POLICY := PASSIVE

# What a test run must not depend on: other threads, the network, the learner's switches, the learner's cache.
TEST_ENV = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 LESSONS_SCALE=smoke LESSONS_DATA=scenes LESSONS_HEADLESS=1
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile
NBVAL = $(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout=120

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-long run claims bench mutants rehearse format notebooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make .venv with everything in it (once, about two minutes)
	@:

lab: setup ## open your own copy of a lesson in JupyterLab (LESSON=01 NEW=1 ARGS="--no-browser")
	$(BIN)/python -m lessons lab $(LESSON) $(if $(filter 1,$(NEW)),--new) -- $(ARGS)

test: setup ## run all tests: units, exercises, every notebook and its 45-minute cut, every solved exercise
	@cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT INT TERM && \
	export LESSONS_CACHE_DIR="$$cache" $(TEST_ENV) && \
	rm -rf build/test && $(PYTEST) tests && \
	set -- notebooks/*.ipynb && \
	if [ -e "$$1" ]; then \
		$(BIN)/python -m lessons cut all --out build/test/cut && \
		$(NBVAL) notebooks/*.ipynb build/test/cut/*.ipynb && \
		$(BIN)/python -m lessons solve all --out build/test/solved && \
		LESSONS_STRICT=1 $(NBVAL) build/test/solved/*.ipynb; \
	else echo "No notebooks yet: nothing more to test."; fi

test-long: setup ## run the tests that `make test` leaves out, because they take long
	@cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT INT TERM && \
	LESSONS_CACHE_DIR="$$cache" $(TEST_ENV) $(PYTEST) -m long tests
	$(BIN)/python -m tests.mutants
	$(BIN)/python -m tests.matrix

run: setup ## run a lesson without a browser (LESSON=01 SCALE=cpu DATA=auto); result in build/
	$(BIN)/python -m lessons run $(LESSON) $(if $(SCALE),--scale $(SCALE)) $(if $(DATA),--data $(DATA))

claims: setup ## run all lessons at cpu scale and hold every claim to the reference records (DATA=scenes)
	$(BIN)/python -m lessons run all --scale cpu $(if $(DATA),--data $(DATA)) --hold

bench: setup ## measure the helper package side by side with its peers
	@$(BIN)/python -m pip install --quiet $(PINS) --editable '.[bench]'
	@for file in tests/bench/bench_*.py; do \
		OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.$$(basename "$$file" .py) || exit 1; \
	done

mutants: setup ## write realistic bugs into a copy of the code, one by one: each must fail a test (ARGS="--only probe")
	@$(BIN)/python -m tests.mutants $(ARGS)

rehearse: setup ## count what gpu scale computes and needs, without a GPU (ARGS="01 02"; several minutes a lesson)
	@$(BIN)/python -m tests.rehearse $(ARGS)

format: setup ## format and lint the code
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

notebooks: setup ## carry notebooks/source/*.py over to notebooks/*.ipynb; outputs of unchanged cells stay
	$(BIN)/python -m lessons sync

clean: ## remove what can be made again: .venv, caches of the tools (data/ stays, and build/ with your runs and cuts)
	rm -rf $(VENV) build/lib build/bdist.* *.egg-info .pytest_cache .ruff_cache
	find . -path ./notebooks/mine -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that belongs to another path (the checkout was moved or copied) is set up again.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

# Interrupted at any point, the next call goes on: .unfinished marks an environment still being created, a package
# without INSTALLER (pip writes it last) was only half copied, and .ready is written at the very end.
$(READY): pyproject.toml constraints.txt
	@set -e; \
	place=$$(cat $(READY) 2>/dev/null || echo "$(CURDIR)"); \
	if [ -e $(VENV)/.unfinished ] || [ "$$place" != "$(CURDIR)" ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
			if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "No Python 3.11 or newer found as $(or $(PYTHON),python3). Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; \
		fi; \
		echo "Making $(VENV) with $$("$$found" --version) ..."; \
		rm -rf $(VENV); mkdir $(VENV); touch $(VENV)/.unfinished; \
		"$$found" -m venv $(VENV); \
		rm $(VENV)/.unfinished; \
	fi
	@rm -f $(READY)
	@for package in $(VENV)/lib/python*/site-packages/*.dist-info; do \
		[ -e "$$package/INSTALLER" ] || rm -rf "$$package"; \
	done
	@echo "Installing PyTorch ..."
	@set -e; index=; \
	if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && $(BIN)/python -c \
		'import signal, urllib.request as u; signal.alarm(3); u.urlopen("$(CPU_WHEELS)/torch/")' >/dev/null 2>&1; \
	then index="--extra-index-url $(CPU_WHEELS)"; fi; \
	$(BIN)/python -m pip install --quiet $(PINS) $$index torch torchvision
	@echo "Installing JupyterLab and the rest ..."
	@$(BIN)/python -m pip install --quiet $(PINS) --editable '.[dev]'
	@printf '%s' "$(CURDIR)" > $(READY)
	@echo "Ready."
