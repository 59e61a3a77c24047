//! Any cut of any bytes as an event stream gives what the standard's steps give.
#![no_main]

#[path = "../../core/tests/oracles/mod.rs"]
mod oracles;

use libfuzzer_sys::fuzz_target;
use oracles::sse::{read, scan};

fuzz_target!(|data: &[u8]| {
    let (cuts, bytes) = oracles::cuts_and_bytes(data);
    let theirs = read(bytes);
    assert_eq!(scan([bytes]), theirs);
    assert_eq!(scan(oracles::pieces(bytes, cuts)), theirs);
    assert_eq!(scan(bytes.chunks(1)), theirs);
});
