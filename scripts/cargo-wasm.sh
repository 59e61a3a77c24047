#!/usr/bin/env bash
# cargo for wasm32-unknown-unknown: the rustup toolchain if it has the target, else Debian's with std built from source.
# usage: scripts/cargo-wasm.sh build|test CARGO-ARGUMENTS...      (or `which`: says which of the two, or fails)
set -euo pipefail
. "$(dirname "$0")/lib.sh"

TARGET=wasm32-unknown-unknown
export CARGO_TARGET_DIR=$ROOT/target/wasm      # another compiler may be used: never mixed with the native build

target_in() { [ -d "$("$1" --print sysroot 2>/dev/null)/lib/rustlib/$TARGET/lib" ]; }
debian_ready() {
    [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && have "$DEBIAN_WASM_LINKER" \
        && [ -f "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ]
}

if [ "${WASM_TOOLCHAIN:-}" != debian ] && have rustc && target_in rustc; then
    found=rustup
elif debian_ready; then
    found=debian
else
    echo "no compiler for $TARGET: run scripts/setup.sh" >&2
    exit 1
fi
[ "${1:-}" = which ] && { echo "$found"; exit; }

command=$1
shift
case $found in
rustup)
    exec cargo "$command" --target $TARGET "$@" ;;
debian)
    std=std,panic_abort
    [ "$command" = test ] && std=$std,test
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$DEBIAN_WASM_LINKER
    exec /usr/bin/cargo "$command" -Zbuild-std=$std --target $TARGET "$@" ;;
esac
