# `make help` lists the targets. Every target builds its own environment in .venv first, once.

PYTHON ?= python3
STUDY ?=
REMOTE ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PENULTIMATE := $(BIN)/penultimate
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format bench extract probe fine-tune scratch join report run status \
        cache-push cache-pull cache-verify readme constraints clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Three stamps: a colleague who has the features needs no torch, and people who only look at the demo do not
# need the tools of those who change the code. Whoever has a fuller environment already uses that.
CACHED := $(firstword $(wildcard $(VENV)/demo.stamp) $(VENV)/base.stamp)

$(VENV)/base.stamp: pyproject.toml constraints.txt
	@echo "building $(VENV) with what cached features need: no torch"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/demo.stamp: pyproject.toml constraints.txt
	@echo "building $(VENV): torch and its companions are several GB, this takes a few minutes once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable ".[demo]"
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt
	@echo "building $(VENV) with the tools for development: this takes a few minutes once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable ".[dev]"
	@touch $(VENV)/demo.stamp $@

demo: $(VENV)/demo.stamp ## run the demo into runs/demo: 3 backbones, 3 image sets, 3 regimes, a report
	@$(PENULTIMATE) demo

test: $(VENV)/dev.stamp ## run the tests, but for the slow ones
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadgroup

test-slow: $(VENV)/dev.stamp ## run the slow tests
	@$(BIN)/python -m pytest -m slow

check: $(VENV)/dev.stamp ## lint and type-check
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/dev.stamp ## format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(VENV)/dev.stamp ## measure extraction, probes, training and cache beside the plain way to do them
	@for stage in extract probe train cache; do $(PENULTIMATE) bench $$stage || exit 1; done

# The stages of a study: make extract STUDY=study.toml, with options of the command as ARGS="--yes --jobs 4"
define stage
	@test -n "$(STUDY)" || { echo "which study? make $@ STUDY=path/to/study.toml" >&2; exit 2; }
	@$(PENULTIMATE) $(1) "$(STUDY)" $(ARGS)
endef

define share
	@test -n "$(REMOTE)" || { echo "where? make $@ REMOTE=URL, a folder or s3://, gs://, sftp://, hf://" >&2; exit 2; }
	@$(PENULTIMATE) cache $(1) "$(REMOTE)" $(if $(STUDY),--study "$(STUDY)") $(ARGS)
endef

extract: $(VENV)/demo.stamp ## stage one of STUDY=...: features into the cache
	$(call stage,extract)

probe: $(CACHED) ## stage two of STUDY=...: linear probes from cached features
	$(call stage,probe)

fine-tune: $(VENV)/demo.stamp ## stage three of STUDY=...: fine-tuning
	$(call stage,fine-tune)

scratch: $(VENV)/demo.stamp ## stage three of STUDY=...: training from scratch
	$(call stage,scratch)

join: $(CACHED) ## stage three of STUDY=...: scores, statistics, figures, report
	$(call stage,join)

report: join ## join, and say how to open the report of STUDY=...
	@echo "open the report.html named above in a browser; it needs no network"

cache-push: $(CACHED) ## copy what STUDY=... needs (else everything) from the cache to REMOTE=...
	$(call share,push)

cache-pull: $(CACHED) ## copy what STUDY=... needs (else everything) from REMOTE=... into the cache
	$(call share,pull)

cache-verify: $(CACHED) ## check every byte of the cache (of STUDY=...)
	@$(PENULTIMATE) cache verify $(if $(STUDY),--study "$(STUDY)") $(ARGS)

run: $(VENV)/demo.stamp ## all stages of STUDY=...
	$(call stage,run)

status: $(CACHED) ## how far STUDY=... is
	$(call stage,status)

readme: $(VENV)/demo.stamp ## run the demo and put its table and figure into the README
	@$(BIN)/python -m pipeline.readme

constraints: $(VENV)/dev.stamp ## write the versions installed now into constraints.txt
	@{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove .venv and caches of tools; results in runs/ and cached features stay
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
