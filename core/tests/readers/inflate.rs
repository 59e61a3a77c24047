//! Compressed bodies: hard cases by hand, and any cut of any bytes.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::collection::vec;
use proptest::prelude::*;
use tally_core::inflate::{Inflater, MAX_PLAIN_BYTES, MAX_RATIO, RATIO_GRACE_BYTES, State};

use crate::oracles::inflate::{gunzip, gunzip_members, scan};
use crate::oracles::pieces;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Inflates it whole and at each cut, which have to give the same.
fn inflate(new: fn() -> Inflater, bytes: &[u8]) -> (Vec<u8>, State) {
    let whole = scan(new(), [bytes]);
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert!(scan(new(), [head, &[], tail]) == whole, "cut at {cut}");
    }
    assert!(scan(new(), bytes.chunks(1)) == whole, "byte by byte");
    whole
}

/// Text that compresses as answers do: words that come again.
fn answer(bytes: usize) -> Vec<u8> {
    let mut seed = 1_u32;
    let words = std::iter::from_fn(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(format!("\"w{}\":{} ", seed >> 23, seed >> 28).into_bytes())
    });
    words.flatten().take(bytes).collect()
}

#[test]
fn a_gzip_body_is_inflated_at_every_cut() {
    for plain in [&b""[..], b"a", br#"{"usage":{"prompt_tokens":1}}"#, &answer(3000)] {
        let (found, state) = inflate(Inflater::gzip, &gzip(plain));
        assert_eq!((&found[..], state), (plain, State::Complete));
    }
}

#[test]
fn every_optional_part_of_the_header_may_be_cut_anywhere() {
    let plain = gzip(b"hello");
    let deflated = &plain[10..];
    let parts: [(u8, &[u8]); 4] = [(4, b"\x05\0extra"), (8, b"name\0"), (16, b"a comment\0"), (2, b"\x12\x34")];
    for chosen in 0..16_u8 {
        let (mut flags, mut rest) = (1, Vec::new());
        for (at, (flag, bytes)) in parts.iter().enumerate() {
            if chosen & 1 << at != 0 {
                flags |= flag;
                rest.extend_from_slice(bytes);
            }
        }
        let header = [0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 2, 3];
        let bytes = [&header[..], &rest, deflated].concat();
        assert_eq!(inflate(Inflater::gzip, &bytes), (b"hello".to_vec(), State::Complete), "flags {flags}");
    }
    let empty_extra = [&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 3, 0, 0][..], deflated].concat();
    assert_eq!(inflate(Inflater::gzip, &empty_extra), (b"hello".to_vec(), State::Complete));
}

#[test]
fn members_follow_each_other_and_padding_is_ignored() {
    let bytes = [gzip(b"a"), gzip(b""), gzip(b"bc")].concat();
    assert_eq!(inflate(Inflater::gzip, &bytes), (b"abc".to_vec(), State::Complete));
    for padding in [&b"\0\0\0\0"[..], b"x", b"\n"] {
        let padded = [&bytes, padding].concat();
        assert_eq!(inflate(Inflater::gzip, &padded), (b"abc".to_vec(), State::Complete));
    }
}

#[test]
fn a_cut_off_body_gives_what_it_has_and_is_not_complete() {
    let plain = answer(3000);
    let bytes = gzip(&plain);
    let (found, state) = scan(Inflater::gzip(), [&bytes[..bytes.len() / 2]]);
    assert!(!found.is_empty() && plain.starts_with(&found));
    assert_eq!(state, State::Ok);
    assert_eq!(scan(Inflater::gzip(), [&bytes[..bytes.len() - 1]]), (plain, State::Ok));
    assert_eq!(Inflater::gzip().state(), State::Ok);
}

#[test]
fn what_is_not_gzip_is_broken() {
    for bytes in [&b"{}"[..], b"\x1fx", b"\x1f\x8b\x07", b"\x1f\x8b\x08\xe0", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xff"] {
        let (found, state) = inflate(Inflater::gzip, bytes);
        assert_eq!((&found[..], state), (&b""[..], State::Broken), "{bytes:?}");
    }
    // A second member that is none.
    assert_eq!(inflate(Inflater::gzip, &[gzip(b"a"), b"\x1fx".to_vec()].concat()), (b"a".to_vec(), State::Broken));
}

#[test]
fn a_wrong_checksum_changes_nothing() {
    let mut bytes = gzip(b"hello");
    let crc = bytes.len() - 8;
    bytes[crc] ^= 1;
    assert_eq!(gunzip(&bytes), None);
    assert_eq!(inflate(Inflater::gzip, &bytes), (b"hello".to_vec(), State::Complete));
}

