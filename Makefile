# Two commands do it all on a machine with Python >= 3.11 and make: `make repro` and `make test`.
# In an environment made by hand, bare `dvc repro`, `papermill` and `jupyter lab` work as well.
SHELL    := /bin/bash
PYTHON   ?= python3
PIP_ARGS ?=
LAB_ARGS ?=
PROFILE  ?= mini
BIN      := $(CURDIR)/.venv/bin
SUM       = $(shell cat pyproject.toml constraints.txt Makefile | cksum | tr ' ' '-')
STAMP     = .venv/installed-$(SUM)
EXTRAS    = .venv/extras-$(SUM)
INSTALL   = .venv/bin/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
# A download without .git: dvc is told once that there is no git.
DVC      := { test -e .git || grep -qs no_scm .dvc/config.local || dvc config --local core.no_scm true; } && dvc
export PATH := $(BIN):$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1

.PHONY: help setup extras repro smoke study study-all paper test test-fast lint lab tune bench site doctor clean

help:
	@echo "make repro      everything: set up, then every figure and table of profile mini (results/mini)"
	@echo "make test       lint and all tests, notebooks and the smoke pipeline included"
	@echo "make smoke      the whole pipeline in two minutes (results/smoke)"
	@echo "make study      the evidence: what the claims compare, six seeds on real images, a night on two cores (results/study)"
	@echo "make study-all  every other row of the study and its notebooks, too: days"
	@echo "make paper      the papers' sizes; wants a GPU (results/paper)"
	@echo "make lab        JupyterLab with the right kernel"
	@echo "make tune       search every row's recipe on the validation split (results/tuning)"
	@echo "make bench      speed beside snnTorch, spikingjelly and the floor (results/bench)"
	@echo "make site       the pages with the executed notebooks, after make repro (_site)"
	@echo "make extras     the optional packages, which make test installs by itself (pip extras: bench, cifar, cluster, events)"
	@echo "make test-fast  the tests of a minute"
	@echo "make doctor     explain and repair a damaged store or pipeline"
	@echo "make clean      remove the environment and drafts; trained results in .slt stay"
	@echo "Variables: PYTHON=python3.12   PIP_ARGS='--index-url ...'   PROFILE=smoke (of make site)   LAB_ARGS='--no-browser'"

setup: $(STAMP)

# The stamp's name holds a checksum of what was asked for, so a changed pin installs again.
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python >= 3.11 is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Say make PYTHON=python3.11"; exit 1; }
	@test -x .venv/bin/pip || $(PYTHON) -m venv .venv || { \
	  rm -rf .venv; echo "$(PYTHON) cannot make environments; on Debian: apt install python3-venv"; exit 1; }
	$(INSTALL) -e '.[test]'
	.venv/bin/python -m sltlib kernel
	@rm -f .venv/installed-* && touch $(STAMP)

# Optional packages: `make test` tests with them, and builds the site; `make bench` times spikingjelly. Without
# --no-deps spikingjelly wants torchvision and torchaudio, which it does not use here.
extras: $(EXTRAS)

$(EXTRAS): $(STAMP)
	$(INSTALL) -e '.[test,bench,cifar,cluster,events,site]'
	$(INSTALL) --no-deps spikingjelly==2.0.0
	@rm -f .venv/extras-* && touch $(EXTRAS)

repro: setup
	$(DVC) repro

# Its lock says nothing that is worth a commit, and DVC wants no lock that git ignores.
smoke: setup
	$(DVC) repro smoke/dvc.yaml; status=$$?; rm -f smoke/dvc.lock; exit $$status

# Every step goes on where it was stopped, and needs nothing but the data and time. Of recipes that are in git `tune` trains nothing.
study: setup
	python -m sltlib tune --profile study --notebook 08
	python -m sltlib train --profile study --primary
	python -m sltlib claims --profile study
	python -m sltlib readme

study-all: study
	python -m sltlib tune --profile study
	python -m sltlib train --profile study
	dvc repro study/dvc.yaml
	python -m sltlib readme

paper: setup
	$(DVC) repro paper/dvc.yaml

test: extras lint
	pytest -q -n auto --maxprocesses 4 --dist worksteal -m "slow or not slow"

test-fast: setup
	pytest -q

lint: setup
	ruff check -q .

lab: setup
	jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00_spiking_neuron.ipynb $(LAB_ARGS)

tune: setup
	python -m sltlib tune --anew

bench: extras
	python -m bench; status=$$?; python -m bench.packed && exit $$status

# No notebook runs for it, and no page reaches the network.
site: setup
	$(INSTALL) -e '.[site]'
	python docs/make_site.py --profile $(PROFILE)

doctor: setup
	python -m sltlib doctor --fix

clean:
	rm -rf .venv results/draft results/smoke
