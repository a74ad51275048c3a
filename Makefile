# make demo: train, tune, grade and report on made-up data.   make test: the slow tests too.   make soak: those of minutes each.
# make lint.   make docs: the pages, in site/.   make clean.
# The first of them sets up .venv with the first Python 3.11 or newer that can; another one: make test PYTHON=/path/to/python3
SHELL := /bin/bash
PYTHON ?= $(shell for python in python3 python3.{13,12,11}; do \
	  $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
export OMP_NUM_THREADS ?= 1

.PHONY: demo test soak lint docs clean

demo: .venv/installed
	.venv/bin/m3dspy demo

test: .venv/installed
	.venv/bin/pytest -q -n $$(($$(env -u OMP_NUM_THREADS nproc) + 1)) --dist loadfile --no-loadscope-reorder -m 'not gpu and not soak'

soak: .venv/installed
	.venv/bin/pytest -q -m soak

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright --pythonpath .venv/bin/python

docs: .venv/installed
	.venv/bin/mkdocs build --strict --quiet

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "m3dspy needs Python 3.11 or newer with venv; none was found. On Debian: apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --quiet --no-compile -e '.[dev]'
	.venv/bin/python -m compileall -qq -j 0 .venv/lib || true   # as pip does, by all cores; some files are no Python 3
	touch $@
