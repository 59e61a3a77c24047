//! Search for the bytes that end a string or a part of it.
//!
//! In: bytes. Out: where the first such byte is. Most strings of an answer are short: two words are looked at before
//! the vector search, whose start costs more than they do.

use memchr::{memchr, memchr2};

/// Where the first `"` or `\` is.
#[inline]
pub(super) fn quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    short(bytes, |word| zero_bytes(word ^ QUOTES) | zero_bytes(word ^ BACKSLASHES), |rest| memchr2(b'"', b'\\', rest))
}

/// Where the first `"` is.
#[inline]
pub(super) fn quote(bytes: &[u8]) -> Option<usize> {
    short(bytes, |word| zero_bytes(word ^ QUOTES), |rest| memchr(b'"', rest))
}

/// The first hit of `mark` in the first two words, else of `long` behind them.
#[inline]
fn short(bytes: &[u8], mark: impl Fn(u64) -> u64, long: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
    let (mut rest, mut before) = (bytes, 0);
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        if before == 16 {
            break;
        }
        let marks = mark(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(before + marks.trailing_zeros() as usize / 8);
        }
        (rest, before) = (after, before + 8);
    }
    Some(before + long(rest)?)
}

/// The top bit of the lowest byte that is 0, and perhaps of bytes above it; 0 if there is none.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

const ONES: u64 = u64::MAX / 255;
const QUOTES: u64 = ONES * b'"' as u64;
const BACKSLASHES: u64 = ONES * b'\\' as u64;
