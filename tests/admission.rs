//! Admission on a fake Envoy that aborts where the real one would crash: whatever comes in whatever order, each request
//! that asked has one result, and no stream is acted on twice or after its end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod host;

use host::grpc::Place;
use host::{Envoy, Stream};
use prost::Message;
use tally_core::admission::{EnqueueAndWaitRequest, EnqueueAndWaitResponse, Outcome, Refusal, ReportRequest};

const CHAT: &str = "/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
const ANSWER: &[u8] =
    br#"{"model":"m","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":11,"completion_tokens":7}}"#;
const MS: u64 = 1_000_000;
const OPEN: &str = r#"{"admission":{"timeout_ms":5000}}"#;
const CLOSED: &str = r#"{"admission":{"timeout_ms":5000,"on_failure":"closed"}}"#;

/// A request of this tenant, as far as its head.
fn ask(envoy: &Envoy, tenant: &str) -> Stream {
    let stream = envoy.stream();
    stream.request_head(
        &[
            (":method", b"POST"),
            (":path", CHAT.as_bytes()),
            ("content-length", b"60"),
            ("x-gateway-inference-fairness-id", tenant.as_bytes()),
        ],
        false,
    );
    stream
}

/// Envoy goes on with a request: its body, the answer, the end.
fn finish(stream: Stream) {
    assert_eq!(stream.place(), Place::Gone);
    stream.request_body(ASK, true);
    stream.response_head("200", "application/json", false);
    stream.response_body(ANSWER, true);
    stream.end();
}

fn dispatched() -> Vec<u8> {
    EnqueueAndWaitResponse { outcome: Outcome::Dispatched.into(), ..Default::default() }.encode_to_vec()
}

fn refused(refusal: Refusal) -> Vec<u8> {
    let outcome = Outcome::RejectedCapacity.into();
    EnqueueAndWaitResponse { outcome, refusal: Some(refusal), ..Default::default() }.encode_to_vec()
}

/// The token of the only call that waits.
fn token(envoy: &Envoy) -> u32 {
    let calls = envoy.grpc_calls();
    assert_eq!(calls.len(), 1);
    calls[0].0
}

/// Results that were counted, without the zeros: dispatched, rejected, failed open, failed closed, cancelled.
fn results(envoy: &Envoy) -> [i64; 5] {
    envoy.settle();
    ["dispatched", "rejected", "failed_open", "failed_closed", "cancelled"]
        .map(|result| envoy.stat(&format!("result=.={result};.;tally_filter_admissions_total")))
}

fn outcome(envoy: &Envoy, model: &str, outcome: &str) -> i64 {
    let labels = format!("model_name=.={model};.;target_model_name=.={model};.;outcome=.={outcome};.;");
    envoy.stat(&format!("{labels}inference_objective_request_outcome_total"))
}

fn reports(envoy: &Envoy) -> Vec<ReportRequest> {
    let streams = envoy.grpc_streams();
    assert_eq!(streams.len(), 1);
    streams[0].1.messages.iter().map(|message| ReportRequest::decode(&message[..]).unwrap()).collect()
}

#[test]
fn without_its_object_in_the_configuration_nobody_is_asked() {
    let envoy = Envoy::start("{}");
    finish(ask(&envoy, "alice"));
    assert_eq!(envoy.calls("grpc_call"), 0);
    assert_eq!(results(&envoy), [0, 0, 0, 0, 0]);
    assert!(envoy.grpc_streams().is_empty());
}

#[test]
fn a_request_waits_in_its_head_until_it_is_let_go() {
    let envoy = Envoy::start(OPEN);
    let stream = ask(&envoy, "alice");
    assert_eq!(stream.place(), Place::Paused);
    let (token, call) = envoy.grpc_calls().remove(0);
    // `envoy.config.core.v3.GrpcService` with the default cluster's name.
    assert_eq!(call.upstream, b"\n\x08\n\x06tallyd");
    assert_eq!(call.path, "tally.admission.v1.FlowControl/EnqueueAndWait");
    assert_eq!(call.timeout_ms, 6_000);
    let question = EnqueueAndWaitRequest::decode(&call.messages[0][..]).unwrap();
    assert_eq!((question.fairness_id.as_str(), question.bytes, question.patience_millis), ("alice", 60, 5_000));
    assert_ne!((question.reporter, question.request), (0, 0));
    envoy.pass(1_000 * MS);
    envoy.grpc_answer(token, &dispatched());
    finish(stream);
    assert_eq!(results(&envoy), [1, 0, 0, 0, 0]);
    assert_eq!(outcome(&envoy, "m", "complete"), 1);
    // The time in the queue is the client's time, too.
    let sum = "model_name=.=m;.;target_model_name=.=m;.;inference_objective_request_duration_seconds_sum";
    assert_eq!(envoy.stat(sum), 1);
}

