# Firstread: `make` lists what there is. Every target ends by itself but demo and up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help env system demo up test test-data faults fuzz check audit bench import-full compact-bundle model-results kill-test docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(READY) ## make .venv with every version pinned; quick when it is up to date

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3.11 python3.11-venv"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get install -y -q python3.11-venv; } \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q python3.11-venv; } \
		|| { echo "Python cannot make environments: apt-get install python3.11-venv"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade -c constraints.txt pip setuptools
	$(BIN)/python -m pip install -q -c constraints.txt --build-constraint constraints.txt -e '.[dev]'
	@touch $@

system: ## install the Debian packages that only tests use; quiet where they are there
	@missing=; \
	command -v storescu >/dev/null || missing="$$missing dcmtk"; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	command -v docker-compose >/dev/null || missing="$$missing docker-compose"; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	command -v faketime >/dev/null || missing="$$missing faketime"; \
	command -v nft >/dev/null || missing="$$missing nftables"; \
	command -v ip >/dev/null || missing="$$missing iproute2"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q >/dev/null && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
	else echo "Tests that need them will fail; install:$$missing"; fi

demo: env ## the whole stack with a simulated scanner; Ctrl-C ends it
	@exec $(BIN)/firstread demo

up: env ## the whole stack, waiting for your scanner; Ctrl-C ends it
	@exec $(BIN)/firstread up

test: env system ## every test that needs nothing but this clone
	$(BIN)/python -m pytest -m "not data and not faults"

test-data: env ## tests that read the real images of FIRSTREAD_TEST_DATA
	$(BIN)/python -m pytest -m "data and not faults"

faults: env system ## pull every plug while scanners send, and print what was counted (half an hour; as root)
	@mkdir -p build && rm -f build/faults.csv
	@trap : INT TERM; FIRSTREAD_FAULT_TABLE=build/faults.csv $(BIN)/python -m pytest --timeout 1800 tests/faults; status=$$?; \
	[ ! -f build/faults.csv ] || $(BIN)/python -m tests.faults.tally build/faults.csv; exit $$status

FUZZ_S ?= 60
fuzz: env ## fuzz header check, pixel reader and UIDs by coverage, FUZZ_S seconds each (atheris)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install -q -c constraints.txt -e '.[fuzz]'
	@status=0; for target in header pixels uid; do \
		$(BIN)/python -m tests.fuzzing.run $$target $(FUZZ_S) || status=1; done; exit $$status

check: env ## lint (security rules too), format, types, import rules, pins and licences
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m tests.dependencies

audit: env ## ask the advisory databases about every pinned version (needs the internet)
	$(PYTHON) -m venv build/audit && build/audit/bin/pip install -q pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

bench: env ## print the benchmarks' ratios; Orthanc and DCMTK are compared with where installed
	@for file in $$(grep -l '^def main' bench/*.py); do $(BIN)/python -m "bench.$$(basename "$$file" .py)" || exit 1; done

import-full: env ## import a random checkpoint of MedImageInsight's full size and run it (6 GB, minutes)
	$(BIN)/python -m bench.medimageinsight --full-import $${TMPDIR:-/tmp}/firstread-import-full

DATA ?= ../shared/data
OUT ?= runs
BUNDLE ?= chest_xray_compact
compact-bundle: env ## train, measure and pack the shipped chest bundle from DATA into OUT (hours)
	$(BIN)/python -m model.training.compact --data $(DATA)/cxr --out $(OUT)/compact
	$(BIN)/python -m model.training.compact --data $(DATA)/cxr --out $(OUT)/compact_second --begin-with $(OUT)/compact
	$(BIN)/python -m model.training.finish_compact --data $(DATA)/cxr --out $(OUT)/compact $(OUT)/compact_second --bundle $(OUT)/chest_xray_compact-1.2.0
	$(BIN)/python -m model.training.gate --data $(DATA) --out $(OUT)/gate
	$(BIN)/python -m model.training.gate --data $(DATA) --out $(OUT)/gate --test
	$(BIN)/python -m model.training.gate_packing $(OUT)/gate $(OUT)/chest_xray_compact-1.2.0

model-results: env ## make every table of docs/model_results.md for BUNDLE from DATA into OUT (hours)
	$(BIN)/firstread train manifest cxr $(DATA)/cxr --dataset nih_cxr14 --boxes $(DATA)/boxes/boxes.csv --out $(OUT)/nih.csv
	$(BIN)/firstread train features $(OUT)/nih.csv --bundle $(BUNDLE) --out $(OUT)/features
	$(BIN)/firstread train transfer --features $(OUT)/features --look-at-test --out $(OUT)/transfer
	$(BIN)/firstread train finetune $(OUT)/nih.csv --bundle $(BUNDLE) --lr 1e-4 --epochs 3 --out $(OUT)/tuned
	$(BIN)/firstread train calibrate --bundle $(OUT)/tuned/bundle --predictions $(OUT)/tuned/predictions.csv --out $(OUT)/tuned_calibrated
	$(BIN)/firstread train evaluate $(foreach kind,svm logistic_regression knn random_forest mlp,$(kind)=$(OUT)/transfer/$(kind).csv) --bundle $(BUNDLE) --bundle $(OUT)/tuned_calibrated --manifest $(OUT)/nih.csv --look-at-test --out $(OUT)/report
	$(BIN)/firstread train calibrate --bundle $(BUNDLE) --features $(OUT)/features --out $(OUT)/calibrated
	$(BIN)/firstread train calibrate --bundle $(BUNDLE) --features $(OUT)/features --abstain 0.1 --sensitivity default=0.4 --out $(OUT)/abstaining
	$(BIN)/firstread train localise --boxes $(DATA)/boxes/boxes.csv --bundle $(BUNDLE) --steps 30 --out $(OUT)/localisation
	$(BIN)/firstread train ablate --features $(OUT)/features --boxes $(DATA)/boxes/boxes.csv --bundle $(BUNDLE) --steps 120 --out $(OUT)/ablation
	$(BIN)/firstread train gate-report --bundle $(BUNDLE) --dicom $(DATA)/dicom --out $(OUT)/gate_report

kill-test: env ## SIGKILL the worker with 200 studies in flight
	KILL_STUDIES=200 $(BIN)/python -m pytest tests/e2e/test_worker_killed.py

docs: env ## write the documentation that follows from the code
	$(BIN)/python -m firstread.settings_page > docs/settings.md

clean: ## remove caches and build products; data and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
