# Everything runs from here on a fresh machine: each target builds .venv itself when it is missing.
# PYTHON may name another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help demo story test lint format docs pictures sbom bench bench-step bench-bounds bench-data bench-match bench-train campaign clean

help: ## Show these targets
	@grep -E '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.venv: $(VENV)/.complete ## Build the environment in .venv

$(VENV)/.complete: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dpmed needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,dicom,docs,onnx,tensorboard]'
	touch $@

demo: .venv ## Train the quickstart with differential privacy, start to end
	rm -rf build/demo
	$(BIN)/dpmed train quickstart --out build/demo

story: .venv ## Do all that docs/story.md tells, on phantoms, in build/story (minutes)
	$(BIN)/python -m tests.story build/story

test: .venv ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist loadscope

lint: .venv ## Check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv ## Generate the pages that follow from the code, and build the site in build/site
	$(BIN)/python -m dpmed.config.document docs
	$(BIN)/python -m dpmed.inference.description docs
	$(BIN)/python -m dpmed.data.layouts docs
	$(BIN)/python -m dpmed.cli.shared.document docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # --quiet would keep warnings from being counted

pictures: .venv ## Draw the pictures of the documentation anew (a minute or so)
	$(BIN)/python -m tests.pictures docs/pictures

bench: .venv ## Run all benchmarks; writes build/bench.json
	$(BIN)/python -m tests.benchmarks

bench-%: .venv
	$(BIN)/python -m tests.benchmarks $*

campaign: .venv ## Faults, kills, hostile inputs and large ones (docs/reliability.md); hours
	$(BIN)/python -m tests.campaign faults --seconds 7200
	$(BIN)/python -m tests.campaign kills --seconds 7200
	$(BIN)/python -m tests.campaign inputs --num 1000000 --seconds 14400
	$(BIN)/python -m tests.campaign load --seconds 7200

sbom: .venv ## Write what .venv holds, with versions and licences, to build/sbom.json (CycloneDX)
	test -x build/tools/bin/cyclonedx-py || { $(PYTHON) -m venv build/tools && build/tools/bin/python -m pip install \
	  --quiet --disable-pip-version-check --constraint constraints.txt cyclonedx-bom; }
	build/tools/bin/cyclonedx-py environment --output-reproducible --output-file build/sbom.json $(BIN)/python

clean: ## Remove what was built, runs excepted
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find dpmed tests -name __pycache__ -type d -prune -exec rm -rf {} +
