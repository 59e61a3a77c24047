//! Changed traffic through the whole filter on a fake Envoy: which headers go, what is measured, what passes untouched.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod host;

use host::grpc::Place;
use host::{Envoy, Stream};

const CHAT: &str = "/v1/chat/completions";
const BOTH: &str = r#"{"inject_usage":true,"model_rewrites":[{"model":"chat","targets":[{"model":"big"}]}]}"#;
const SILENT: &[u8] = br#"{"model":"chat","stream":true}"#;
const USAGE: &[u8] =
    b"data: {\"model\":\"big\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\n";

fn post(stream: &Stream) {
    let headers: [(&str, &[u8]); 4] =
        [(":method", b"POST"), (":path", CHAT.as_bytes()), ("content-length", b"30"), ("accept-encoding", b"gzip")];
    stream.request_head(&headers, false);
}

fn stat(model: &str, target: &str, family: &str) -> String {
    format!("model_name=.={model};.;target_model_name=.={target};.;inference_objective_{family}")
}

#[test]
fn the_injected_usage_is_measured_and_kept_from_the_client() {
    let envoy = Envoy::start(BOTH);
    let stream = envoy.stream();
    post(&stream);
    assert_eq!(stream.sent_headers(true), [":method", ":path"]);
    stream.request_body(SILENT, true);
    let sent = String::from_utf8(stream.sent_request()).unwrap();
    assert_eq!(sent, r#"{"model":"big","stream":true,"stream_options":{"include_usage":true}}"#);
    stream
        .response_headers(&[(":status", "200"), ("content-type", "text/event-stream"), ("content-length", "9")], false);
    assert_eq!(stream.sent_headers(false), [":status", "content-type"]);
    stream.response_body(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"model\":\"big\"}\n\n", false);
    let sent = String::from_utf8(stream.sent_response()).unwrap();
    assert_eq!(sent, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"model\":\"chat\"}\n\n");
    stream.response_body(&USAGE[..40], false);
    assert_eq!(stream.sent_response(), b"");
    stream.response_body(&USAGE[40..], false);
    assert_eq!(stream.sent_response(), b"");
    stream.response_body(b"data: [DONE]\n\n", true);
    assert_eq!(stream.sent_response(), b"data: [DONE]\n\n");
    stream.end();
    envoy.settle();
    assert_eq!(envoy.stat(&stat("chat", "big", "input_tokens_sum")), 11);
    assert_eq!(envoy.stat(&stat("chat", "big", "output_tokens_sum")), 7);
    assert_eq!(envoy.stat(&stat("chat", "big", "request_sizes_sum")), i64::try_from(SILENT.len()).unwrap());
}

#[test]
fn what_is_not_to_be_changed_is_not_touched() {
    for configuration in ["{}", BOTH] {
        let envoy = Envoy::start(configuration);
        let stream = envoy.stream();
        stream.post("/v1/models");
        envoy.take_calls();
        stream.request_body(SILENT, true);
        stream.end();
        let stream = envoy.stream();
        stream.post(CHAT);
        stream.request_body(br#"{"model":"other"}"#, true);
        stream.response_head("200", "application/json", false);
        stream.response_body(br#"{"model":"big"}"#, true);
        stream.end();
        assert_eq!(envoy.take_calls().get("set_buffer"), None, "{configuration}");
    }
    let envoy = Envoy::start("{}");
    let stream = envoy.stream();
    post(&stream);
    assert_eq!(stream.sent_headers(true).len(), 4);
    assert_eq!(envoy.take_calls().get("remove_header"), None);
    stream.end();
}

#[test]
fn accept_encoding_goes_where_it_is_told_to_and_only_on_measured_paths() {
    let envoy = Envoy::start(r#"{"drop_accept_encoding":true}"#);
    let stream = envoy.stream();
    post(&stream);
    assert_eq!(stream.sent_headers(true), [":method", ":path", "content-length"]);
    stream.end();
    let stream = envoy.stream();
    stream.request_head(&[(":method", b"POST"), (":path", b"/upload"), ("accept-encoding", b"gzip")], false);
    assert_eq!(stream.sent_headers(true).len(), 3);
    stream.end();
}

#[test]
fn a_piece_that_cannot_be_read_ends_the_changes_of_its_stream() {
    let envoy = Envoy::start(BOTH);
    let stream = envoy.stream();
    post(&stream);
    envoy.fail(&["get_buffer"]);
    stream.request_body(&SILENT[..9], false);
    envoy.fail(&[]);
    stream.request_body(&SILENT[9..], true);
    assert_eq!(stream.sent_request(), &SILENT[9..]);
    stream.end();
}

const ROUTE: &str = r#"{"route_header":"x-model","route_wait_bytes":1024,"model_rewrites":[{"model":"chat","targets":[{"model":"big"}]}]}"#;

fn routed(stream: &Stream) {
    let headers: [(&str, &[u8]); 3] = [(":method", b"POST"), (":path", CHAT.as_bytes()), ("x-model", b"forged")];
    assert!(stream.request_head_waits(&headers));
    assert_eq!(stream.sent_header("x-model"), None);
}

#[test]
fn the_head_waits_until_the_body_has_named_the_model() {
    let envoy = Envoy::start(ROUTE);
    let stream = envoy.stream();
    routed(&stream);
    let body = br#"{"messages":[],"model":"chat","n":1}"#;
    assert!(stream.request_body_waits(&body[..8], false));
    assert!(stream.request_body_waits(&body[..26], false));
    assert!(!stream.request_body_waits(&body[..32], false));
    assert_eq!(stream.sent_header("x-model").as_deref(), Some("chat"));
    assert_eq!(String::from_utf8(stream.sent_request()).unwrap(), r#"{"messages":[],"model":"big","n"#);
    stream.request_body(&body[32..], true);
    stream.response_head("200", "application/json", false);
    stream.response_body(b"{}", true);
    stream.end();
    envoy.tick_after(5_000_000_000);
    envoy.settle();
    assert_eq!(envoy.stat(&stat("chat", "big", "request_sizes_sum")), i64::try_from(body.len()).unwrap());
}

#[test]
fn a_head_never_waits_for_what_will_not_come() {
    let envoy = Envoy::start(ROUTE);
    for (body, is_last) in [
        ([b"{\"a\":\"".as_slice(), &[b'x'; 1_100]].concat(), false),
        (b"no JSON".to_vec(), false),
        (b"{}".to_vec(), true),
        (br#"{"model":"two\r\nx-admin: 1"}"#.to_vec(), false),
        (format!(r#"{{"model":"{}"}}"#, "m".repeat(300)).into_bytes(), false),
    ] {
        let stream = envoy.stream();
        routed(&stream);
        assert!(!stream.request_body_waits(&body, is_last));
        assert_eq!(stream.sent_header("x-model"), None);
        stream.end();
    }
}

#[test]
fn a_head_that_waits_in_vain_goes_on_although_the_clock_was_set_back() {
    let envoy = Envoy::start(ROUTE);
    let stream = envoy.stream();
    routed(&stream);
    envoy.set_back(3_600_000_000_000);
    envoy.tick_after(250_000_000);
    assert_eq!(envoy.calls("continue_stream"), 0);
    envoy.tick_after(2_500_000_000);
    assert_eq!(envoy.calls("continue_stream"), 1);
    stream.end();
}

#[test]
fn no_client_can_choose_its_route_on_any_path() {
    let envoy = Envoy::start(ROUTE);
    let stream = envoy.stream();
    stream.request_head(&[(":method", b"POST"), (":path", b"/upload"), ("x-model", b"forged")], false);
    assert_eq!(stream.sent_headers(true), [":method", ":path"]);
    stream.end();
}

#[test]
fn a_request_is_changed_to_its_end_even_if_the_answer_comes_first() {
    let envoy = Envoy::start(BOTH);
    let stream = envoy.stream();
    post(&stream);
    stream.request_body(&SILENT[..12], false);
    stream.response_head("200", "text/plain", false);
    stream.request_body(&SILENT[12..], true);
    assert!(stream.sent_request().starts_with(br#""big","stream":true,"stream_options""#));
    stream.end();
}

#[test]
fn a_long_body_is_not_gathered() {
    let envoy = Envoy::start(ROUTE);
    for (length, waits) in [("1024", true), ("1025", false)] {
        let stream = envoy.stream();
        let headers: [(&str, &[u8]); 3] =
            [(":method", b"POST"), (":path", CHAT.as_bytes()), ("content-length", length.as_bytes())];
        assert!(stream.request_head_waits(&headers));
        assert_eq!(stream.request_body_waits(b"{", false), waits, "{length}");
        stream.end();
    }
}

#[test]
fn a_head_whose_body_is_never_shown_is_sent_on_once_and_only_while_its_stream_lives() {
    let envoy = Envoy::start(ROUTE);
    let [hidden, over, shown] = [(); 3].map(|()| envoy.stream());
    for stream in [&hidden, &over, &shown] {
        routed(stream);
    }
    let body = br#"{"model":"chat"}"#;
    assert!(shown.request_body_waits(&body[..4], false));
    over.end();
    envoy.tick_after(1_000_000_000);
    assert_eq!(hidden.place(), Place::Paused);
    for _ in 0..3 {
        envoy.tick_after(1_500_000_000);
    }
    assert_eq!((hidden.place(), shown.place()), (Place::Gone, Place::Paused));
    assert_eq!(envoy.calls("continue_stream"), 1);
    assert!(envoy.log().iter().any(|line| line.contains("allow_on_headers_stop_iteration")));
    hidden.request_body(body, true);
    assert_eq!(hidden.sent_request(), br#"{"model":"big"}"#);
    hidden.end();
    shown.end();
}

#[test]
fn what_was_measured_is_left_for_access_logs_if_it_is_wanted() {
    let body = br#"{"model":"mo\ndel","messages":[]}"#;
    let answer = br#"{"model":"m2","usage":{"prompt_tokens":11,"completion_tokens":7}}"#;
    for (configuration, is_wanted) in [(r#"{"log_fields":true}"#, true), ("{}", false)] {
        let envoy = Envoy::start(configuration);
        let stream = envoy.stream();
        stream.post(CHAT);
        stream.request_body(body, true);
        envoy.pass(1_234_567_000);
        stream.response_head("200", "application/json", false);
        stream.response_body(answer, true);
        stream.end();
        let found = envoy.filter_state();
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("tally.answered_model", "m2"),
            ("tally.api", "chat"),
            ("tally.duration_ms", "1234.567"),
            ("tally.first_byte_ms", "1234.567"),
            ("tally.input_tokens", "11"),
            ("tally.model", "mo_del"),
            ("tally.outcome", "complete"),
            ("tally.output_tokens", "7"),
            ("tally.usage_quality", "found"),
        ];
        assert_eq!(found, if is_wanted { expected.to_vec() } else { Vec::new() });
    }
}

#[test]
fn tokens_in_envoy_s_metadata_are_taken_instead_of_the_own_ones() {
    let answer = br#"{"model":"m","usage":{"prompt_tokens":11,"completion_tokens":7}}"#;
    let key = |path: &str| format!("metadata.filter_metadata.envoy.ai.token_usage.{path}");
    for (configuration, metadata, expected) in [
        (r#"{"envoy_token_usage":true}"#, [Some(100.0), Some(50.0)], (100, 50)),
        (r#"{"envoy_token_usage":true}"#, [None, None], (11, 7)),
        (r#"{"envoy_token_usage":true}"#, [Some(-1.0), Some(0.5)], (11, 7)),
        ("{}", [Some(100.0), Some(50.0)], (11, 7)),
    ] {
        let envoy = Envoy::start(configuration);
        let stream = envoy.stream();
        stream.post(CHAT);
        stream.request_body(br#"{"model":"m"}"#, true);
        for (path, number) in ["input_tokens", "output_tokens"].into_iter().zip(metadata) {
            if let Some(number) = number {
                envoy.set_property(&key(path), &f64::to_le_bytes(number));
            }
        }
        stream.response_head("200", "application/json", false);
        stream.response_body(answer, true);
        stream.end();
        envoy.settle();
        let found = ["input_tokens_sum", "output_tokens_sum"].map(|family| envoy.stat(&stat("m", "m", family)));
        assert_eq!((found[0], found[1]), expected, "{configuration} {metadata:?}");
    }
}
