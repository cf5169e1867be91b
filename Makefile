# Everything runs in .venv, which each target makes and fills as far as it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/demo: pyproject.toml constraints.txt
	@echo "installing what training and serving need into $(VENV), a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[train,serve]'
	@touch $@

$(VENV)/test: $(VENV)/demo
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) --editable '.[train,serve,test]'
	@touch $@

demo: $(VENV)/demo ## train on MNIST, publish, serve, predict; ARGS=--keep leaves the server up
	@echo "training with the default configuration"
	$(BIN)/python -m model fit --config model/configs/default.yaml --overwrite true
	$(BIN)/python -m model publish --bundle build/bundle
	$(BIN)/python -m model.demo --bundle build/bundle $(ARGS)

test: lint types unit ## lint, types and all tests that need no cluster

lint: $(VENV)/test ## style and common mistakes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/test ## types, over all packages
	$(BIN)/mypy

unit: $(VENV)/test ## the tests; ARGS=... goes to pytest
	$(BIN)/pytest $(ARGS)

bench: $(VENV)/test ## measure an epoch beside a bare torch loop, and the start of the server (after make demo)
	$(BIN)/python loadtests/train_speed.py
	$(BIN)/python loadtests/startup.py

clean: ## remove what was built and trained
	rm -rf build .venv .mypy_cache .pytest_cache .ruff_cache
