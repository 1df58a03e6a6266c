# The words everybody uses. Each does its own set-up, and CI calls the same.
SHELL := /bin/bash
VENV := .venv
# The one profile of this workspace: see Cargo.toml.
CARGO_FLAGS := --release

.PHONY: run test lint bench images setup models venv clients fmt

run: setup ## install what is missing, build, fetch the models, serve on http://127.0.0.1:8080
	cargo build $(CARGO_FLAGS) --workspace
	@exec target/release/koine up

test: setup models venv ## every test: Rust, then the real SDKs against real models, in one process and in four
	cargo test $(CARGO_FLAGS) --workspace
	$(VENV)/bin/python -m pytest -q tests/clients

lint: setup ## rustfmt, clippy with the lint table as errors, the arrows between crates
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	cargo test $(CARGO_FLAGS) --workspace --test api architecture

bench: setup models venv ## the figures of README's table, measured here
	target/release/overhead
	$(VENV)/bin/python tests/bench/bench.py

images: ## four images, each with the one binary it needs
	for s in edge chat embedding content-safety; do \
	  docker build -f deploy/docker/Dockerfile --build-arg SERVICE=$$s -t koine/$$s:dev . || exit 1; done

setup: ## compilers and libraries that the build needs, through the system's package manager
	@deploy/setup/packages.sh

models: setup ## fetch and verify the default models
	cargo build $(CARGO_FLAGS) --workspace
	target/release/koine models pull

venv: $(VENV)/ready
$(VENV)/ready: tests/clients/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -r tests/clients/requirements.txt
	touch $@

fmt:
	cargo fmt --all
