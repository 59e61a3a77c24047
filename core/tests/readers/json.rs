//! JSON: hard cases by hand, and any cut of any bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use tally_core::json::{MAX_KEY, MAX_TEXT, Scanner, Schema, State, Value};

use crate::oracles::json::{Everything, Most, Seen, agree, read, scan};
use crate::oracles::pieces;

/// The paths `usage.prompt_tokens`, `text`, `list[]`, `choices[].n` and `ü😀`.
struct Few;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Node {
    Choice,
    Choices,
    ChoiceNumber,
    Item,
    List,
    Root,
    Text,
    Tokens,
    Unicode,
    Usage,
}

impl Schema for Few {
    type Node = Node;
    fn root() -> Node {
        Node::Root
    }
    fn key(node: Node, key: &[u8]) -> Option<Node> {
        match (node, key) {
            (Node::Root, b"usage") => Some(Node::Usage),
            (Node::Root, b"text") => Some(Node::Text),
            (Node::Root, b"list") => Some(Node::List),
            (Node::Root, b"choices") => Some(Node::Choices),
            (Node::Root, key) if key == "ü😀".as_bytes() => Some(Node::Unicode),
            (Node::Usage, b"prompt_tokens") => Some(Node::Tokens),
            (Node::Choice, b"n") => Some(Node::ChoiceNumber),
            _ => None,
        }
    }
    fn element(node: Node) -> Option<Node> {
        match node {
            Node::List => Some(Node::Item),
            Node::Choices => Some(Node::Choice),
            _ => None,
        }
    }
}

/// Scans it whole and cut at each byte, which has to give the same; findings of the root object itself are left out.
fn few(document: &[u8]) -> (Vec<(Node, Seen)>, State) {
    let whole = scan::<Few>([document]);
    if document.len() < 20_000 {
        for cut in 0..=document.len() {
            let (head, tail) = document.split_at(cut);
            assert_eq!(scan::<Few>([head, &[], tail]), whole, "cut at {cut}");
        }
        assert_eq!(scan::<Few>(document.chunks(1)), whole, "byte by byte");
    }
    let found = whole.0.into_iter().filter(|(node, seen)| *node != Node::Root || !is_bracket(seen)).collect();
    (found, whole.1)
}

fn is_bracket(seen: &Seen) -> bool {
    matches!(seen, Seen::Object | Seen::Array | Seen::End)
}

fn text(text: &str) -> Seen {
    Seen::Text(text.as_bytes().to_vec())
}

