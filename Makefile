# Works in a fresh clone: `make demo` and `make test` create .venv if it is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEMO_STORE ?= data/store
# Most of the packages that encoding builds on, and checks of documents and messages.
QUICK := test_architecture.py core media store sources crawl index search evaluate docs cli/test_flags.py
# The pinned versions may have no wheels for a Python that is newer than the tested ones.
CONSTRAINED = $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" * (sys.version_info < (3, 14)))')

.PHONY: help setup demo quick test lint types unit coverage torture bench gpu docs constraints model clean

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mmindex needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(CONSTRAINED) -e '.[dev]'
	@touch $@

setup: $(STAMP) ## Create .venv with everything needed to run and test mmindex

demo: $(STAMP) ## Draw 2,000 scenes, index them, measure recall, run three queries and write a gallery
	@$(BIN)/mmindex build --store $(DEMO_STORE)
	@$(BIN)/mmindex evaluate --store $(DEMO_STORE)
	@for question in "a red boat on the sea" "two trees in the snow"; do \
	    echo; echo "\$$ mmindex query \"$$question\" -k 5"; \
	    $(BIN)/mmindex query "$$question" -k 5 --store $(DEMO_STORE); done
	@echo; echo "\$$ mmindex query \"a cat left of a blue house\" -k 24 --html $(DEMO_STORE)-gallery.html"
	@$(BIN)/mmindex query "a cat left of a blue house" -k 24 --store $(DEMO_STORE) --html $(DEMO_STORE)-gallery.html
	@echo; echo "Open $(abspath $(DEMO_STORE))-gallery.html in a browser, or search in the browser:"
	@echo "\$$ $(BIN)/mmindex serve --store $(DEMO_STORE) --open"

quick: lint types ## Run ruff, mypy and the fast tests (for use while you edit)
	$(BIN)/pytest -q -n auto --dist loadfile -m 'not slow' $(addprefix tests/,$(QUICK))

test: lint types unit ## Run everything that CI checks: ruff, mypy --strict and pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/pytest -n auto --dist loadfile --ignore=tests/torture
	$(BIN)/pytest -n auto --dist worksteal tests/torture

coverage: $(STAMP) ## Measure which lines and branches the tests run; writes pages to htmlcov/
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n auto --dist loadfile --ignore=tests/torture
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report --format=total

torture: $(STAMP) ## Test every kill, I/O error, power loss and damage (an hour on two cores)
	MMINDEX_TORTURE=full $(BIN)/pytest -n 2 --dist worksteal tests/torture

bench: $(STAMP) ## Measure speed and compare it with other programs; BENCH=full for large cases (hours)
	@failed=; for script in benchmarks/bench_*.py; do echo "== $$script"; \
	    $(BIN)/python "$$script" || failed="$$failed $$script"; done; \
	    test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

gpu: $(STAMP) ## Check and measure encoding and indexing on a GPU (8 minutes)
	$(BIN)/python benchmarks/gpu_check.py

docs: $(STAMP) ## Update docs/settings.md from the settings in the code
	$(BIN)/python docs/settings.py

constraints: ## Recreate .venv with the newest releases and write their versions to constraints.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	grep '^#' constraints.txt > constraints.new
	$(BIN)/pip freeze --exclude-editable >> constraints.new
	mv constraints.new constraints.txt
	@touch $(STAMP)
	@echo "Now run make test, and commit constraints.txt if it passes."

model: $(STAMP) ## Train the embedded model again (40 minutes on two cores with AMX)
	$(BIN)/mmindex train --model embedded --pretrained none --vocabulary 2000 \
	    --source scenes:160000@4294967296 --validate scenes:1000@4294967297 \
	    --steps 1400 --batch-size 256 --learning-rate 1.5e-3 --warmup-steps 100 --crop-scale 1 \
	    --every 100 --half --overwrite --out data/models/scenes-clip
	$(BIN)/mmindex train --decoder --source scenes:12000@4294967300 \
	    --validate scenes:40@4294967301 --steps 2600 --batch-size 32 --learning-rate 1.2e-3 \
	    --warmup-steps 150 --weight-decay 0.05 --overwrite --out data/models/scenes-clip

clean: ## Remove .venv and caches (not the store)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage* htmlcov dist
