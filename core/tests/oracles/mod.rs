//! Slow, obvious readers of whole buffers: what the push readers have to agree with. Also used by the fuzz targets.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod exchange;
pub mod inflate;
pub mod json;
pub mod sse;

/// The bytes in pieces: `cuts` are taken as lengths, over and over; 0 gives an empty piece, all 0 the whole.
pub fn pieces<'a>(bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    if cuts.iter().all(|cut| *cut == 0) {
        return vec![bytes];
    }
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for cut in cuts.iter().cycle() {
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*cut)));
        pieces.push(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    pieces
}

/// Fuzz input as cuts and bytes: the first byte says how many cuts come, at most seven.
pub fn cuts_and_bytes(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((count, rest)) = data.split_first() else { return (&[], &[]) };
    rest.split_at(rest.len().min(usize::from(count % 8)))
}
