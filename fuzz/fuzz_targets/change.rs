//! Opt-in changes at any cut of any bytes give what they give for the whole, and touch nothing that is not JSON.
#![no_main]

#[path = "../../core/tests/oracles/mod.rs"]
mod oracles;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tally_core::api::Api;
use tally_core::change::Change;
use tally_core::config::Config;
use tally_core::response::ResponseHead;

const CONFIG: &[u8] = br#"{"inject_usage":true,"model_rewrites":[{"model":"m","targets":[{"model":"org/other"}]}]}"#;

fuzz_target!(|data: &[u8]| {
    let (cuts, rest) = oracles::cuts_and_bytes(data);
    let Some(([kind, length], rest)) = rest.split_first_chunk().map(|(head, rest)| (*head, rest)) else { return };
    let (request, answer) = rest.split_at(rest.len().min(usize::from(length)));
    let content_type: &[u8] = if kind % 2 == 0 { b"text/event-stream" } else { b"application/json" };
    let whole = changed(&[], request, answer, content_type);
    for cuts in [cuts, &[1]] {
        assert_eq!(changed(cuts, request, answer, content_type), whole, "{cuts:?}");
    }
    if !request.contains(&b'{') {
        assert_eq!((&whole.0[..], &whole.1[..]), (request, answer));
    }
});

/// Both bodies as the other sides get them.
fn changed(cuts: &[u8], request: &[u8], answer: &[u8], content_type: &[u8]) -> (Vec<u8>, Vec<u8>) {
    static PARSED: LazyLock<Config> = LazyLock::new(|| Config::parse(CONFIG).unwrap());
    let config = &*PARSED;
    let mut change = Change::begin(config, Api::Chat, 0).unwrap();
    let pass = |body: &[u8], feed: &mut dyn FnMut(&[u8], bool) -> Option<Vec<u8>>| {
        let mut passed = Vec::new();
        let pieces = oracles::pieces(body, cuts);
        for (at, piece) in pieces.iter().enumerate() {
            match feed(piece, at + 1 == pieces.len()) {
                Some(instead) => passed.extend_from_slice(&instead),
                None => passed.extend_from_slice(piece),
            }
        }
        passed
    };
    let request = pass(request, &mut |piece, is_last| change.request_chunk(config, piece, is_last));
    change.response_head(&ResponseHead { status: 200, content_type, content_encoding: b"" });
    let answer = pass(answer, &mut |piece, is_last| change.response_chunk(piece, is_last));
    (request, answer)
}
