//! The whole filter, natively, on a fake Envoy: phases, odd and failing calls, exactly one end, few calls.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod host;

use host::{Envoy, Stream};

const CHAT: &str = "/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
const ANSWER: &[u8] =
    br#"{"model":"m","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":11,"completion_tokens":7}}"#;
const MS: u64 = 1_000_000;

/// The stat of a family without more labels than the model's.
fn of(model: &str, family: &str) -> String {
    format!("model_name=.={model};.;target_model_name=.={model};.;inference_objective_{family}")
}

fn outcome(model: &str, outcome: &str) -> String {
    format!(
        "model_name=.={model};.;target_model_name=.={model};.;outcome=.={outcome};.;\
         inference_objective_request_outcome_total"
    )
}

fn running(model: &str) -> String {
    format!("model_name=.={model};.;inference_objective_running_requests")
}

fn ask(stream: &Stream) {
    stream.post(CHAT);
    stream.request_body(ASK, true);
}

#[test]
fn a_request_is_counted_with_its_tokens_sizes_and_times() {
    let envoy = Envoy::start("{}");
    let stream = envoy.stream();
    stream.post(CHAT);
    stream.request_body(&ASK[..20], false);
    stream.request_body(&ASK[20..], true);
    envoy.pass(300 * MS);
    stream.response_head("200", "application/json", false);
    stream.response_body(&ANSWER[..30], false);
    stream.response_body(&ANSWER[30..], false);
    envoy.pass(1_200 * MS);
    stream.response_body(b"", true);
    stream.end();
    envoy.settle();

    assert_eq!(envoy.stat(&of("m", "request_total")), 1);
    assert_eq!(envoy.stat(&of("m", "input_tokens_sum")), 11);
    assert_eq!(envoy.stat(&of("m", "output_tokens_sum")), 7);
    assert_eq!(envoy.stat(&of("m", "request_sizes_sum")), i64::try_from(ASK.len()).unwrap());
    assert_eq!(envoy.stat(&of("m", "response_sizes_sum")), i64::try_from(ANSWER.len()).unwrap());
    let bucket = |le: &str| {
        let labels = format!("model_name=.=m;.;target_model_name=.=m;.;le=.={le};.;");
        envoy.stat(&format!("{labels}inference_objective_request_duration_seconds_bucket"))
    };
    // 1.5 s, which is a bound and inside it.
    assert_eq!([bucket("1.25"), bucket("1.5"), bucket("+Inf")], [0, 1, 1]);
    assert_eq!(envoy.stat(&outcome("m", "complete")), 1);
    assert_eq!(envoy.stat(&running("m")), 0);
}

