# Works on a fresh clone: `make demo` and `make test` set up .venv by themselves.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEMO_STORE ?= data/store
# Most of the packages below encoding, and what holds documents and messages together.
QUICK := test_architecture.py core media store sources crawl index search evaluate docs cli/test_flags.py
# A newer Python than those tested may have no wheels of the pinned versions.
CONSTRAINED = $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" * (sys.version_info < (3, 14)))')

.PHONY: help setup demo quick test lint types unit coverage torture bench docs constraints model clean

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mmindex needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(CONSTRAINED) -e '.[dev]'
	@touch $@

setup: $(STAMP) ## Make .venv with everything that running and testing needs

demo: $(STAMP) ## Draw 2,000 scenes, index them, measure recall, ask three questions, write a gallery
	@$(BIN)/mmindex build --store $(DEMO_STORE)
	@$(BIN)/mmindex evaluate --store $(DEMO_STORE)
	@for question in "a red boat on the sea" "two trees in the snow"; do \
	    echo; echo "\$$ mmindex query \"$$question\" -k 5"; \
	    $(BIN)/mmindex query "$$question" -k 5 --store $(DEMO_STORE); done
	@echo; echo "\$$ mmindex query \"a cat left of a blue house\" -k 24 --html $(DEMO_STORE)-gallery.html"
	@$(BIN)/mmindex query "a cat left of a blue house" -k 24 --store $(DEMO_STORE) --html $(DEMO_STORE)-gallery.html
	@echo; echo "Open $(abspath $(DEMO_STORE))-gallery.html in a browser, or search there yourself:"
	@echo "\$$ $(BIN)/mmindex serve --store $(DEMO_STORE) --open"

quick: lint types ## What to run while editing: ruff, mypy and the fast tests
	$(BIN)/pytest -q -n auto --dist loadfile -m 'not slow' $(addprefix tests/,$(QUICK))

test: lint types unit ## Everything that CI checks: ruff, mypy --strict, pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/pytest -n auto --dist loadfile --ignore=tests/torture
	$(BIN)/pytest -n auto --dist worksteal tests/torture

coverage: $(STAMP) ## Measure which lines and branches the tests run; pages in htmlcov/
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n auto --dist loadfile --ignore=tests/torture
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report --format=total

torture: $(STAMP) ## Kill, starve and damage it at every point (an hour on two cores)
	MMINDEX_TORTURE=full $(BIN)/pytest -n 2 --dist worksteal tests/torture

bench: $(STAMP) ## Measure beside the bounds and the peers; BENCH=full for the large cases (hours)
	@failed=; for script in benchmarks/bench_*.py; do echo "== $$script"; \
	    $(BIN)/python "$$script" || failed="$$failed $$script"; done; \
	    test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

docs: $(STAMP) ## Write docs/settings.md again from the settings in the code
	$(BIN)/python docs/settings.py

constraints: ## Make .venv anew from the newest releases and write their versions to constraints.txt
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
	    --validate scenes:40@4294967301 --steps 2000 --batch-size 64 --learning-rate 1.5e-3 \
	    --warmup-steps 100 --weight-decay 0.05 --overwrite --out data/models/scenes-clip

clean: ## Remove .venv and caches (not the store)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage* htmlcov dist
