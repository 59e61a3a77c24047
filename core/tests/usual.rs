//! The shortcut for events that differ only in their text measures what reading them byte by byte measures: there each
//! event's first piece is one byte, which no event begins and ends with.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;
use tally_core::api::Api;
use tally_core::exchange::{Exchange, Measured, RequestHead};
use tally_core::outcome::End;
use tally_core::response::ResponseHead;
use tally_core::timing::Nanos;

/// Measures a stream that came in these pieces, all at the same time.
fn measure(pieces: &[&[u8]]) -> Measured {
    let head = RequestHead { api: Api::Chat, target_model: b"", tenant: b"" };
    let mut exchange = Exchange::begin(&head, Nanos(0));
    exchange.request_chunk(13, Some(br#"{"model":"m"}"#));
    exchange.request_end();
    let head = ResponseHead { status: 200, content_type: b"text/event-stream", content_encoding: b"" };
    exchange.response_head(&head);
    for piece in pieces {
        exchange.response_chunk(piece.len() as u64, Some(piece), Nanos(1));
    }
    exchange.response_end(Nanos(2));
    exchange.end(End::default(), false, Nanos(2))
}

/// All that a measurement says, but for gaps: bytes that come one by one come at the same time here, too.
fn essence(measured: &Measured) -> String {
    let Measured { outcome, usage_quality, answered_model, output_events, usage, first_token, scanned, .. } = measured;
    format!("{outcome:?} {usage_quality:?} {answered_model:?} {output_events} {usage:?} {first_token:?} {scanned:?}")
}

/// Texts as they stand in JSON: with and without escapes, empty, long, with what looks like an event's end.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ a-z]{0,12}",
        1 => Just(String::new()),
        1 => Just(r#"\"a\"b"#.to_owned()),
        1 => Just(r#"\\"#.to_owned()),
        1 => Just(r#"x\"},\"usage\":{\"completion_tokens\":9}"#.to_owned()),
        1 => Just("é\u{20ac}".to_owned()),
        1 => Just("z".repeat(1_500)),
    ]
}

/// Events as servers send them: around the text little changes, or something that matters does.
fn event() -> impl Strategy<Value = String> {
    let around = prop::sample::select(vec![
        (r#"{"model":"a","choices":[{"index":0,"delta":{"content":""#, r#""},"finish_reason":null}]}"#),
        (r#"{"model":"a","choices":[{"index":1,"delta":{"content":""#, r#""},"finish_reason":null}]}"#),
        (
            r#"{"model":"a","choices":[{"index":0,"delta":{"content":""#,
            r#""}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
        ),
        (r#"{"model":"a","choices":[{"index":0,"delta":{"content":""#, r#""}}],"usage":{"completion_tokens":-4}}"#),
        (r#"{"model":"a","choices":[{"index":0,"delta":{"content":""#, r#""}}],"error":{"code":500}}"#),
        (r#"{"model":"a","choices":[{"index":0,"delta":{"content":""#, r#"","tool_calls":[{"id":"x"}]}}]}"#),
        (r#"{"model":"a","choices":[{"index":0,"delta":{"content":""#, r#""}}]"#),
        (r#"{"model":"a","choices":[{"index":0,"delta":{"content":""#, r#""}}]} x"#),
        (r#"{"choices":[{"index":0,"delta":{"content":""#, r#""}}],"model":"late"}"#),
        (r#"{"type":"response.output_text.delta","delta":""#, r#"","sequence_number":17}"#),
        (r#"{"type":"response.output_text.delta","delta":""#, r#"","sequence_number":18}"#),
        (r#"{"delta":""#, r#"","type":"response.output_text.done"}"#),
        (r#"{"delta":""#, r#"","type":"response.output_text.delta"}"#),
        (r#"{"type":"ping","delta":{"text":""#, r#""}}"#),
        (r#"{"usage":{"prompt_tokens":1},"content":""#, r#""}"#),
        (r#"[{"content":""#, r#""},{"content":"more"}]"#),
        (r#""content":""#, r#"""#),
        ("[DONE]", ""),
        ("", ""),
    ]);
    (around, text(), prop::sample::select(vec!["\n\n", "\r\n\r\n", "\ndata: \n\n", "\n: ping\n\n"]))
        .prop_map(|((front, back), text, end)| format!("data: {front}{text}{back}{end}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn events_in_whole_and_in_bytes_are_the_same(
        // Runs of one kind, as a stream has them, and everything mixed.
        runs in prop::collection::vec((event(), prop::collection::vec(text(), 0..4)), 1..12),
    ) {
        let mut stream = String::new();
        for (event, texts) in &runs {
            stream += event;
            for text in texts {
                stream += &event.replacen("\"content\":\"", &format!("\"content\":\"{text}"), 1);
            }
        }
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        prop_assert_eq!(essence(&measure(&[stream.as_bytes()])), essence(&measure(&bytes)), "{}", stream);
    }
}
