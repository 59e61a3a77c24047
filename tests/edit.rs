//! Changed traffic through the whole filter on a fake Envoy: which headers go, what is measured, what passes untouched.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod host;

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