#[test]
fn deflate_is_read_with_and_without_zlibs_frame() {
    for level in [0, 1, 9] {
        let plain = answer(1500);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::new(level));
        zlib.write_all(&plain).unwrap();
        assert_eq!(inflate(Inflater::deflate, &zlib.finish().unwrap()), (plain.clone(), State::Complete));
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::new(level));
        bare.write_all(&plain).unwrap();
        assert_eq!(inflate(Inflater::deflate, &bare.finish().unwrap()), (plain, State::Complete));
    }
    for bytes in [&b"\x78\x9d"[..], b"\x78\xbb", b"\x07"] {
        assert_eq!(inflate(Inflater::deflate, bytes).1, State::Broken, "{bytes:?}");
    }
}

#[test]
fn a_large_body_goes_through_the_window_many_times() {
    let plain = answer(3 << 20);
    let bytes = gzip(&plain);
    for size in [bytes.len(), 16 << 10, 1013] {
        let (found, state) = scan(Inflater::gzip(), bytes.chunks(size));
        assert!(found == plain && state == State::Complete);
    }
}

#[test]
fn a_bomb_ends_at_its_bound_wherever_it_is_cut() {
    // Zeros shrink a thousandfold: over the ratio, so it ends right behind the grace.
    let bytes = gzip(&vec![0; 4 << 20]);
    assert!(bytes.len() as u64 * MAX_RATIO < 4 << 20);
    for size in [bytes.len(), 100, 1] {
        let (found, state) = scan(Inflater::gzip(), bytes.chunks(size));
        assert_eq!((found.len() as u64, state), (RATIO_GRACE_BYTES, State::Bomb));
    }
    // Under the ratio, it ends at the bound of all.
    let block = answer(64 << 10);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..=MAX_PLAIN_BYTES as usize / block.len() {
        encoder.write_all(&block).unwrap();
    }
    let bytes = encoder.finish().unwrap();
    let (mut inflater, mut length) = (Inflater::gzip(), 0);
    for mut piece in bytes.chunks(16 << 10) {
        while let Some(plain) = inflater.feed(&mut piece) {
            length += plain.len() as u64;
        }
    }
    assert_eq!((length, inflater.state()), (MAX_PLAIN_BYTES, State::Bomb));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_cut_of_any_members_gives_the_plain_bytes(
        members in vec((vec(prop_oneof![any::<u8>(), Just(b'a')], 0..300), 0..10_u32), 1..4),
        cuts in vec(0..60_u8, 1..8),
    ) {
        let (mut bytes, mut all) = (Vec::new(), Vec::new());
        for (plain, level) in members {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&plain).unwrap();
            bytes.extend(encoder.finish().unwrap());
            all.extend(plain);
        }
        prop_assert_eq!(gunzip_members(&bytes), Some(all.clone()));
        prop_assert_eq!(scan(Inflater::gzip(), pieces(&bytes, &cuts)), (all.clone(), State::Complete));
        prop_assert_eq!(scan(Inflater::gzip(), bytes.chunks(1)), (all, State::Complete));
    }

    #[test]
    fn any_cut_of_spoilt_bytes_gives_the_same_and_what_flate2_takes_we_take(
        plain in vec(any::<u8>(), 0..200),
        spoils in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in vec(0..60_u8, 1..8),
    ) {
        let mut bytes = gzip(&plain);
        for (at, byte) in spoils {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = scan(Inflater::gzip(), [&bytes[..]]);
        if let Some(theirs) = gunzip_members(&bytes) {
            prop_assert_eq!(&whole, &(theirs, State::Complete));
        }
        prop_assert_eq!(&scan(Inflater::gzip(), pieces(&bytes, &cuts)), &whole);
        prop_assert_eq!(&scan(Inflater::gzip(), bytes.chunks(1)), &whole);
    }

    #[test]
    fn any_cut_of_any_bytes_gives_the_same(bytes in vec(any::<u8>(), 0..200), cuts in vec(0..60_u8, 1..8)) {
        let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &bytes[..]].concat();
        let whole = scan(Inflater::gzip(), [&gzip[..]]);
        prop_assert_eq!(&scan(Inflater::gzip(), pieces(&gzip, &cuts)), &whole);
        let whole = scan(Inflater::deflate(), [&bytes[..]]);
        prop_assert_eq!(&scan(Inflater::deflate(), pieces(&bytes, &cuts)), &whole);
        prop_assert_eq!(&scan(Inflater::deflate(), bytes.chunks(1)), &whole);
    }
}
