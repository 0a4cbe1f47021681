# What one types. `make` alone explains every target.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

TASK ?= boolq
MODEL ?=
SCHEDULE ?=
SEED ?=
GPUS ?=
ARGS ?=
DATA ?= data/trec
PROCESSES ?= 2
PARALLEL ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder
OVERRIDES = task=$(TASK) $(if $(MODEL),model=$(MODEL)) $(if $(SCHEDULE),schedule=$(SCHEDULE)) $(if $(SEED),seed=$(SEED)) $(if $(GPUS),engine.processes=$(GPUS)) $(ARGS)

# Bytecode is kept also where the environment says otherwise: a process then starts sooner.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help install run plan compare show test-fast test test-all test-lowest check format backbone real bench accept docs dist clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with fpt (editable) and everything it needs

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@echo "setting up $(VENV): a few minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(INSTALLED) ## train: make run TASK=boolq [MODEL=t5-large] [SCHEDULE=cr] [SEED=0] [GPUS=2] [ARGS="train.updates=500"]
	@$(BIN)/fpt train $(OVERRIDES)

plan: $(INSTALLED) ## price every stage before training, with run's variables
	@$(BIN)/fpt plan $(OVERRIDES)

compare: $(INSTALLED) ## schedules against vanilla prompt tuning: make compare TASK=boolq [ARGS="schedules=pt,cr seeds=0,1"]
	@$(BIN)/fpt compare task=$(TASK) $(if $(MODEL),model=$(MODEL)) $(if $(GPUS),engine.processes=$(GPUS)) $(ARGS)

show: $(INSTALLED) ## the task's data as the model sees them: make show TASK=mnli [ARGS="n=5"]
	@$(BIN)/fpt show $(OVERRIDES)

test-fast: $(INSTALLED) ## tests that train nothing and take no time, a minute on two cores
	$(BIN)/python -m pytest -m 'not trains and not dear and not slow' $(PARALLEL)

test: $(INSTALLED) ## tests but the slow ones, seven minutes on two cores
	$(BIN)/python -m pytest -m 'not slow' $(PARALLEL)

test-all: $(INSTALLED) ## every test
	$(BIN)/python -m pytest $(PARALLEL)

test-lowest: ## the fast tests and one run with the lowest versions that setup.cfg allows, in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest -m 'not trains and not dear and not slow' $(PARALLEL)
	.venv-lowest/bin/fpt train task=boolq train.updates=40 train.eval_every=20 resume=never run.dir=runs/lowest

check: $(INSTALLED) ## format, lint, strict types, import direction, Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -x $(BIN)/hadolint ]; then set -x; $(BIN)/hadolint Dockerfile; \
	else echo "Dockerfile: not checked, as there is no hadolint for this machine"; fi

format: $(INSTALLED) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

backbone: $(INSTALLED) ## train the embedded model again, an hour and more on two cores [PROCESSES=2; 1 for a GPU]
	$(BIN)/torchrun --nproc-per-node $(PROCESSES) -m pretraining.recipe $(ARGS)

real: $(INSTALLED) $(DATA)/train_5500.label $(DATA)/TREC_10.label ## SmolLM2 from PyPI learns TREC, minutes on a CPU [DATA=folder with TREC's two files]
	$(BIN)/python -m bench.real.convert models --only smollm2
	$(BIN)/fpt train task=trec task.data=$(DATA) model=models/smollm2 schedule=pt train.updates=150 train.batch_size=8 \
		train.eval_every=15 train.eval_examples=100 $(ARGS)

$(DATA)/%.label:
	curl --fail --silent --show-error --location --create-dirs --output $@ https://cogcomp.seas.upenn.edu/Data/QA/QC/$*.label

bench: $(INSTALLED) ## speed and memory against PEFT and between stages, ten minutes [ARGS="--only update,padding"]
	$(BIN)/python -m bench.speed $(ARGS)

accept: $(INSTALLED) ## what is right and how fast on one GPU, a line of JSON a step [ARGS="--steps updates"]
	$(BIN)/python -m bench.accept $(ARGS)

docs: $(INSTALLED) ## the site of docs/, into site/; installs mkdocs-material the first time
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt mkdocs mkdocs-material
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: $(INSTALLED) ## wheel and sdist, into dist/; the wheel, in an empty environment, trains, exports and serves
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt build
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	PYTHON=$(PYTHON) .ci/smoke dist/*.whl

clean: ## remove .venv and caches; runs stay
	rm -rf $(VENV) .venv-lowest build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
