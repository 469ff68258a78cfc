# The environment lives in .venv and caches in .venv/cache: nothing outside this folder is touched, except pip's cache.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := $(CURDIR)/.venv
STAMP := .venv/.complete
TABLE := results/quickstart/tables/errors.md
REPORT := results/quickstart/report.html
# UV=uv installs with uv, which knows nothing of pip's settings.
INSTALL := $(if $(UV),$(UV) pip install --quiet --python .venv/bin/python,.venv/bin/python -m pip install --quiet --no-compile)
# pip keeps its own cache; the tools that run later keep theirs here.
LOCAL := env PATH="$(VENV)/bin:$$PATH" XDG_CACHE_HOME="$(VENV)/cache" MPLCONFIGDIR="$(VENV)/cache/matplotlib"

.PHONY: help quickstart test test-cluster test-faults check clean

help:  ## show this help
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 14

quickstart: $(STAMP)  ## set up, run the default study, print its table and the path of its report
	@$(LOCAL) snakemake --cores all
	@echo
	@cat $(TABLE)
	@echo
	@echo "Report: $(CURDIR)/$(REPORT)"

test: $(STAMP)  ## set up, run the tests
	@$(LOCAL) pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-cluster: $(STAMP)  ## set up, run a small study through a real Slurm on this machine, with mishaps
	@tests/cluster/install.sh
	@$(LOCAL) pytest -vv -m cluster tests/cluster

test-faults: $(STAMP)  ## set up, kill stages of a small study, fill its disk, damage its files: it ends with the same bytes
	@$(LOCAL) pytest -vv -m faults tests/faults

check: $(STAMP)  ## set up, check format, lint and types of Python and Snakemake files
	@$(LOCAL) ruff format --check .
	@$(LOCAL) ruff check .
	@$(LOCAL) mypy
	@$(LOCAL) snakefmt --check Snakefile workflow

clean:  ## remove .venv and caches; results stay
	rm -rf .venv .snakemake .hypothesis .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find ddis tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an environment without it was left half-made, and is made anew. constraints.txt is the whole
# environment, so nothing is resolved; only what torch asks for on a machine with CUDA is left to pip. Modules are compiled by all
# cores, the tests of other packages not at all; ours too, for every job would compile them where Python is not to write.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: ddis needs Python 3.11 or newer, found $$($(PYTHON) --version 2>&1 || true); try: make PYTHON=python3.12" >&2; exit 1; }
	@test -e $@ || $(PYTHON) -m venv --clear .venv || { \
	  echo "error: $(PYTHON) cannot make a virtual environment; on Debian install python3-venv" >&2; exit 1; }
	@rm -f $@
	@echo "Installing the packages of constraints.txt into .venv ..."
	@$(INSTALL) --no-deps -r constraints.txt
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@.venv/bin/python -m compileall -q -j 0 -x '/tests/' .venv/lib ddis >/dev/null || true
	@.venv/bin/python -m pip check >/dev/null || $(INSTALL) --no-build-isolation -c constraints.txt -e '.[dev]'
	@touch $@