#[test]
fn what_is_not_measured_is_not_asked_about() {
    let envoy = Envoy::start(OPEN);
    let stream = envoy.stream();
    stream.request_head(&[(":method", b"GET"), (":path", b"/v1/models")], true);
    assert_eq!(stream.place(), Place::Gone);
    stream.response_head("200", "application/json", true);
    stream.end();
    assert_eq!(envoy.calls("grpc_call"), 0);
}

#[test]
fn a_refusal_is_passed_on_with_its_status_body_and_headers() {
    let envoy = Envoy::start(OPEN);
    let stream = ask(&envoy, "alice");
    let refusal = Refusal {
        status: 429,
        body: "full".into(),
        reason: "rejected-saturated".into(),
        retry_after_seconds: 7,
        unavailable: false,
    };
    envoy.grpc_answer(token(&envoy), &refused(refusal));
    let reply = stream.pass_reply();
    assert_eq!((reply.status, reply.body.as_str()), (429, "full"));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        reply.headers,
        [header("retry-after", "7"), header("x-llm-d-request-dropped-reason", "rejected-saturated")]
    );
    stream.end();
    assert_eq!(results(&envoy), [0, 1, 0, 0, 0]);
    assert_eq!(outcome(&envoy, "unknown", "rejected"), 1);
    let errors = envoy.stats_with("error_code=.=ResourceExhausted");
    assert_eq!(errors.iter().map(|(_, value)| value).sum::<i64>(), 1);
}

#[test]
fn no_decision_lets_a_request_pass_or_answers_it_as_configured() {
    let refusal = Refusal { status: 500, unavailable: true, ..Refusal::default() };
    for (configuration, is_open) in [(OPEN, true), (CLOSED, false)] {
        let envoy = Envoy::start(configuration);
        let mut streams = Vec::new();
        let mut fail = |end: &dyn Fn(u32)| {
            let stream = ask(&envoy, "alice");
            end(token(&envoy));
            streams.push(stream);
        };
        fail(&|token| envoy.grpc_close(token, 14));
        fail(&|token| envoy.grpc_close(token, 12));
        fail(&|token| envoy.grpc_answer(token, b""));
        fail(&|token| envoy.grpc_answer(token, b"\xff\xff\xff"));
        fail(&|token| envoy.grpc_answer(token, &refused(refusal.clone())));
        envoy.fail(&["grpc_call"]);
        streams.push(ask(&envoy, "alice"));
        envoy.fail(&[]);
        for stream in streams {
            if is_open {
                finish(stream);
            } else {
                let reply = stream.pass_reply();
                assert_eq!(reply.status, 503);
                assert_eq!(reply.body, "inference gateway: ServiceUnavailable - flow control could not be reached");
                stream.end();
            }
        }
        assert_eq!(results(&envoy), if is_open { [0, 0, 6, 0, 0] } else { [0, 0, 0, 6, 0] });
    }
}

#[test]
fn a_client_that_leaves_gives_its_place_up_and_a_late_answer_finds_nobody() {
    let envoy = Envoy::start(OPEN);
    let stream = ask(&envoy, "alice");
    let token = token(&envoy);
    stream.leave();
    assert_eq!(envoy.cancelled(), [token]);
    // Envoy has not deleted the stream yet: acting on it now would crash.
    envoy.grpc_answer(token, &dispatched());
    stream.end();
    envoy.grpc_answer(token, &dispatched());
    assert_eq!(results(&envoy), [0, 0, 0, 0, 1]);
    assert_eq!(outcome(&envoy, "unknown", "client_cancelled"), 1);
    // The companion may have let it go before it heard of the cancel.
    let report = reports(&envoy).remove(0);
    assert_eq!((report.completed.len(), report.running.unwrap().requests.len()), (1, 0));
}

