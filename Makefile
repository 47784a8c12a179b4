# Callboard. `make help` lists the goals.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# One target folder for every clone: RocksDB compiles once per machine.
export CARGO_TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(HOME)/.cache/callboard/target)
export CARGO_TERM_PROGRESS_WHEN ?= never
# Most tests wait for something more than they compute.
export RUST_TEST_THREADS ?= 8

PROGRESS := .ci/progress
RELEASE := $(CARGO_TARGET_DIR)/release/callboard

.PHONY: help build test sdk sdk-all conversations mutants faults demo bench fuzz fmt lint ci packages

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18
	@echo
	@echo "  A first build compiles RocksDB, about 15 minutes on two cores; later ones take it from the cache."

packages:
	@.ci/packages

build: packages ## the binary, optimised: callboard in the target folder's release/
	@$(PROGRESS) cargo build --locked --release -p callboard
	@echo "built: $(RELEASE)"

test: packages ## formatting, lints and every test that needs nothing but this repository
	@cargo fmt --all --check
	@$(PROGRESS) cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(PROGRESS) cargo build --locked -p callboard
	@$(PROGRESS) cargo test --locked --workspace

sdk: PAIRS := own::
sdk: conversations ## published SDK packages, unmodified: each actor host with the client of its own package
sdk-all: conversations ## every actor host with every client, plain HTTP among them

conversations:
	@.ci/packages python3-venv nodejs curl
	@$(PROGRESS) cargo build --locked -p callboard
	@variables=$$(.ci/sdk); \
	$(PROGRESS) env $$variables cargo test --locked -p callboard-tests --test sdk -- --ignored --nocapture --test-threads=1 $(PAIRS)

mutants: packages ## takes out each rule that makes this safe: a test must go red (MUTANT=name tries one)
	@.ci/mutants $(MUTANT)

faults: build ## sudden death, power cuts, 100,000 reminders: the full dose (about 15 minutes)
	@CALLBOARD_BIN=$(RELEASE) CALLBOARD_FAULT_ROUNDS=20 CALLBOARD_REMINDERS=100000 \
	$(PROGRESS) cargo test --locked -p callboard-tests --test faults -- --nocapture --test-threads=1

demo: packages ## a node, an app, a crash: a story of a minute; both run on after it (KEEP=0 stops them)
	@$(PROGRESS) cargo build --locked -p callboard -p callboard-tests --bin callboard --bin callboard-demo
	@KEEP=$(KEEP) $(CARGO_TARGET_DIR)/debug/callboard-demo

bench: build ## throughput and latency on this machine
	@$(RELEASE) bench --self

# cargo-fuzz sets RUSTFLAGS, which hides those of .cargo/config.toml, and a sanitizer would go into RocksDB as well: either
# compiles it another time. There is no unsafe code here that a sanitizer could watch. What is built is instrumented, so
# it has a target folder of its own.
fuzz: export RUSTC_BOOTSTRAP := 1
fuzz: export RUSTFLAGS := $(if $(filter x86_64,$(shell uname -m)),-C target-cpu=x86-64-v2)
fuzz: export CARGO_TARGET_DIR := $(CARGO_TARGET_DIR)-fuzz
SECONDS ?= 60
fuzz: packages ## every decoder, or one: TARGET=ingress_route SECONDS=60 (`cargo fuzz list` in tests/)
	@command -v cargo-fuzz >/dev/null || RUSTFLAGS= cargo install --locked cargo-fuzz
	@cp Cargo.lock tests/fuzz/
	@cd tests; for target in $(or $(TARGET),$$(cargo fuzz list)); do \
		echo "== $$target, $(SECONDS) s"; \
		mkdir -p "fuzz/corpus/$$target"; \
		../$(PROGRESS) cargo fuzz run --sanitizer none "$$target" "fuzz/corpus/$$target" "fuzz/seeds/$$target" -- \
			-max_total_time=$(SECONDS) -timeout=10 -print_final_stats=1; \
	done

fmt: ## formats the source
	@cargo fmt --all

lint: packages ## clippy, warnings are errors
	@$(PROGRESS) cargo clippy --locked --workspace --all-targets -- -D warnings

ci: ## what must pass before anything lands
	@.ci/run
