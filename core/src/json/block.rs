//! Quotes and backslashes of 64 bytes at once.
//!
//! In: a block. Out: one bit per byte. A text is most of what is skipped: here it costs less than one instruction a byte.

use wide::u8x16;

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// Which bytes are `"`, and which are `\`; the first byte is the lowest bit.
#[inline]
pub(super) fn quotes_and_backslashes(block: &[u8; BLOCK]) -> (u64, u64) {
    let (mut quotes, mut backslashes) = (0, 0);
    let (vectors, _) = block.as_chunks::<16>();
    for (at, bytes) in vectors.iter().enumerate() {
        let bytes = u8x16::new(*bytes);
        let equal = |byte| u64::from(bytes.simd_eq(u8x16::splat(byte)).to_bitmask()) << (16 * at);
        quotes |= equal(b'"');
        backslashes |= equal(b'\\');
    }
    (quotes, backslashes)
}

/// Which bytes are taken by a backslash before them, and whether the byte behind the block is. `carry`: the first one is.
///
/// A backslash takes the next byte unless it is taken itself. Adding the odd-placed starts of runs to the backslashes
/// carries through each run, and so tells behind which of them the last backslash was a free one.
#[inline]
pub(super) const fn escaped(backslashes: u64, carry: bool) -> (u64, bool) {
    const EVEN: u64 = u64::MAX / 3;
    let free = backslashes & !(carry as u64);
    let behind = free << 1 | carry as u64;
    let odd_starts = free & !EVEN & !behind;
    let (runs, overflow) = odd_starts.overflowing_add(free);
    ((EVEN ^ (runs << 1)) & behind, overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_the_bytes_are() {
        let mut block = [b'x'; BLOCK];
        for at in [0, 7, 8, 31, 63] {
            block[at] = b'"';
        }
        for at in [1, 16, 62] {
            block[at] = b'\\';
        }
        let bits = |places: &[u32]| places.iter().fold(0_u64, |bits, at| bits | 1 << at);
        assert_eq!(quotes_and_backslashes(&block), (bits(&[0, 7, 8, 31, 63]), bits(&[1, 16, 62])));
        // Neighbours in value and in the top bit.
        for other in [b'!', b'#', b'[', b']', 0xa2, 0xdc, 0, 0xff] {
            assert_eq!(quotes_and_backslashes(&[other; BLOCK]), (0, 0));
        }
    }

    /// One byte after the other.
    fn slowly(backslashes: u64, mut taken: bool) -> (u64, bool) {
        let mut bits = 0;
        for at in 0..BLOCK {
            let is_backslash = backslashes >> at & 1 == 1;
            bits |= u64::from(taken) << at;
            taken = is_backslash && !taken;
        }
        (bits, taken)
    }

    #[test]
    fn a_backslash_takes_the_next_byte_unless_it_is_taken() {
        // A fixed sequence of bits: dense, sparse, in runs.
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..10_000 {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            for backslashes in [bits, bits & bits >> 1 & bits >> 3, bits | bits << 1 | bits << 2, 0, u64::MAX] {
                for carry in [false, true] {
                    assert_eq!(escaped(backslashes, carry), slowly(backslashes, carry), "{backslashes:b} {carry}");
                }
            }
        }
    }
}