#[test]
fn after_the_deadline_it_is_decided_without_an_answer_and_a_late_answer_changes_nothing() {
    for (configuration, is_open) in [(OPEN, true), (CLOSED, false)] {
        for answer in [dispatched(), refused(Refusal { status: 429, ..Refusal::default() })] {
            let envoy = Envoy::start(configuration);
            let stream = ask(&envoy, "alice");
            let token = token(&envoy);
            envoy.tick_after(6_999 * MS);
            assert_eq!(stream.place(), Place::Paused);
            envoy.tick_after(MS);
            assert_eq!(envoy.cancelled(), [token]);
            envoy.grpc_answer(token, &answer);
            envoy.grpc_close(token, 14);
            envoy.tick_after(10_000 * MS);
            if is_open {
                finish(stream);
            } else {
                assert_eq!(stream.pass_reply().status, 503);
                envoy.grpc_answer(token, &answer);
                stream.end();
            }
            assert_eq!(results(&envoy), if is_open { [0, 0, 1, 0, 0] } else { [0, 0, 0, 1, 0] });
        }
    }
}

#[test]
fn a_request_that_envoy_answers_itself_while_it_waits_is_left_alone() {
    let envoy = Envoy::start(OPEN);
    let stream = ask(&envoy, "alice");
    let token = token(&envoy);
    stream.response_head("408", "text/plain", false);
    assert_eq!(envoy.cancelled(), [token]);
    envoy.grpc_answer(token, &dispatched());
    stream.response_body(b"request timeout", true);
    envoy.tick_after(10_000 * MS);
    stream.end_with(1 << 22, "request_overall_timeout");
    assert_eq!(results(&envoy), [0, 0, 0, 0, 1]);
    assert_eq!(outcome(&envoy, "unknown", "timeout"), 1);
}

#[test]
fn when_the_root_ends_nobody_is_left_waiting() {
    for (configuration, is_open) in [(OPEN, true), (CLOSED, false)] {
        let envoy = Envoy::start(configuration);
        let root = envoy.root();
        let (waiting, late) = (ask(&envoy, "alice"), envoy.stream());
        let token = token(&envoy);
        envoy.end_root(root);
        assert_eq!(envoy.cancelled(), [token]);
        envoy.grpc_answer(token, &dispatched());
        // A request that comes after it: there is no tick that could see to its deadline.
        late.post(CHAT);
        assert!(envoy.grpc_calls().is_empty());
        for stream in [waiting, late] {
            if is_open {
                finish(stream);
            } else {
                assert_eq!(stream.pass_reply().status, 503);
                stream.end();
            }
        }
        let of = |result: &str| envoy.stat(&format!("result=.={result};.;tally_filter_admissions_total"));
        assert_eq!([of("failed_open"), of("failed_closed")], if is_open { [2, 0] } else { [0, 2] });
    }
}

#[test]
fn the_companion_is_told_of_ends_at_once_and_of_what_runs_from_time_to_time() {
    let envoy = Envoy::start(OPEN);
    let numbers = |envoy: &Envoy| {
        let (token, call) = envoy.grpc_calls().remove(0);
        let question = EnqueueAndWaitRequest::decode(&call.messages[0][..]).unwrap();
        envoy.grpc_answer(token, &dispatched());
        (question.reporter, question.request)
    };
    let long = ask(&envoy, "alice");
    let (reporter, first) = numbers(&envoy);
    let short = ask(&envoy, "alice");
    let (_, second) = numbers(&envoy);
    assert!(envoy.grpc_streams().is_empty(), "streams are opened by the tick");
    envoy.tick_after(250 * MS);
    let report = reports(&envoy);
    assert_eq!(report.len(), 1);
    assert_eq!(report[0].reporter, reporter);
    assert_eq!(report[0].running.as_ref().unwrap().requests, [first, second]);
    finish(short);
    let report = reports(&envoy).remove(1);
    let completed = report.completed[0];
    assert_eq!((completed.request, completed.prompt_tokens, completed.output_tokens), (second, 11, 7));
    assert!(report.running.is_none());
    envoy.tick_after(3_000 * MS);
    assert_eq!(reports(&envoy)[2].running.as_ref().unwrap().requests, [first]);
    finish(long);
    assert_eq!(reports(&envoy)[3].completed[0].request, first);
    for list in 4..7 {
        envoy.tick_after(3_000 * MS);
        assert!(reports(&envoy)[list].running.as_ref().unwrap().requests.is_empty());
    }
    envoy.tick_after(30_000 * MS);
    assert_eq!(reports(&envoy).len(), 7, "then there is nothing to say");
}

