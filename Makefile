# The one door. `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
STEP := scripts/step.sh
FILTER_SOURCES := $(shell find src core/src -name '*.rs') Cargo.toml Cargo.lock core/Cargo.toml scripts/build-wasm.sh

# Every target but the files in dist/.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' $(lastword $(MAKEFILE_LIST)))

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## get what build, demo and tests need, by package name; says what it does
	@scripts/setup.sh test

setup-build:
	@scripts/setup.sh build

setup-demo:
	@scripts/setup.sh demo

setup-kube: ## build kube-apiserver and etcd for the tests that need a real Kubernetes API (once; ten minutes of CPU, needs Go)
	@echo "kube-apiserver and etcd: $$(scripts/kube.sh build)"

setup-helm: ## build Helm 3 from its Go module for the tests of the chart (once; needs Go)
	@echo "Helm: $$(scripts/helm.sh build)"

setup-browser: ## get headless Chromium and its driver for the tests of the live page
	@scripts/browser.sh fetch >/dev/null

build: setup-build dist/tally.wasm ## leave dist/tally.wasm and dist/tallyd, both optimised, and their SHA256SUMS
	@$(STEP) "build tallyd" cargo build --release --package tallyd --bin tallyd
	@install -D target/release/tallyd dist/tallyd
	@cd dist && sha256sum tally.wasm tallyd >SHA256SUMS
	@ls -l dist

dist/tally.wasm: $(FILTER_SOURCES)
	@$(STEP) "build the filter" scripts/build-wasm.sh

demo: setup-demo dist/tally.wasm ## real Envoy, real filter, recorded model servers; KEEP=1 keeps it; MODEL_SERVER=llama or a URL
	@$(STEP) "build the demo" cargo build --package tally-integration --package tallyd --bins
	@scripts/demo.sh

test: setup ## everything: format, lints, unit, property and wasm tests, real Envoy, real Prometheus
	@$(MAKE) lint test-native docs test-wasm fuzz-smoke integration instructions deny
	@echo; echo "all steps passed"

lint: ## formatting and clippy, nothing let through
	@$(STEP) "format" cargo fmt --all --check
	@$(STEP) "clippy" cargo clippy --workspace --all-targets -- --deny warnings

fmt: ## format the Rust code
	@cargo fmt --all

deny: ## licences, sources and duplicate versions, if cargo-deny is installed
	@if command -v cargo-deny >/dev/null; then $(STEP) "cargo deny" cargo deny --workspace --all-features check bans licenses sources; \
	else echo "not run: cargo deny (install it with: cargo install cargo-deny)"; fi

test-native: ## unit, property and fake-Envoy tests on this machine
	@$(STEP) "build the tests" cargo test --workspace --no-run
	@$(STEP) "unit and property tests" cargo test --workspace --exclude tally-integration

test-wasm: ## the readers and the recorded exchanges on wasm32, in Node
	@$(STEP) "wasm32 tests" scripts/test-wasm.sh

conformance: setup-demo dist/tally.wasm ## the hard exchanges of testdata/conformance through the filter in a real Envoy: pass or fail each
	@$(STEP) "build the tool" cargo build --package tally-integration --bin conformance
	@TALLY_WASM=dist/tally.wasm ENVOY=$$(scripts/envoy.sh) target/debug/conformance $(CASE)

fuzz: ## fuzz readers, exchanges, configurations, messages, pages; SECONDS_EACH=60 per target, TARGETS="exchange sse"
	@scripts/fuzz.sh $(or $(SECONDS_EACH),60) $(TARGETS)

fuzz-smoke: ## a few seconds of each target that needs nothing of tallyd
	@$(STEP) "fuzz smoke" scripts/fuzz.sh 4 core

chaos: dist/tally.wasm ## faults in real processes by a schedule, MINUTES=3 or HOURS=1, SEED= repeats one: writes docs/RELIABILITY.md
	@scripts/chaos.sh

soak: dist/tally.wasm ## a million requests and a million scrapes (REQUESTS=, SCRAPES=): does anything grow? writes docs/RELIABILITY.md
	@scripts/soak.sh

bench: dist/tally.wasm ## Envoy with Tally beside no filter, an empty one, a naive one, Lua and ext_proc: writes docs/BENCHMARKS.md
	@scripts/bench.sh

instructions: ## the filter's instructions and host calls per request against their budget; UPDATE=1 writes it
	@$(STEP) "instruction counts" scripts/instructions.sh $(if $(UPDATE),update)

profile-filter: ## where the filter's instructions go, natively, with a picture; SHAPE=json-1k
	@scripts/profile-filter.sh $(SHAPE)

bench-instructions: dist/tally.wasm ## the same Envoys under valgrind: instructions a request, and what each call costs: writes docs/INSTRUCTIONS.md
	@scripts/bench.sh instructions

bench-readers: ## the readers against memchr and serde_json on the same bytes, on wasm32 and natively: ratios
	@scripts/bench-readers.sh

integration: dist/tally.wasm ## the real filter in the real Envoy, read by the real Prometheus
	@$(STEP) "integration tests" scripts/integration.sh

test-vllm: ## tallyd lora-syncer against a real vLLM, where one is installed; INSTALL=1 installs it (3.3 GB)
	@$(STEP) "real vLLM" scripts/vllm-test.sh $(if $(INSTALL),install)

test-live: ## tallyd's pool over a real llama.cpp and, where one is installed, a real vLLM, under load; INSTALL=1 installs vLLM
	@$(STEP) "real model servers" scripts/test-live.sh $(if $(INSTALL),install)

docs: ## docs/METRICS.md, README and the dashboard are in step with the catalog (UPDATE=1 writes them)
	@$(STEP) "docs" cargo test --workspace --quiet --test docs
	@$(STEP) "dashboard" cargo test --workspace --quiet --test dashboards the_dashboard_file

images: build ## OCI images and SBOMs of the filter and of tallyd in dist/oci; needs no Docker daemon
	@$(STEP) "images" scripts/oci.py

manifests: ## render deploy/manifests from the Helm chart
	@UPDATE=1 cargo test --workspace --quiet --test helm plain_manifests

rules: ## the Prometheus rules, their promtool tests and a real Prometheus (part of `integration` too)
	@$(STEP) "rules" cargo test --workspace --quiet --test rules

bench-flow: ## flow control: queue, gate and gRPC, beside EPP's where Go is, with ratios; 100,000 waiting; UPDATE=1 keeps it in docs
	@scripts/bench-flow.sh | scripts/keep_run.py docs/FLOW_CONTROL.md bench-flow

flow-figures: ## draw the pictures of docs/FLOW_CONTROL.md with the simulator
	@cargo build --quiet --package tallyd
	@for name in $(basename $(notdir $(wildcard bench/flow-sim/*.yaml))); do \
	  target/debug/tallyd flow-sim bench/flow-sim/$$name.yaml --svg docs/flow-$$name.svg; done

bench-scrape: ## what a scrape costs, beside openmetrics-parser and (where Go is) expfmt; 1,000 endpoints at 1 s; UPDATE=1 keeps it in docs
	@scripts/bench-scrape.sh | scripts/keep_run.py docs/POOL.md bench-scrape

bench-heap: ## what tallyd's heap sampling costs while it scrapes: two processes side by side, a ratio; UPDATE=1 keeps it in docs
	@cargo build --quiet --release --package tallyd
	@TALLYD=$$PWD/target/release/tallyd cargo run --quiet --package tally-integration --bin heap-cost | scripts/keep_run.py docs/PPROF.md bench-heap

clean: ## remove build outputs, keep the tools
	@rm -rf target dist