/// What `"text": <value>` is found to be.
fn value(value: &str) -> Option<Seen> {
    let (found, state) = few(format!(r#"{{"text":{value}}}"#).as_bytes());
    match (&found[..], state) {
        ([(Node::Text, seen)], State::Complete) => Some(seen.clone()),
        (_, State::Broken) => None,
        other => panic!("{value}: {other:?}"),
    }
}

#[test]
fn usage_is_found_behind_everything_that_is_not_wanted() {
    let document = br#" { "a" : [ {"usage": {"prompt_tokens": 1}}, "}]{[\"", 1.5e3, null ] ,
        "b":{"usage":[2]}, "content":"\"usage\":{\"prompt_tokens\":3}", "x":true,"y":-0.0,"usage" : { "other" : {} ,
        "prompt_tokens" : 41 } } "#;
    let found = vec![(Node::Usage, Seen::Object), (Node::Tokens, Seen::Number(Some(41))), (Node::Usage, Seen::End)];
    assert_eq!(few(document), (found, State::Complete));
}

#[test]
fn containers_tell_where_they_begin_and_end() {
    let found = vec![
        (Node::Choices, Seen::Array),
        (Node::Choice, Seen::Object),
        (Node::ChoiceNumber, Seen::Number(Some(1))),
        (Node::Choice, Seen::End),
        (Node::Choice, Seen::Object),
        (Node::Choice, Seen::End),
        (Node::Choices, Seen::End),
        (Node::List, Seen::Array),
        (Node::List, Seen::End),
    ];
    assert_eq!(few(br#"{"choices":[{"n":1},{}],"list":[ ]}"#), (found, State::Complete));
}

#[test]
fn an_escaped_key_is_the_key_it_means() {
    let found = vec![(Node::Usage, Seen::Null), (Node::Unicode, Seen::Bool(true)), (Node::Unicode, Seen::Bool(false))];
    let document = r#"{"\u0075sage":null,"\u00FC\ud83D\uDE00":true,"ü😀":false,"us\u0000age":1,"usage ":2}"#;
    assert_eq!(few(document.as_bytes()), (found, State::Complete));
}

#[test]
fn a_key_beyond_its_bound_is_not_wanted_and_does_no_harm() {
    let long = "k".repeat(MAX_KEY + 1);
    let escaped = "\\u006b".repeat(MAX_KEY + 1);
    let document = format!(r#"{{"{long}":1,"{escaped}":[2],"usage":null}}"#);
    assert_eq!(few(document.as_bytes()), (vec![(Node::Usage, Seen::Null)], State::Complete));
    // And at the bound it is.
    let (key, document) = ("k".repeat(MAX_KEY), format!(r#"{{"{}":1}}"#, "\\u006b".repeat(MAX_KEY)));
    let found = scan::<Everything>([document.as_bytes()]).0;
    assert!(found.contains(&(Everything::key(1, key.as_bytes()).unwrap(), Seen::Number(Some(1)))));
}

#[test]
fn each_repetition_of_a_key_is_found() {
    let found = vec![(Node::Text, text("a")), (Node::Text, text("b"))];
    assert_eq!(few(br#"{"text":"a","text":"b"}"#), (found, State::Complete));
}

#[test]
fn escapes_become_the_characters_they_mean() {
    assert_eq!(value(r#""\"\\\/\b\f\n\r\t\u0041\u20ac""#), Some(text("\"\\/\u{8}\u{c}\n\r\tA€")));
    assert_eq!(value(r#""\ud83d\ude00""#), Some(text("😀")));
    assert_eq!(value(r#""a\u0000b""#), Some(text("a\0b")));
}

#[test]
fn a_lone_surrogate_is_the_replacement_character() {
    for (escaped, plain) in [
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""\ud83dx""#, "\u{fffd}x"),
        (r#""\ude00""#, "\u{fffd}"),
        (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
    ] {
        assert_eq!(value(escaped), Some(text(plain)), "{escaped}");
    }
}

#[test]
fn an_unknown_escape_is_not_json() {
    for escaped in [r#""\x""#, r#""\u12g4""#, r#""\U0041""#, r#""\u+123""#] {
        assert_eq!(value(escaped), None, "{escaped}");
    }
}

#[test]
fn a_long_text_is_cut_between_characters() {
    for (character, kept) in [("a", MAX_TEXT), ("é", MAX_TEXT), ("€", 1023), ("😀", MAX_TEXT)] {
        let whole = character.repeat(MAX_TEXT);
        assert_eq!(value(&format!("\"{whole}\"")), Some(text(&whole[..kept])), "{character}");
        // One byte before them moves the cut.
        let shifted = format!("x{whole}");
        let end = (0..=MAX_TEXT).rev().find(|end| shifted.is_char_boundary(*end)).unwrap();
        assert_eq!(value(&format!("\"{shifted}\"")), Some(text(&shifted[..end])), "{character}");
        let escaped = format!("\"\\u0078{whole}\"");
        assert_eq!(value(&escaped), Some(text(&shifted[..end])), "{character}");
    }
}

#[test]
fn bytes_that_are_not_utf8_and_raw_control_bytes_stay_as_they_are() {
    let found = vec![(Node::Text, Seen::Text(b"\xff\xc3\0\n\x80".to_vec()))];
    assert_eq!(few(b"{\"text\":\"\xff\xc3\0\n\x80\"}"), (found, State::Complete));
}

#[test]
fn a_whole_number_is_exact_however_it_is_written() {
    for (written, integer) in [
        ("0", 0),
        ("7", 7),
        ("12.0", 12),
        ("12.000000000000000000000000000000", 12),
        ("1e2", 100),
        ("1E+2", 100),
        ("1200e-2", 12),
        ("1.50e1", 15),
        ("0.00012e5", 12),
        ("0e999999999999999999999999", 0),
        ("0.000", 0),
        ("9007199254740993", 9_007_199_254_740_993),
        ("18446744073709551615", u64::MAX),
        ("18446744073709551615.0", u64::MAX),
        ("1844674407370955161.5e1", u64::MAX),
        ("10000000000000000000", 10_000_000_000_000_000_000),
        ("1e19", 10_000_000_000_000_000_000),
    ] {
        assert_eq!(value(written), Some(Seen::Number(Some(integer))), "{written}");
    }
}

#[test]
fn a_number_that_is_negative_broken_or_too_large_has_no_integer() {
    for written in [
        "-1",
        "-0",
        "-12.5e3",
        "1.5",
        "1e-1",
        "15e-2",
        "18446744073709551616",
        "1e20",
        "1e999999999999999999999999",
        "1e-999999999999999999999999",
        "123456789012345678901234567890",
        "0.1234567890123456789012345678901234567890",
    ] {
        assert_eq!(value(written), Some(Seen::Number(None)), "{written}");
    }
    assert_eq!(value(&"9".repeat(10_000)), Some(Seen::Number(None)));
    assert_eq!(value(&format!("1{}", "0".repeat(10_000))), Some(Seen::Number(None)));
    assert_eq!(value(&format!("1{}e-10000", "0".repeat(10_000))), Some(Seen::Number(Some(1))));
}

#[test]
fn what_is_no_number_or_literal_is_not_json() {
    for written in
        ["1.", "1.e1", ".5", "01", "-", "-a", "1e", "1e+", "+1", "1x", "tru", "truex", "nul", "False", "NaN", "'a'"]
    {
        assert_eq!(value(written), None, "{written}");
    }
}

#[test]
fn structure_is_checked_where_something_is_wanted() {
    for document in [
        "{,}",
        "{\"text\"}",
        "{\"text\" 1}",
        "{\"text\":}",
        "{\"text\":1,}",
        "{text:1}",
        "{\"list\":[1,]}",
        "{\"list\":[,]}",
        "{\"list\":[1 2]}",
        "{\"list\":[1}",
        "{\"text\":1]",
        "{}{}",
        "{}x",
        "[1],",
        "]",
        "<html>",
        "data: {}",
        "\u{feff}{}",
    ] {
        assert_eq!(few(document.as_bytes()).1, State::Broken, "{document}");
    }
}

#[test]
fn python_writes_numbers_that_are_not_json_and_they_do_no_harm_where_they_are_not_wanted() {
    let found = vec![(Node::Text, Seen::Null)];
    assert_eq!(few(b"{\"logprob\":-Infinity,\"b\":[NaN,Infinity],\"c\":NaN,\"text\":null}"), (found, State::Complete));
}

#[test]
fn the_state_says_how_far_the_document_is() {
    for (document, state) in [
        ("", State::Empty),
        (" \r\n\t", State::Empty),
        ("{", State::Open),
        ("{\"text\":\"", State::Open),
        ("[1", State::Open),
        ("\"a", State::Open),
        ("tru", State::Open),
        ("{} \n", State::Complete),
        ("true", State::Complete),
        ("\"a\"", State::Complete),
        ("12", State::Complete),
        ("-", State::Broken),
        ("1.", State::Broken),
        ("x", State::Broken),
    ] {
        assert_eq!(few(document.as_bytes()).1, state, "{document:?}");
    }
    assert_eq!(few(b"12").0, [(Node::Root, Seen::Number(Some(12)))]);
    assert_eq!(few(b" null ").0, [(Node::Root, Seen::Null)]);
}

#[test]
fn a_reset_scanner_reads_the_next_document() {
    let mut scanner = Scanner::<Few>::new();
    for before in ["{\"text\":\"a\\", "{\"list\":[[{", "x", "{\"text\":1", "{}", "{\"a\":{\"b\":\""] {
        while scanner.next(&mut before.as_bytes()).is_some() {}
        scanner.reset();
        assert_eq!(scanner.state(), State::Empty);
        let mut document = &br#"{"text":"b"}"#[..];
        assert_eq!(scanner.next(&mut document).map(|found| found.value), Some(Value::Object), "after {before}");
        assert_eq!(scanner.next(&mut document).map(|found| found.value), Some(Value::Text(b"b")), "after {before}");
        scanner.reset();
    }
}

#[test]
fn nesting_of_a_hundred_thousand_is_read_wanted_or_not() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let document = format!("{{\"skipped\":{deep},\"text\":{deep},\"list\":[{deep}],\"usage\":null}}");
        let (found, state) = few(document.as_bytes());
        assert_eq!((found.last(), state), (Some(&(Node::Usage, Seen::Null)), State::Complete));
        // Everything wanted: the stack ends, the rest is skipped.
        let (found, state) = scan::<Everything>([deep.as_bytes()]);
        assert_eq!((found.len(), state), (2 * tally_core::json::MAX_DEPTH, State::Complete));
    }
}

#[test]
fn a_line_of_ten_megabytes_is_skipped_and_a_wanted_one_is_cut() {
    let long = "data: [DONE] \\\" \\\\ \\n usage ".repeat(400_000);
    let document = format!("{{\"skipped\":\"{long}\",\"text\":\"{long}\",\"usage\":null}}");
    assert!(document.len() > 20_000_000);
    for size in [document.len(), 16 << 10, 1000] {
        let (found, state) = scan::<Few>(document.as_bytes().chunks(size));
        let plain = "data: [DONE] \" \\ \n usage ".repeat(100);
        assert_eq!(found[1], (Node::Text, text(&plain[..MAX_TEXT])));
        assert_eq!((found[2].clone(), state), ((Node::Usage, Seen::Null), State::Complete));
    }
}

/// JSON texts with white space, escapes and odd numbers; keys repeat and collide.
fn documents() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        3 => "[a-z\"\\\\/ü€😀\u{0}-\u{1f}]{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => "(\\\\u00[0-7][0-9a-f]|\\\\ud83[d-f]\\\\ude[0-9A-F]{2}|\\\\[\"\\\\/bfnrt]|[a-c€]){0,9}"
            .prop_map(|text| format!("\"{text}\"")),
        1 => (1020..1030_usize).prop_map(|length| format!("\"{}é\"", "x".repeat(length))),
    ];
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,21})(\\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?",
        any::<u64>().prop_map(|number| number.to_string())
    ];
    let leaf =
        prop_oneof![string.clone(), number, Just("true".to_owned()), Just("false".to_owned()), Just("null".to_owned())];
    let space = "[ \\n\\t\\r]{0,2}";
    leaf.prop_recursive(20, 60, 5, move |inner| {
        let value = (space, inner, space).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        prop_oneof![
            vec(value.clone(), 0..5).prop_map(|values| format!("[{}]", values.join(","))),
            vec((space, string.clone(), space, value), 0..5).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(before, key, after, value)| format!("{before}{key}{after}:{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn check<S: Schema<Node = u64>>(document: &[u8], cuts: &[u8]) -> Result<(), TestCaseError> {
    let whole = scan::<S>([document]);
    if let Some(theirs) = read::<S>(document) {
        prop_assert_eq!(whole.1, State::Complete);
        prop_assert!(agree(&whole.0, &theirs), "{:?}\n{:?}", whole.0, theirs);
    }
    prop_assert_eq!(&scan::<S>(pieces(document, cuts)), &whole);
    prop_assert_eq!(scan::<S>(document.chunks(1)), whole);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_cut_of_any_document_gives_what_serde_json_finds(document in documents(), cuts in vec(0..40_u8, 1..8)) {
        prop_assert!(read::<Everything>(document.as_bytes()).is_some() || document.contains(['e', 'E']));
        check::<Everything>(document.as_bytes(), &cuts)?;
        check::<Most>(document.as_bytes(), &cuts)?;
    }

    #[test]
    fn any_cut_of_a_spoilt_document_gives_the_same(
        document in documents(),
        spoils in vec((any::<prop::sample::Index>(), 0..3_u8, prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'}')]), 1..4),
        cuts in vec(0..9_u8, 1..8),
    ) {
        let mut bytes = document.into_bytes();
        for (at, how, byte) in spoils {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        check::<Everything>(&bytes, &cuts)?;
        check::<Most>(&bytes, &cuts)?;
    }

    #[test]
    fn any_cut_of_any_bytes_gives_the_same(
        bytes in vec(prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\ 0-.eutrnlsfa"[..])], 0..60),
        cuts in vec(0..9_u8, 1..8),
    ) {
        check::<Everything>(&bytes, &cuts)?;
        check::<Most>(&bytes, &cuts)?;
    }
}
