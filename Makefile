.DEFAULT_GOAL := help
.PHONY: help train test test-slow test-gpu test-anywhere test-oldest fuzz mutants lint types unused coverage check release-check docs package sbom glyphs benchmark clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Written when the environment is complete; remade only when the project's requirements change.
READY := $(VENV)/.ready
# A second environment, of the oldest release of everything that pyproject.toml admits.
OLDEST := .venv-oldest

help:  ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "finetune needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	@echo 'Installing finetune with torch and all that its tests need into $(VENV): some minutes, and gigabytes.'
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

train: $(READY)  ## train the quickstart: handwritten digits, nothing to download
	$(BIN)/finetune train configs/quickstart.yaml

test: $(READY)  ## run the tests, but for the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=10

test-slow: $(READY)  ## run the slow tests: all 80 architectures, whole trainings
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=10 -m slow

test-gpu: $(READY)  ## run what can only be seen on a GPU; skipped where there is none
	$(BIN)/python -m pytest -m gpu -rs --durations=10

# HOME is a file, so that nothing can be written below it.
test-anywhere: $(READY)  ## run the tests in random order, from another folder, with LANG=C and no HOME
	cd / && LANG=C LC_ALL=C HOME=/dev/null COLUMNS=43 $(CURDIR)/$(BIN)/python -m pytest -n 3 \
		--rootdir $(CURDIR) -c $(CURDIR)/pyproject.toml -p no:cacheprovider --random-order $(CURDIR)/tests

# Old releases call what newer ones of their own requirements deprecate: nothing that this project can change.
test-oldest: $(OLDEST)/.ready  ## run the tests with the oldest versions that pyproject.toml admits
	$(OLDEST)/bin/python -m pytest -n 2 --dist worksteal -W ignore::DeprecationWarning

$(OLDEST)/.ready: pyproject.toml scripts/oldest.py
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(PYTHON) scripts/oldest.py test timm > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[test,timm]'
	@touch $@

fuzz: $(READY)  ## run the fuzzers of all readers for a time, each round with a fresh seed (MINUTES=60)
	$(BIN)/python scripts/fuzz.py $(or $(MINUTES),10)

# `make mutants SAMPLE=150 SEED=1` tries some of them: mutmut is run twice, first for a name that no mutant has.
mutants: $(READY)  ## change the parts without I/O, and print the share of changes that the tests notice (hours; SAMPLE=150: some)
	rm -rf mutants
	$(if $(SAMPLE),-OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2 none)
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2 \
		$(if $(SAMPLE),`$(BIN)/python scripts/sample_mutants.py $(SAMPLE) --seed $(or $(SEED),0)`)
	$(BIN)/mutmut export-cicd-stats
	$(BIN)/python scripts/share_killed.py mutants/mutmut-cicd-stats.json

lint: $(READY)  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## check types
	$(BIN)/mypy

unused: $(READY)  ## find code and dependencies that nothing uses
	$(BIN)/vulture
	$(BIN)/deptry --no-ansi .

# Of the quick tests alone: the slow ones train all architectures, and would take hours under a tracer.
coverage: $(READY)  ## print the share of lines and branches that the quick tests run, in all processes; below a floor it fails
	$(BIN)/python -m coverage erase
	-COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/python -m coverage run -m pytest -n 2 --dist worksteal
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

check: lint types unused test test-slow  ## everything that a change must pass

release-check: check docs package test-anywhere test-oldest coverage  ## all that a release must pass, with an hour of fuzzing and a sample of mutants (hours)
	$(MAKE) fuzz MINUTES=60
	$(MAKE) mutants SAMPLE=150

docs: $(READY)  ## build the documentation, strictly: build/site/index.html, and the manual page build/man/finetune.1
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs build/site
	$(BIN)/sphinx-build --fail-on-warning --quiet -b man docs build/man

package: $(READY)  ## build the package, install it into a new environment, and try it outside of the repository (minutes)
	$(BIN)/python scripts/check_package.py

sbom: $(READY)  ## write what is installed here, with versions and licences, as CycloneDX: build/sbom.json
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet cyclonedx-bom
	build/sbom/bin/cyclonedx-py environment $(BIN)/python --output-file build/sbom.json

glyphs: $(READY)  ## train the built-in weights anew (minutes)
	$(BIN)/python scripts/pretrain_glyphs.py

benchmark: $(READY)  ## print every figure that the README quotes
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/claims.py

clean:  ## remove the environment and caches
	rm -rf $(VENV) $(OLDEST) mutants build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
