//! The recorded exchanges on wasm32, in the very code that Envoy runs: natively `usize` has 64 bits, here it has 32.
#![cfg(target_arch = "wasm32")]

mod common;

use common::{Recorded, essence};
use wasm_bindgen_test::wasm_bindgen_test;

macro_rules! recorded {
    ($($name:literal),* $(,)?) => {
        [$(Recorded::parse(
            $name,
            include_str!(concat!("../../testdata/exchanges/", $name, "/request.json")),
            include_str!(concat!("../../testdata/exchanges/", $name, "/response.headers")),
            include_bytes!(concat!("../../testdata/exchanges/", $name, "/response.body")),
            include_str!(concat!("../../testdata/exchanges/", $name, "/expect.json")),
        )),*]
    };
}

/// One of each API, server and framing.
fn all() -> Vec<Recorded> {
    let all = recorded![
        "derived-chat-gzip",
        "derived-chat-stream-bom",
        "derived-chat-stream-cr",
        "derived-chat-stream-crlf",
        "derived-chat-stream-gzip",
        "derived-chat-stream-no-space",
        "derived-chat-stream-pings",
        "llamacpp-chat-nonstream",
        "llamacpp-chat-timings-per-token-stream",
        "llamacpp-chat-unicode-stream",
        "llamacpp-completions-n2-stream",
        "llamacpp-completions-prompt-list-stream",
        "llamacpp-embeddings-one",
        "llamacpp-messages-stream",
        "llamacpp-responses-nonstream",
        "vllm-chat-err-unknown-model-stream",
        "vllm-chat-nonstream-details",
        "vllm-chat-prefix-third-stream-details",
        "vllm-chat-stream-continuous-usage",
        "vllm-chat-stream-include-usage",
        "vllm-chat-unicode-escaped-request",
        "vllm-completions-n2-stream-details",
        "vllm-embeddings-list",
        "vllm-messages-stream",
        "vllm-responses-stream",
    ];
    all.into_iter().flatten().collect()
}

#[wasm_bindgen_test]
fn every_exchange_has_the_tokens_its_server_reported() {
    for recorded in all() {
        recorded.check(&recorded.measure(&[&recorded.request], &[&recorded.answer]));
    }
}

#[wasm_bindgen_test]
fn no_piece_size_changes_anything() {
    for recorded in all() {
        let whole = recorded.measure(&[&recorded.request], &[&recorded.answer]);
        for size in [1, 2, 3, 7, 64, 1_000] {
            let request: Vec<_> = recorded.request.chunks(size).collect();
            let answer: Vec<_> = recorded.answer.chunks(size).collect();
            assert_eq!(essence(&recorded.measure(&request, &answer)), essence(&whole), "{}: {size}", recorded.name);
        }
    }
}
