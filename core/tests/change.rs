//! Changed traffic: at any split, exactly the wanted edit, and every other byte as it came. The oracle is `serde_json` on
//! whole bodies, and the plain text of what was put together by hand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]
#![cfg(not(target_arch = "wasm32"))]

use proptest::prelude::*;
use serde_json::{Value, json};
use tally_core::api::Api;
use tally_core::change::Change;
use tally_core::config::Config;
use tally_core::response::ResponseHead;

const ASK: &str = r#"{"inject_usage":true}"#;
const REWRITE: &str = r#"{"model_rewrites":[{"model":"chat","targets":[{"model":"big/\"8b\""}]}]}"#;
const BOTH: &str =
    r#"{"inject_usage":true,"model_rewrites":[{"model":"chat","targets":[{"model":"a-longer-target-name"}]}]}"#;
const EVENTS: &[u8] = b"text/event-stream; charset=utf-8";

fn config(text: &str) -> Config {
    Config::parse(text.as_bytes()).unwrap()
}

/// Pieces of `bytes` that end at these places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn request(change: &mut Change, config: &Config, pieces: &[&[u8]]) -> Vec<u8> {
    let mut sent = Vec::new();
    for piece in pieces {
        sent.extend(change.request_chunk(config, piece, false).unwrap_or_else(|| piece.to_vec()));
    }
    sent.extend(change.request_chunk(config, b"", true).unwrap_or_default());
    sent
}

fn answer(change: &mut Change, content_type: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
    let mut sent = Vec::new();
    let is_changed = change.response_head(&ResponseHead { status: 200, content_type, content_encoding: b"" });
    for piece in pieces {
        let other = if is_changed { change.response_chunk(piece, false) } else { None };
        sent.extend(other.unwrap_or_else(|| piece.to_vec()));
    }
    if is_changed {
        sent.extend(change.response_chunk(b"", true).unwrap_or_default());
    }
    sent
}

/// The request as it goes on, whole and cut at every place.
fn sent(configuration: &str, body: &str) -> String {
    let config = config(configuration);
    let run = |pieces: &[&[u8]]| request(&mut Change::begin(&config, Api::Chat, 0).unwrap(), &config, pieces);
    let whole = run(&[body.as_bytes()]);
    for cut in 0..=body.len() {
        let (front, back) = body.as_bytes().split_at(cut);
        assert_eq!(run(&[front, back]), whole, "{body} cut at {cut}");
    }
    assert_eq!(run(&body.as_bytes().chunks(1).collect::<Vec<_>>()), whole);
    String::from_utf8(whole).unwrap()
}

