//! Whole-buffer inflate by flate2.

use std::io::Read;

use tally_core::inflate::{Inflater, State};

/// By the push reader.
pub fn scan<'a>(mut inflater: Inflater, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, State) {
    let mut plain = Vec::new();
    for mut piece in pieces {
        while let Some(bytes) = inflater.feed(&mut piece) {
            assert!(!bytes.is_empty(), "a piece has bytes");
            plain.extend_from_slice(bytes);
        }
        assert!(piece.is_empty(), "a reader that wants more has used up what it had");
    }
    (plain, inflater.state())
}

/// The first member, if it is whole and its checksum right.
pub fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut plain).ok().map(|_| plain)
}

/// All members, if they are whole and nothing else follows.
pub fn gunzip_members(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::bufread::MultiGzDecoder::new(bytes).read_to_end(&mut plain).ok().map(|_| plain)
}

/// Blocks without any frame, if they are whole.
pub fn inflate_bare(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::bufread::DeflateDecoder::new(bytes).read_to_end(&mut plain).ok().map(|_| plain)
}
