//! Any cut of any bytes as JSON gives the same findings, and serde_json's where it takes the bytes.
#![no_main]

#[path = "../../core/tests/oracles/mod.rs"]
mod oracles;

use libfuzzer_sys::fuzz_target;
use oracles::json::{Everything, Most, agree, read, scan};
use tally_core::json::{Schema, State};

fuzz_target!(|data: &[u8]| {
    let (cuts, document) = oracles::cuts_and_bytes(data);
    check::<Everything>(cuts, document);
    check::<Most>(cuts, document);
});

fn check<S: Schema<Node = u64>>(cuts: &[u8], document: &[u8]) {
    let whole = scan::<S>([document]);
    assert_eq!(scan::<S>(oracles::pieces(document, cuts)), whole);
    assert_eq!(scan::<S>(document.chunks(1)), whole);
    if let Some(theirs) = read::<S>(document) {
        assert_eq!(whole.1, State::Complete);
        assert!(agree(&whole.0, &theirs), "{:?}\n{theirs:?}", whole.0);
    }
}
