//! Event streams: hard cases by hand, and any cut of any bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use tally_core::sse::{MAX_NAME, Piece, Reader};

use crate::oracles::pieces;
use crate::oracles::sse::{Stream, read, scan};

/// Reads it whole and at each cut, and by the oracle, which all have to give the same.
fn stream(bytes: &[u8]) -> Stream {
    let whole = scan([bytes]);
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(scan([head, &[], tail]), whole, "cut at {cut}");
    }
    assert_eq!(scan(bytes.chunks(1)), whole, "byte by byte");
    assert_eq!(read(bytes), whole, "by the standard's steps");
    whole
}

/// Name and data of the events.
fn events(bytes: &[u8]) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    stream(bytes).events.into_iter().map(|(name, data)| (text(name), text(data))).collect()
}

fn data(bytes: &[u8]) -> Vec<String> {
    events(bytes).into_iter().map(|(_, data)| data).collect()
}

#[test]
fn the_examples_of_the_standard_are_read_as_it_says() {
    assert_eq!(data(b"data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
    let four = stream(b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n");
    assert_eq!(four.comments, 1);
    assert_eq!(four.events, [(vec![], b"first event".to_vec()), (vec![], b"second event".to_vec())]);
    assert_eq!(four.unfinished, Some((vec![], b" third event".to_vec())));
    // "fires two events": an empty one and one of a newline; the last is unfinished.
    assert_eq!(data(b"data\n\ndata\ndata\n\ndata:"), ["", "\n"]);
    assert_eq!(data(b"data:test\n\ndata: test\n\n"), ["test", "test"]);
}

#[test]
fn every_kind_of_line_end_and_their_mixture_end_lines() {
    for ends in ["\n", "\r\n", "\r"] {
        let bytes = "data: a\ndata: b\n\ndata: c\n\n".replace('\n', ends);
        assert_eq!(data(bytes.as_bytes()), ["a\nb", "c"], "{ends:?}");
    }
    assert_eq!(data(b"data: a\r\n\rdata: b\n\r\ndata: c\r\r\n"), ["a", "b", "c"]);
    // LF CR is two line ends.
    assert_eq!(data(b"data: a\n\rdata: b\n\r"), ["a", "b"]);
}

#[test]
fn an_event_ends_with_its_blank_line_and_not_a_byte_later() {
    for bytes in [&b"data: a\n\n"[..], b"data: a\r\n\r", b"data: a\r\r"] {
        assert_eq!((stream(bytes).events.len(), stream(bytes).unfinished), (1, None));
    }
}

#[test]
fn a_byte_order_mark_is_dropped_at_the_start_alone() {
    assert_eq!(data(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"), ["a"]);
    assert_eq!(data(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n"), [""; 0]);
    // A part of one is the beginning of an unknown field.
    assert_eq!(data(b"\xef\xbbdata: a\n\n"), [""; 0]);
    assert_eq!(data(b"\xef\n\ndata: a\n\n"), ["a"]);
    assert_eq!(data(b"\xef:\rdata: a\n\n"), ["a"]);
}

#[test]
fn names_belong_to_their_event_and_the_last_one_wins() {
    let bytes = b"event: start\ndata: 1\n\ndata: 2\n\ndata: 3\nevent: late\n\nevent: a\nevent:b\ndata\n\nevent: x\nevent\ndata: 4\n\nevent: no-data\n\ndata: 5\n\n";
    let expected = [("start", "1"), ("", "2"), ("late", "3"), ("b", ""), ("", "4"), ("", "5")];
    assert_eq!(events(bytes), expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    let long = "n".repeat(MAX_NAME + 9);
    assert_eq!(events(format!("event: {long}\ndata: 1\n\n").as_bytes())[0].0, long[..MAX_NAME]);
}

#[test]
fn an_events_name_is_kept_until_the_next_event_begins() {
    let (mut reader, mut input) = (Reader::new(), &b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n"[..]);
    let mut names = Vec::new();
    while let Some(piece) = reader.next(&mut input) {
        names.push((piece, String::from_utf8(reader.event_name().to_vec()).unwrap()));
    }
    let expected = [(Piece::Data(b"1"), "a"), (Piece::EventEnd, "a"), (Piece::Data(b"2"), ""), (Piece::EventEnd, "")];
    assert_eq!(names, expected.map(|(piece, name)| (piece, name.to_owned())));
}

#[test]
fn comments_and_unknown_fields_are_no_data() {
    let found = stream(
        b":\n\n: ping\n\ndat: a\ndataa: b\n data: c\nDATA: d\nid: 1\nretry: 5\nx\n\ndata: e\n:in between\ndata: f\n\n",
    );
    assert_eq!((found.comments, found.events), (3, vec![(vec![], b"e\nf".to_vec())]));
}

#[test]
fn done_and_colons_inside_a_text_are_data() {
    let text = r#"{"content":"data: [DONE]\n\n: no comment"}"#;
    assert_eq!(data(format!("data: {text}\n\ndata: [DONE]\n\n").as_bytes()), [text, "[DONE]"]);
}

#[test]
fn data_is_handed_on_as_it_comes() {
    let mut reader = Reader::new();
    let mut input = &b"data: {\"a\":"[..];
    assert_eq!(reader.next(&mut input), Some(Piece::Data(b"{\"a\":")));
    assert_eq!(reader.next(&mut input), None);
    let mut input = &b"\xe2\x82"[..];
    assert_eq!(reader.next(&mut input), Some(Piece::Data(b"\xe2\x82")), "a cut character");
    assert_eq!(reader.next(&mut input), None);
}

#[test]
fn nul_and_other_bytes_pass() {
    let found = stream(b"data: \0\xff\x85\xe2\x80\xa8\n\n\0\ndata\0: a\n\n");
    assert_eq!(found.events, [(vec![], b"\0\xff\x85\xe2\x80\xa8".to_vec())]);
}

#[test]
fn a_line_of_ten_megabytes_is_not_buffered() {
    let line = [&b"data: "[..], &vec![b'x'; 10 << 20], b"\r\r"].concat();
    for size in [line.len(), 16 << 10, 4097] {
        let (mut reader, mut length, mut ends) = (Reader::new(), 0, 0);
        for mut piece in line.chunks(size) {
            while let Some(found) = reader.next(&mut piece) {
                match found {
                    Piece::Data(data) => length += data.len(),
                    Piece::EventEnd => ends += 1,
                    Piece::Comment => panic!("no comment"),
                }
            }
        }
        assert_eq!((length, ends), (10 << 20, 1));
    }
    assert!(size_of::<Reader>() <= 2 * MAX_NAME);
}

#[test]
fn the_end_of_the_stream_offers_what_was_left() {
    for (bytes, left) in [
        (&b""[..], None),
        (b"data: a\n\n", None),
        (b"event: x\n", None),
        (b": a", None),
        (b"data: a", Some("a")),
        (b"data: a\n", Some("a")),
        (b"data: a\ndata", Some("a")),
        (b"data: a\ndata:", Some("a\n")),
        (b"data", None),
        (b"data:", Some("")),
        (b"dat", None),
        (b"data: a\n\ndata: b\r", Some("b")),
    ] {
        let found = stream(bytes).unfinished.map(|(_, data)| String::from_utf8(data).unwrap());
        assert_eq!(found.as_deref(), left, "{bytes:?}");
    }
}

const MARKS: &[&[u8]] = &[b"\xef\xbb\xbf", b"\xef\xbb", b"\xef"];
const PARTS: &[&[u8]] = &[
    b"data",
    b"data:",
    b"data: ",
    b"event",
    b"event:",
    b"event: ",
    b"id: 1",
    b"retry:",
    b":",
    b" ",
    b"x",
    b"dat",
    b"eventt",
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\r\n\r\n",
    b"{\"a\":1}",
    b"[DONE]",
    b"\xef\xbb\xbf",
    b"\xff",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_cut_of_any_stream_gives_what_the_standards_steps_give(
        start in prop_oneof![3 => Just(&b""[..]), 1 => prop::sample::select(MARKS)],
        parts in vec(prop::sample::select(PARTS), 0..40),
        cuts in vec(0..12_u8, 1..8),
    ) {
        let bytes = [start, &parts.concat()].concat();
        let theirs = read(&bytes);
        prop_assert_eq!(&scan([&bytes[..]]), &theirs);
        prop_assert_eq!(&scan(pieces(&bytes, &cuts)), &theirs);
        prop_assert_eq!(&scan(bytes.chunks(1)), &theirs);
    }

    #[test]
    fn any_cut_of_any_bytes_gives_what_the_standards_steps_give(
        bytes in vec(prop_oneof![any::<u8>(), prop::sample::select(&b"dataevent: \r\n"[..])], 0..80),
        cuts in vec(0..12_u8, 1..8),
    ) {
        let theirs = read(&bytes);
        prop_assert_eq!(&scan([&bytes[..]]), &theirs);
        prop_assert_eq!(&scan(pieces(&bytes, &cuts)), &theirs);
    }
}
