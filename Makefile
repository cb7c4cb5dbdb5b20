# Everything from a bare machine with Python 3.11 or newer: `make quickstart` or `make test`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/shapes
PICTURES ?= pictures
BIN := $(VENV)/bin

# uv reads its own name for the folder of wheels that pip may have been told of.
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_FIND_LINKS
# Where it is set, every process would compile all it imports, for 5 seconds; and all compiled here, which is four times
# what is ever imported, would take a minute and a half.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

.PHONY: help setup quickstart test lessons-toy lint docs lessons bench constraints

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/test.stamp ## install fromnoise, and all that its tests need, in .venv

quickstart: ## install, train the shapes recipe, draw four prompts, measure adherence
	@set -e; start=$$SECONDS; \
	$(MAKE) --no-print-directory $(VENV)/base.stamp; \
	$(BIN)/fromnoise train shapes --directory $(RUN); \
	$(BIN)/fromnoise sample $(RUN) --grid --out $(PICTURES) \
	  "a red circle left of a blue square" "two green triangles" \
	  "a large yellow star" "a small purple ring and a large black cross"; \
	$(BIN)/fromnoise evaluate $(RUN); \
	took=$$((SECONDS - start)); \
	printf 'quickstart took %d min %02d s\n' $$((took / 60)) $$((took % 60))

test: $(VENV)/test.stamp ## install, then run all tests but the lessons
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lessons-toy: $(VENV)/test.stamp ## run the seven lessons at toy size, with their solutions
	$(BIN)/python -m tests.lessons.solved build/lessons
	FROMNOISE_TOY=1 PYTHONPATH=$(CURDIR)/lessons OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal \
	  --nbmake --nbmake-timeout 600 build/lessons

lint: $(VENV)/test.stamp ## check style, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --warnings
	$(BIN)/lint-imports

docs: $(VENV)/test.stamp ## build the site in build/docs/site
	$(BIN)/python docs/build.py

bench: $(VENV)/test.stamp ## measure training and sampling beside diffusers
	$(BIN)/python -m benchmarks.speed

lessons: $(VENV)/test.stamp ## execute the seven lessons anew at full size, outputs and minutes written
	$(BIN)/python -m benchmarks.lessons

constraints: $(BIN)/uv ## compile constraints.txt anew
	echo uv | $(BIN)/uv pip compile --quiet --no-annotate --no-header --all-extras --upgrade \
	  --no-emit-index-url --no-emit-find-links pyproject.toml - | sed "s/+cpu$$//; s/^torch==.*/&; sys_platform != 'darwin'/" > constraints.new
	mv constraints.new constraints.txt

$(BIN)/uv: | constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv

$(VENV)/base.stamp: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable .
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/base.stamp