#[test]
fn a_report_stream_that_breaks_is_opened_again_later_and_nothing_is_lost() {
    let envoy = Envoy::start(OPEN);
    let stream = ask(&envoy, "alice");
    envoy.grpc_answer(token(&envoy), &dispatched());
    envoy.tick_after(250 * MS);
    let first = envoy.grpc_streams()[0].0;
    envoy.grpc_close(first, 14);
    finish(stream);
    assert!(envoy.grpc_streams().is_empty());
    envoy.tick_after(100 * MS);
    assert!(envoy.grpc_streams().is_empty(), "it waits before it tries again");
    envoy.tick_after(150 * MS);
    let report = reports(&envoy).remove(0);
    assert_eq!((report.completed.len(), report.running.unwrap().requests.len()), (1, 0));
    // A companion that is gone for long is asked ever more seldom.
    for _ in 0..20 {
        if let Some((token, _)) = envoy.grpc_streams().first() {
            envoy.grpc_close(*token, 14);
        }
        let stream = ask(&envoy, "alice");
        envoy.grpc_answer(token(&envoy), &dispatched());
        envoy.tick_after(10 * MS);
        finish(stream);
    }
    envoy.take_calls();
    for _ in 0..100 {
        if let Some((token, _)) = envoy.grpc_streams().first() {
            envoy.grpc_close(*token, 14);
        }
        envoy.tick_after(250 * MS);
    }
    assert!(envoy.calls("grpc_stream") <= 8, "{}", envoy.calls("grpc_stream"));
}

#[test]
fn a_clock_that_is_set_back_does_not_silence_the_reports() {
    const HOUR: u64 = 3_600_000 * MS;
    let envoy = Envoy::start(OPEN);
    let stream = ask(&envoy, "alice");
    envoy.grpc_answer(token(&envoy), &dispatched());
    envoy.tick_after(250 * MS);
    assert_eq!(reports(&envoy).len(), 1);
    envoy.set_back(HOUR);
    for _ in 0..4 {
        envoy.tick_after(1_000 * MS);
    }
    assert_eq!(reports(&envoy).len(), 2, "a list every three seconds");
    // The same while the stream waits to be opened again.
    envoy.grpc_close(envoy.grpc_streams()[0].0, 14);
    envoy.set_back(HOUR);
    for _ in 0..4 {
        envoy.tick_after(1_000 * MS);
    }
    assert_eq!(envoy.grpc_streams().len(), 1);
    finish(stream);
}

#[test]
fn two_callers_have_two_numbers() {
    let mut envoy = Envoy::start(OPEN);
    let reporter = |envoy: &Envoy| {
        let stream = ask(envoy, "alice");
        let (token, call) = envoy.grpc_calls().remove(0);
        envoy.grpc_answer(token, &dispatched());
        finish(stream);
        EnqueueAndWaitRequest::decode(&call.messages[0][..]).unwrap().reporter
    };
    let first = reporter(&envoy);
    // In the same nanosecond.
    assert!(envoy.add_root(OPEN));
    assert_ne!(first, reporter(&envoy));
}

/// Every order of what can happen to a waiting request, three deep, and again after it: one result, no crash.
#[test]
fn whatever_comes_in_whatever_order_there_is_one_result() {
    const EVENTS: usize = 6;
    for configuration in [OPEN, CLOSED] {
        let envoy = Envoy::start(configuration);
        let mut asked = 0;
        for order in 0..EVENTS.pow(3) {
            let stream = ask(&envoy, "alice");
            let token = token(&envoy);
            asked += 1;
            let mut has_left = false;
            for step in [order % EVENTS, order / EVENTS % EVENTS, order / EVENTS / EVENTS] {
                match step {
                    0 => envoy.grpc_answer(token, &dispatched()),
                    1 => envoy.grpc_answer(token, &refused(Refusal { status: 429, ..Refusal::default() })),
                    2 => envoy.grpc_close(token, 14),
                    3 => envoy.tick_after(10_000 * MS),
                    4 if !has_left => {
                        stream.leave();
                        has_left = true;
                    }
                    5 if !has_left && matches!(stream.place(), Place::Answered(_)) => {
                        stream.pass_reply();
                    }
                    _ => {}
                }
            }
            stream.end();
        }
        assert_eq!(results(&envoy).iter().sum::<i64>(), asked);
        assert_eq!(envoy.stat("tally_filter_live_streams"), 0);
        let requests = envoy.stats_with("request_outcome_total").iter().map(|(_, value)| value).sum::<i64>();
        assert_eq!(requests, asked);
    }
}
