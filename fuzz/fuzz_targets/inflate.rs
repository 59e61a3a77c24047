//! Any cut of any bytes as a compressed body gives the same plain bytes, and flate2's where it takes the bytes.
#![no_main]

#[path = "../../core/tests/oracles/mod.rs"]
mod oracles;

use libfuzzer_sys::fuzz_target;
use oracles::inflate::{gunzip_members, inflate_bare, scan};
use tally_core::inflate::{Inflater, State};

fuzz_target!(|data: &[u8]| {
    let (cuts, bytes) = oracles::cuts_and_bytes(data);
    let gzip = same_at_each_cut(Inflater::gzip, cuts, bytes);
    if let Some(theirs) = gunzip_members(bytes)
        && gzip.1 != State::Bomb
    {
        assert!(gzip == (theirs, State::Complete));
    }
    // Blocks that no checksum guards: the fuzzer gets deeper.
    let member = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], bytes].concat();
    let gzip = same_at_each_cut(Inflater::gzip, cuts, &member);
    let (plain, state) = same_at_each_cut(Inflater::deflate, cuts, bytes);
    let bare = bytes.first().is_some_and(|first| first & 0x0f != 8);
    if let Some(theirs) = inflate_bare(bytes)
        && bare
        && state != State::Bomb
    {
        assert!((plain, state) == (theirs.clone(), State::Complete));
        assert!(gzip.0.starts_with(&theirs));
    }
});

fn same_at_each_cut(new: fn() -> Inflater, cuts: &[u8], bytes: &[u8]) -> (Vec<u8>, State) {
    let whole = scan(new(), [bytes]);
    assert!(scan(new(), oracles::pieces(bytes, cuts)) == whole);
    assert!(scan(new(), bytes.chunks(1)) == whole);
    whole
}