#[test]
fn bytes_and_tokens_go_to_envoys_own_histograms_if_told_and_seconds_never() {
    let envoy = Envoy::start(r#"{"histograms":"envoy"}"#);
    for _ in 0..2_500 {
        let stream = envoy.stream();
        ask(&stream);
        stream.response_head("200", "application/json", false);
        stream.response_body(ANSWER, true);
        stream.end();
    }
    // No tick yet: a full table flushes by itself, or a burst would be held without bound.
    let early = envoy.recorded(&of("m", "input_tokens")).unwrap().len();
    assert_eq!(early, 2_048);
    envoy.settle();
    assert_eq!(envoy.recorded(&of("m", "input_tokens")).unwrap(), vec![11; 2_500]);
    assert_eq!(envoy.recorded(&of("m", "output_tokens")).unwrap(), vec![7; 2_500]);
    assert_eq!(envoy.recorded(&of("m", "request_sizes")).unwrap(), vec![ASK.len() as u64; 2_500]);
    assert!(envoy.stats_with("tokens_bucket").is_empty() && envoy.stats_with("sizes_count").is_empty());
    assert_eq!(envoy.stat(&of("m", "request_duration_seconds_count")), 2_500);

    let envoy = Envoy::start("{}");
    let stream = envoy.stream();
    ask(&stream);
    stream.response_head("200", "application/json", false);
    stream.response_body(ANSWER, true);
    stream.end();
    envoy.settle();
    assert_eq!(envoy.recorded(&of("m", "input_tokens")), None);
}

#[test]
fn seconds_are_carried_on_until_they_are_whole() {
    let envoy = Envoy::start("{}");
    for _ in 0..10 {
        let stream = envoy.stream();
        ask(&stream);
        envoy.pass(350 * MS);
        stream.response_head("200", "application/json", false);
        stream.response_body(ANSWER, true);
        stream.end();
        envoy.settle();
    }
    assert_eq!(envoy.stat(&of("m", "request_duration_seconds_sum")), 3);
    assert_eq!(envoy.stat(&of("m", "request_duration_seconds_count")), 10);
}

#[test]
fn the_running_gauge_goes_up_with_the_model_and_down_whatever_the_end() {
    let envoy = Envoy::start("{}");
    let streams: Vec<_> = (0..4).map(|_| envoy.stream()).collect();
    for stream in &streams {
        stream.post(CHAT);
        // The model is known; the rest of the body has not come.
        stream.request_body(&ASK[..14], false);
    }
    envoy.tick_after(250 * MS);
    assert_eq!(envoy.stat(&running("m")), 4);
    assert_eq!(envoy.stat("tally_filter_live_streams"), 4);
    let mut streams = streams.into_iter();
    streams.next().unwrap().end_with(16_384, "downstream_remote_disconnect");
    streams.next().unwrap().drop_unlogged();
    let refused = streams.next().unwrap();
    refused.response_head("503", "text/plain", false);
    refused.response_body(b"no healthy upstream", true);
    refused.end_with(2, "no_healthy_upstream");
    let answered = streams.next().unwrap();
    answered.response_head("200", "application/json", false);
    answered.response_body(ANSWER, false);
    answered.response_trailers();
    answered.end();
    envoy.settle();

    assert_eq!(envoy.stat(&running("m")), 0);
    assert_eq!(envoy.stat("tally_filter_live_streams"), 0);
    assert_eq!(envoy.stat(&of("m", "request_total")), 4);
    assert_eq!(envoy.stat(&outcome("m", "client_cancelled")), 1);
    assert_eq!(envoy.stat(&outcome("m", "local_reply")), 2);
    assert_eq!(envoy.stat(&outcome("m", "complete")), 1);
    assert!(envoy.stats_with("partial").is_empty());
}

#[test]
fn a_cancelled_stream_keeps_its_tokens_apart() {
    let envoy = Envoy::start("{}");
    let stream = envoy.stream();
    ask(&stream);
    stream.response_head("200", "text/event-stream", false);
    stream.response_body(b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", false);
    stream.response_body(
        b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"co",
        false,
    );
    stream.response_body(b"ntent\":\"b\"}}]}\n\n", false);
    stream.end_with(16_384, "downstream_remote_disconnect");
    envoy.settle();

    assert_eq!(envoy.stat(&of("m", "partial_output_tokens_total")), 2);
    assert_eq!(envoy.stat(&of("m", "output_tokens_count")), 0);
    assert_eq!(envoy.stat(&of("m", "request_duration_seconds_count")), 0);
    assert_eq!(envoy.stat(&of("m", "request_ttft_seconds_count")), 1);
    assert!(envoy.stats_with("error_code").is_empty());
}

#[test]
fn what_is_no_inference_costs_at_most_two_headers() {
    let envoy = Envoy::start("{}");
    envoy.take_calls();
    for (method, path, is_whole) in [("GET", "/v1/models", true), ("GET", CHAT, true), ("POST", "/upload", false)] {
        let stream = envoy.stream();
        stream.request_head(&[(":method", method.as_bytes()), (":path", path.as_bytes())], is_whole);
        if !is_whole {
            stream.request_body(&[b'x'; 1_000], true);
        }
        stream.response_head("200", "text/html", false);
        stream.response_body(b"<html>", true);
        stream.end();
    }
    let calls = envoy.take_calls();
    assert_eq!(calls.keys().copied().collect::<Vec<_>>(), ["get_header"]);
    assert!(calls["get_header"] <= 4, "{calls:?}");
    envoy.settle();
    assert_eq!(envoy.stat("reason=.=path;.;tally_filter_requests_ignored_total"), 2);
    assert_eq!(envoy.stat("reason=.=method;.;tally_filter_requests_ignored_total"), 1);
}

/// Calls of one request on the data path: what the filter costs Envoy. Upper bounds; a change that raises them shows here.
#[test]
fn a_request_makes_few_calls_to_envoy() {
    let envoy = Envoy::start("{}");
    let total = |calls: std::collections::BTreeMap<&str, u64>| calls.values().sum::<u64>();

    envoy.take_calls();
    let stream = envoy.stream();
    ask(&stream);
    stream.response_head("200", "application/json", false);
    stream.response_body(ANSWER, false);
    stream.response_body(b"", true);
    stream.end();
    let plain = envoy.take_calls();
    assert_eq!(plain["get_buffer"], 2, "{plain:?}");
    assert!(total(plain) <= 10);

    let stream = envoy.stream();
    ask(&stream);
    stream.response_head("200", "text/event-stream", false);
    for _ in 0..64 {
        stream.response_body(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", false);
    }
    stream.response_body(b"", true);
    stream.end();
    let events = envoy.take_calls();
    assert!(total(events) <= 64 * 2 + 9);

    // A megabyte with the model in front: one piece is read, the others are only counted.
    let stream = envoy.stream();
    stream.post(CHAT);
    stream.request_body(ASK, false);
    for _ in 0..64 {
        stream.request_body(&[b'x'; 16_384], false);
    }
    stream.request_body(b"", true);
    stream.response_head("200", "application/json", false);
    stream.response_body(ANSWER, true);
    stream.end();
    let upload = envoy.take_calls();
    assert_eq!(upload["get_buffer"], 2, "{upload:?}");
    assert!(total(upload) <= 10);
}

#[test]
fn failing_calls_are_counted_and_change_nothing_for_the_stream() {
    let envoy = Envoy::start("{}");
    envoy.fail(&["get_buffer"]);
    let stream = envoy.stream();
    ask(&stream);
    stream.response_head("200", "application/json", false);
    stream.response_body(ANSWER, true);
    stream.end();
    envoy.fail(&[]);
    envoy.settle();
    assert_eq!(envoy.stat("call=.=get_buffer;.;tally_filter_host_call_errors_total"), 2);
    envoy.fail(&["increment_metric"]);
    envoy.tick_after(250 * MS);
    envoy.fail(&[]);
    envoy.settle();
    assert!(envoy.stat("call=.=increment_metric;.;tally_filter_host_call_errors_total") > 0);
}

#[test]
fn a_bad_configuration_is_refused_in_one_sentence() {
    for (configuration, sentence) in [
        ("{\"max_models\":\"many\"}", "`max_models`: expected a whole number from 1 to 10000, found \"many\""),
        ("nonsense", "expected JSON"),
    ] {
        let (envoy, is_good) = Envoy::try_start(configuration);
        assert!(!is_good);
        assert!(envoy.log().iter().any(|line| line.contains(sentence)), "{:?}", envoy.log());
    }
}

#[test]
fn a_doubtful_configuration_is_taken_with_a_warning() {
    let envoy = Envoy::start(r#"{"tenant_header":"authorization"}"#);
    let log = envoy.log();
    assert!(log.iter().any(|line| line.contains("tally: configuration key `tenant_header`: what stands")), "{log:?}");
    let envoy = Envoy::start("{}");
    assert_eq!(envoy.log().len(), log.len() - 1, "the usual one raises no doubt: {:?}", envoy.log());
}

#[test]
fn tenants_are_written_as_keyed_hashes_if_told() {
    let envoy = Envoy::start(
        r#"{"tenant_header":"x-tenant","hash_tenant":true,"tenant_key":"000102030405060708090a0b0c0d0e0f"}"#,
    );
    let stream = envoy.stream();
    // The name whose hash the reference implementation of SipHash prints for this key.
    let name: Vec<u8> = (0..15).collect();
    stream.request_head(&[(":method", b"POST"), (":path", CHAT.as_bytes()), ("x-tenant", &name)], false);
    stream.request_body(ASK, true);
    stream.response_head("200", "application/json", false);
    stream.response_body(ANSWER, true);
    stream.end();
    envoy.settle();
    let stat = "model_name=.=m;.;tenant=.=a129ca6149be45e5;.;inference_objective_tenant_output_tokens_total";
    assert_eq!(envoy.stat(stat), 7);
}

#[test]
fn a_vm_that_flushes_seldom_is_not_taken_for_failed() {
    let mut envoy = Envoy::start(r#"{"flush_interval_ms":60000}"#);
    let seldom = envoy.root();
    let running_on = envoy.stream();
    ask(&running_on);
    envoy.tick_root_after(seldom, 60_000 * MS);
    assert!(envoy.add_root("{}"));
    for _ in 0..6 {
        envoy.tick_after(10_000 * MS);
        assert_eq!(envoy.stat(&running("m")), 1);
    }
    envoy.tick_after(10_000 * MS);
    assert_eq!(envoy.stat(&running("m")), 0, "overdue by more than five seconds");
}

#[test]
fn the_worst_case_is_said_at_start_and_ten_thousand_models_stay_below_it() {
    let envoy = Envoy::start(r#"{"max_models":5}"#);
    let line = envoy.log().into_iter().find(|line| line.contains("at most")).unwrap();
    let bound: usize = line.split(' ').find_map(|word| word.parse().ok()).unwrap();
    for number in 0..10_000 {
        let stream = envoy.stream();
        stream.post(CHAT);
        stream.request_body(format!(r#"{{"model":"hostile-{number}"}}"#).as_bytes(), true);
        stream.response_head("200", "application/json", false);
        stream.response_body(ANSWER, true);
        stream.end();
    }
    envoy.settle();
    let defined = envoy.stats_with("").len();
    assert!(defined <= bound, "{defined} stats, at most {bound} were announced");
    assert_eq!(envoy.stats_with("hostile").iter().filter(|(name, _)| name.ends_with("_request_total")).count(), 5);
    assert_eq!(envoy.stat(&of("other", "request_total")), 9_995);
    assert!(envoy.stat("label=.=model_name;.;tally_filter_label_overflow_total") >= 9_995);
}

#[test]
fn new_stats_are_spread_over_flushes_and_nothing_is_lost_meanwhile() {
    let envoy = Envoy::start("{}");
    for _ in 0..3 {
        let stream = envoy.stream();
        ask(&stream);
        stream.response_head("200", "application/json", false);
        stream.response_body(ANSWER, true);
        stream.end();
    }
    envoy.take_calls();
    envoy.tick_after(250 * MS);
    let first = envoy.take_calls()["define_metric"];
    assert!((1..=45).contains(&first), "{first}");
    envoy.settle();
    assert_eq!(envoy.stat(&of("m", "output_tokens_sum")), 21);
    // What is known is not defined again.
    envoy.take_calls();
    let stream = envoy.stream();
    ask(&stream);
    stream.response_head("200", "application/json", false);
    stream.response_body(ANSWER, true);
    stream.end();
    envoy.settle();
    assert_eq!(envoy.take_calls().get("define_metric"), None);
}

#[test]
fn what_a_failed_vm_left_in_the_gauges_is_taken_out_once() {
    let envoy = Envoy::start("{}");
    let mut slot = vec![1];
    slot.extend_from_slice(&1_000_000_000_000_000_000_u64.to_le_bytes());
    let gauge = running("lost");
    slot.extend_from_slice(format!("3 {gauge}\n3 tally_filter_live_streams\n").as_bytes());
    envoy.leave_behind("tally.slot.0", slot, &[(&gauge, 3), ("tally_filter_live_streams", 3)]);
    envoy.tick_after(1_000 * MS);
    assert_eq!(envoy.stat(&gauge), 3, "its flush is not long overdue");
    envoy.tick_after(6_000 * MS);
    assert_eq!(envoy.stat(&gauge), 0);
    for _ in 0..3 {
        envoy.tick_after(6_000 * MS);
    }
    envoy.settle();
    assert_eq!(envoy.stat(&gauge), 0);
    assert_eq!(envoy.stat("tally_filter_reaped_streams_total"), 3);
}

#[test]
fn a_failed_vm_s_share_is_taken_back_although_the_clock_was_set_back() {
    let envoy = Envoy::start("{}");
    let mut slot = vec![1];
    slot.extend_from_slice(&1_000_000_000_000_000_000_u64.to_le_bytes());
    let gauge = running("lost");
    slot.extend_from_slice(format!("3 {gauge}\n").as_bytes());
    envoy.leave_behind("tally.slot.0", slot, &[(&gauge, 3)]);
    envoy.set_back(3_600_000 * MS);
    envoy.tick_after(250 * MS);
    assert_eq!(envoy.stat(&gauge), 0);
}

#[test]
fn a_vm_that_was_only_slow_gives_its_share_again() {
    let mut envoy = Envoy::start("{}");
    let slow = envoy.root();
    let stream = envoy.stream();
    ask(&stream);
    envoy.tick_after(250 * MS);
    assert_eq!(envoy.stat(&running("m")), 1);
    // Another root context plays the other VM.
    assert!(envoy.add_root("{}"));
    envoy.tick_after(250 * MS);
    envoy.tick_after(10_000 * MS);
    assert_eq!(envoy.stat(&running("m")), 0, "taken for failed");
    envoy.tick_root_after(slow, MS);
    assert_eq!(envoy.stat(&running("m")), 1, "it lives");
    stream.response_head("200", "application/json", false);
    stream.response_body(ANSWER, true);
    stream.end();
    envoy.tick_root_after(slow, MS);
    assert_eq!(envoy.stat(&running("m")), 0);
}

#[test]
fn after_the_last_tick_every_end_is_still_counted() {
    let envoy = Envoy::start("{}");
    let root = envoy.root();
    let (before, after) = (envoy.stream(), envoy.stream());
    for stream in [&before, &after] {
        ask(stream);
        stream.response_head("200", "application/json", false);
        stream.response_body(ANSWER, true);
    }
    before.end();
    envoy.end_root(root);
    assert_eq!(envoy.stat(&of("m", "output_tokens_sum")), 7);
    after.end();
    assert_eq!(envoy.stat(&of("m", "output_tokens_sum")), 14);
    assert_eq!(envoy.stat(&running("m")), 0);
    assert_eq!(envoy.stat("tally_filter_live_streams"), 0);
}
