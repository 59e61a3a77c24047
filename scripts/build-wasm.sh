#!/usr/bin/env bash
# Builds the filter into dist/tally.wasm and checks that Envoy will be able to load it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+simd128" scripts/cargo-wasm.sh build --profile wasm --package tally --lib
mkdir -p dist
built=target/wasm/wasm32-unknown-unknown/wasm/tally.wasm
if have wasm-opt && wasm-opt -O3 --enable-bulk-memory --enable-simd --enable-sign-ext --enable-mutable-globals \
    --enable-nontrapping-float-to-int --enable-multivalue --enable-reference-types "$built" -o dist/tally.wasm.new; then
    :
else
    cp "$built" dist/tally.wasm.new
fi
python3 scripts/wasm_imports.py dist/tally.wasm.new
mv dist/tally.wasm.new dist/tally.wasm
echo "dist/tally.wasm: $(wc -c < dist/tally.wasm) bytes"