/// A change whose request streamed and asked for no usage, for the model `chat`.
fn streaming(config: &Config) -> Change {
    let mut change = Change::begin(config, Api::Chat, 0).unwrap();
    request(&mut change, config, &[br#"{"model":"chat","stream":true}"#]);
    change
}

#[test]
fn usage_is_asked_for_where_a_streaming_client_was_silent_and_nowhere_else() {
    for (body, expected) in [
        (r#"{"stream":true}"#, Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#)),
        ("{\"stream\" : true\n}\n", Some("{\"stream\" : true\n,\"stream_options\":{\"include_usage\":true}}\n")),
        (r#"{"stream":true,"stream_options":{}}"#, Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#)),
        (
            r#"{"stream_options":{"x":[1]},"stream":true}"#,
            Some(r#"{"stream_options":{"x":[1],"include_usage":true},"stream":true}"#),
        ),
        (
            r#"{"stream":true,"stream_options":null,"a":1}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true},"a":1}"#),
        ),
        (r#"{"\u0073tream":true}"#, Some(r#"{"\u0073tream":true,"stream_options":{"include_usage":true}}"#)),
        (r#"{"stream":false}"#, None),
        (r#"{"stream":null}"#, None),
        (r#"{}"#, None),
        (r#"{"stream":false,"stream_options":{}}"#, None),
        (r#"{"stream":true,"stream_options":{"include_usage":false}}"#, None),
        (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, None),
        (r#"{"stream":true,"stream_options":{"continuous_usage_stats":true}}"#, None),
        (r#"{"stream":true,"stream_options":3}"#, None),
        (r#"{"stream":true,"stream_options":nullnull}"#, None),
        (r#"{"messages":[{"stream":true,"content":"\"stream\":true}"}]}"#, None),
        (r#"[{"stream":true}]"#, None),
        (r#"{"stream":true"#, None),
        (r#"{"stream":true,"stream_options":nul"#, None),
        ("\u{1f}\u{8b}", None),
        ("", None),
    ] {
        assert_eq!(sent(ASK, body), expected.unwrap_or(body));
    }
}

#[test]
fn only_the_model_s_value_is_rewritten() {
    for (body, expected) in [
        (r#"{"model":"chat"}"#, Some(r#"{"model":"big/\"8b\""}"#)),
        (
            r#"{"a":{"model":"chat"},"model" : "chat" ,"b":"chat"}"#,
            Some(r#"{"a":{"model":"chat"},"model" : "big/\"8b\"" ,"b":"chat"}"#),
        ),
        (r#"{"model":"\u0063hat","model":"chat"}"#, Some(r#"{"model":"big/\"8b\"","model":"big/\"8b\""}"#)),
        (r#"{"model":"chatty"}"#, None),
        (r#"{"model":["chat"]}"#, None),
        (r#"{"model":null}"#, None),
        (r#"{"model":"\ud800"}"#, None),
        (r#"{"model":"chat"#, None),
        (r#""model":"chat""#, None),
    ] {
        assert_eq!(sent(REWRITE, body), expected.unwrap_or(body));
    }
    let long = format!(r#"{{"model":"{}","x":1}}"#, "y".repeat(5_000));
    assert_eq!(sent(REWRITE, &long), long);
}

#[test]
fn no_more_than_a_value_is_held_back() {
    let config = config(BOTH);
    let mut change = Change::begin(&config, Api::Chat, 0).unwrap();
    assert_eq!(change.request_chunk(&config, b"{\"messages\":[\"long", false), None);
    assert_eq!(change.request_chunk(&config, b"\"],\"model\":\"ch", false), Some(b"\"],\"model\":".to_vec()));
    assert_eq!(change.target_model(), "");
    assert_eq!(change.request_chunk(&config, b"at\",", false), Some(b"\"a-longer-target-name\",".to_vec()));
    assert_eq!(change.target_model(), "a-longer-target-name");
    assert_eq!(change.request_chunk(&config, b"\"n\":1", false), None);
}

#[test]
fn exactly_the_usage_event_is_taken_out_at_any_split_and_line_end() {
    let config = config(ASK);
    let usage = r#"{"choices":[],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    for (before, event, after) in [
        ("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", format!("data: {usage}\n\n"), "data: [DONE]\n\n"),
        (":\n\n: ping\n\ndata:{\"choices\":[{}]}\r\n\r\n", format!("data:{usage}\r\n\r\n"), "data: [DONE]\r\n\r\n"),
        ("\u{feff}data:{\"choices\":[{}]}\r\r", format!("id: 1\rdata:{usage}\r\r"), "data: [DONE]\r\r"),
        (
            "data: {\"choices\":[],\"prompt_filter_results\":[],\"usage\":null}\n\n",
            "event: x\ndata: {\"choices\":\ndata: [],\"usage\":{}}\n\n".to_owned(),
            "data: x\n\n",
        ),
        ("data: {\"usage\":{},\"choices\":[{}]}\n\n", format!("data: {usage}\n\n"), "\n\r\n: bye\n\n"),
        ("data: [DONE]\n\ndata: {\"choices\":[],\"us", String::new(), "age\":{}"),
        ("data\n\ndata: {\"error\":{\"usage\":{}}}\n\n", format!("data: {usage}\n\n"), &format!("data: {usage}x\n\n")),
        ("", format!("data: {usage}\n\n"), ""),
        ("data: {\"choices\":[{}],\"usage\":{}}\n\n", format!("data: {usage}"), ""),
        // Found by the property below: an object without keys is no list.
        ("data: {\"choices\":{},\"usage\":{}}\n\n", format!("data: {usage}\n\n"), ""),
    ] {
        let text = [before, &event, after].concat();
        let expected = [before, after].concat();
        let bytes = text.as_bytes();
        for first in 0..=bytes.len() {
            for second in (first..=bytes.len()).step_by(if bytes.len() > 150 { 7 } else { 1 }) {
                let cut = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let got = answer(&mut streaming(&config), EVENTS, &cut);
                assert_eq!(String::from_utf8_lossy(&got), expected, "cut at {first} and {second}");
            }
        }
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(answer(&mut streaming(&config), EVENTS, &bytewise), expected.as_bytes());
    }
}

#[test]
fn a_stream_whose_client_asked_itself_keeps_its_usage() {
    let config = config(ASK);
    let body = b"data: {\"choices\":[],\"usage\":{}}\n\n";
    for request_body in [
        &br#"{"stream":true,"stream_options":{"include_usage":true}}"#[..],
        br#"{"stream_options":{},"stream":true,"stream_options":{"include_usage":true}}"#,
        br#"{"stream":false}"#,
    ] {
        let mut change = Change::begin(&config, Api::Chat, 0).unwrap();
        request(&mut change, &config, &[request_body]);
        assert_eq!(answer(&mut change, EVENTS, &[body]), body);
    }
    let head = ResponseHead { status: 200, content_type: EVENTS, content_encoding: b"gzip" };
    assert!(!streaming(&config).response_head(&head), "a compressed answer passes");
}

#[test]
fn an_event_is_let_go_as_soon_as_it_is_not_the_one_and_never_held_beyond_the_bound() {
    let config = config(ASK);
    let head = ResponseHead { status: 200, content_type: EVENTS, content_encoding: b"" };
    let mut change = streaming(&config);
    assert!(change.response_head(&head));
    assert_eq!(change.response_chunk(b": ping\n\n", false), None);
    assert_eq!(change.response_chunk(b"data: {\"id\":1,\"choices\":[", false), Some(Vec::new()));
    assert_eq!(change.response_chunk(b"{", false), Some(b"data: {\"id\":1,\"choices\":[{".to_vec()));
    assert_eq!(change.response_chunk(b"\"delta\":", false), None);
    assert_eq!(change.response_chunk(b"1}]}\n\n", false), None);
    let mut passed = 0;
    for _ in 0..100 {
        passed += change.response_chunk(&[b' '; 1_000], false).map_or(1_000, |bytes| bytes.len());
    }
    assert!(passed > 90_000, "{passed}");
}

#[test]
fn the_client_sees_the_name_it_asked_for() {
    let config = config(BOTH);
    let whole = br#"{"id":"x","model":"a-longer-target-name","choices":[{"message":{"model":"z"}}],"model2":1}"#;
    let expected = br#"{"id":"x","model":"chat","choices":[{"message":{"model":"z"}}],"model2":1}"#;
    let stream = concat!(
        ": ping\n\nevent: message_start\ndata: {\"message\":{\"model\":\"a\\\"b\"}}\n\n",
        "data: {\"model\":\"x\",\r\ndata: \"choices\":[{\"model\":\"q\"}]}\r\n\r\n",
        "data: {\"choices\":[],\"model\":\"x\",\"usage\":{}}\n\n",
        "data: {\"model\":\"x\ndata: y\"}\n\ndata: [DONE]\n\ndata: {\"response\":{\"model\":\"x\"}}\n\n",
    );
    let stream_expected = concat!(
        ": ping\n\nevent: message_start\ndata: {\"message\":{\"model\":\"chat\"}}\n\n",
        "data: {\"model\":\"chat\",\r\ndata: \"choices\":[{\"model\":\"q\"}]}\r\n\r\n",
        "data: {\"model\":\"x\ndata: y\"}\n\ndata: [DONE]\n\ndata: {\"response\":{\"model\":\"chat\"}}\n\n",
    );
    for cut in 0..=stream.len() {
        let (front, back) = stream.as_bytes().split_at(cut);
        let got = answer(&mut streaming(&config), EVENTS, &[front, back]);
        assert_eq!(String::from_utf8_lossy(&got), stream_expected, "cut at {cut}");
    }
    for cut in 0..=whole.len() {
        let (front, back) = whole.split_at(cut);
        assert_eq!(answer(&mut streaming(&config), b"application/json", &[front, back]), expected);
    }
    assert_eq!(answer(&mut streaming(&config), b"text/plain", &[whole]), whole);
    let mut other = Change::begin(&config, Api::Chat, 0).unwrap();
    request(&mut other, &config, &[br#"{"model":"other"}"#]);
    assert_eq!(answer(&mut other, b"application/json", &[whole]), whole);
}

/// Any JSON with the keys that matter in it, in unusual places too.
fn document() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("model"),
        Just("stream"),
        Just("stream_options"),
        Just("include_usage"),
        Just("choices"),
        Just("usage"),
        Just("a\"b\\"),
        Just("\u{20ac}"),
    ];
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|flag| json!(flag)),
        any::<i32>().prop_map(|number| json!(number)),
        Just(json!("chat")),
        "[\\x00-\\x7f\u{e9}]{0,12}".prop_map(|text| json!(text)),
        Just(json!("}\\\"{[")),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|members| {
                Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

/// What the request should say, by the rules of docs/CHANGES.md, on the whole tree. Keys are in order, so `stream` comes
/// before `stream_options`.
fn wanted(mut body: Value) -> Value {
    let Some(object) = body.as_object_mut() else { return body };
    if object.get("model") == Some(&json!("chat")) {
        object.insert("model".to_owned(), json!("a-longer-target-name"));
    }
    let streams = object.get("stream") == Some(&json!(true));
    let may_stream = streams || !object.contains_key("stream");
    match object.get_mut("stream_options") {
        None | Some(Value::Null) if streams => {
            object.insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
        Some(Value::Object(options)) if may_stream && !options.contains_key("include_usage") => {
            options.insert("include_usage".to_owned(), json!(true));
        }
        _ => {}
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_request_says_exactly_what_it_should(
        body in document(), pretty in any::<bool>(), cuts in prop::collection::vec(any::<usize>(), 0..12)
    ) {
        let config = config(BOTH);
        let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        let mut change = Change::begin(&config, Api::Completions, 7).unwrap();
        let got = request(&mut change, &config, &pieces(text.as_bytes(), &cuts));
        let wanted = wanted(body.clone());
        prop_assert_eq!(&serde_json::from_slice::<Value>(&got).unwrap(), &wanted);
        if wanted == body {
            prop_assert_eq!(got, text.into_bytes());
        }
    }

    #[test]
    fn any_bytes_pass_with_any_cuts_as_they_pass_whole(
        bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(any::<usize>(), 0..12),
        text in "([{}\\[\\],:\" \r\n]|data: ?|\"model\":|\"chat\"|\"choices\":\\[\\]|\"usage\":\\{\\}|\"stream\":true|\"stream_options\":|null|x){0,40}"
    ) {
        let config = config(BOTH);
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            for content_type in [EVENTS, b"application/json"] {
                let whole = answer(&mut streaming(&config), content_type, &[bytes]);
                let cut = answer(&mut streaming(&config), content_type, &pieces(bytes, &cuts));
                prop_assert_eq!(&whole, &cut);
            }
            let run = |pieces: &[&[u8]]| request(&mut Change::begin(&config, Api::Chat, 0).unwrap(), &config, pieces);
            prop_assert_eq!(run(&[bytes]), run(&pieces(bytes, &cuts)));
        }
    }

    #[test]
    fn any_stream_loses_its_usage_events_and_gets_its_names_back(
        events in prop::collection::vec((document(), 0..4_u8), 0..6), cuts in prop::collection::vec(any::<usize>(), 0..12)
    ) {
        let config = config(BOTH);
        let (mut text, mut expected) = (String::new(), String::new());
        for (document, end) in events {
            let end = ["\n\n", "\r\n\r\n", "\r\r", "\n: comment\n\n"][usize::from(end)];
            let is_usage = document.get("choices") == Some(&json!([])) && document.get("usage").is_some_and(Value::is_object);
            text.push_str(&format!("data: {document}{end}"));
            // Parsed again and written by serde_json: only where the model is a text does it differ, and only there.
            let mut restored = document;
            if restored.get("model").is_some_and(Value::is_string) {
                restored["model"] = json!("chat");
            }
            if !is_usage {
                expected.push_str(&format!("data: {restored}{end}"));
            }
        }
        let got = answer(&mut streaming(&config), EVENTS, &pieces(text.as_bytes(), &cuts));
        prop_assert_eq!(String::from_utf8_lossy(&got), expected);
    }
}

/// Text of a recording's file.
fn recorded(name: &std::ffi::OsStr, file: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/exchanges").join(name);
    String::from_utf8_lossy(&std::fs::read(folder.join(file)).unwrap()).into_owned()
}

#[test]
fn every_recorded_stream_loses_its_usage_events_and_nothing_else() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/exchanges");
    let (ask, both) = (config(ASK), config(BOTH));
    let (mut streams, mut dropped) = (0, 0);
    for name in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()) {
        let head = recorded(&name, "response.headers").to_ascii_lowercase();
        let text = recorded(&name, "response.body");
        if !head.contains("text/event-stream") || head.contains("content-encoding") || text.contains('\r') {
            continue;
        }
        streams += 1;
        let is_usage = |event: &&str| {
            let data = event.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or_default();
            let value: Value = serde_json::from_str(data).unwrap_or_default();
            value["choices"] == json!([]) && value["usage"].is_object()
        };
        let expected: String = text.split_inclusive("\n\n").filter(|event| !is_usage(event)).collect();
        dropped += usize::from(expected.len() < text.len());
        let bytes = text.as_bytes();
        for size in [1, 3, 100, 5_000, usize::MAX] {
            let cut: Vec<&[u8]> = bytes.chunks(size).collect();
            let got = answer(&mut streaming(&ask), EVENTS, &cut);
            assert_eq!(String::from_utf8_lossy(&got), expected, "{name:?} in pieces of {size}");
            // Recorded JSON is compact, and no recorded text speaks of models in JSON.
            let model = text.split("\"model\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("\n");
            let restored = expected.replace(&format!("\"model\":\"{model}\""), "\"model\":\"chat\"");
            let got = answer(&mut streaming(&both), EVENTS, &cut);
            assert_eq!(String::from_utf8_lossy(&got), restored, "{name:?} in pieces of {size}");
        }
    }
    assert!(streams > 30 && dropped > 5, "{streams} streams, {dropped} with a usage event");
}

#[test]
fn every_recorded_request_says_the_same_but_for_what_is_put_in() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/exchanges");
    let config = config(ASK);
    let mut asked = 0;
    for name in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()) {
        let file: Value = serde_json::from_str(&recorded(&name, "request.json")).unwrap();
        let Some(body) = file["body"].as_str() else { continue };
        for size in [1, 7, usize::MAX] {
            let cut: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
            let mut change = Change::begin(&config, Api::Chat, 0).unwrap();
            let got = String::from_utf8(request(&mut change, &config, &cut)).unwrap();
            let Ok(value) = serde_json::from_str::<Value>(body) else {
                assert_eq!(got, body, "{name:?}");
                continue;
            };
            assert_eq!(serde_json::from_str::<Value>(&got).unwrap(), wanted(value), "{name:?}");
            let put_in = [",\"stream_options\":{\"include_usage\":true}", ",\"include_usage\":true"];
            assert!(got == body || put_in.iter().any(|text| got.replacen(text, "", 1) == body), "{name:?}: {got}");
            asked += usize::from(got != body);
        }
    }
    assert!(asked > 30, "{asked}");
}
