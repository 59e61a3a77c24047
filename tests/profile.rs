//! The profiles: the same measurements under llm-d's and OpenTelemetry's names, beside the seed's and bounded like them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod host;

use host::{Envoy, Stream};

const CHAT: &str = "/v1/chat/completions";
const ASK: &[u8] = br#"{"model":"m","messages":[]}"#;
const ANSWER: &[u8] =
    br#"{"model":"m-2026","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":11,"completion_tokens":7}}"#;
const MS: u64 = 1_000_000;
const BOTH: &str = r#"{"profile":["llm_d_epp","gen_ai"],"objectives":{"premium":10,"batch":-1}}"#;

/// A stat of llm-d's for model `m`.
fn llm_d(fairness_id: &str, priority: &str, rest: &str) -> String {
    format!("model_name=.=m;.;target_model_name=.=m;.;fairness_id=.={fairness_id};.;priority=.={priority};.;{rest}")
}

/// A stat of OpenTelemetry's for model `m`.
fn gen_ai(answered: &str, rest: &str) -> String {
    format!(
        "gen_ai_operation_name=.=chat;.;gen_ai_provider_name=.=openai;.;gen_ai_request_model=.=m;.;\
         gen_ai_response_model=.={answered};.;{rest}"
    )
}

fn ask(envoy: &Envoy, more: &[(&str, &[u8])]) -> Stream {
    let stream = envoy.stream();
    let mut head: Vec<(&str, &[u8])> = vec![(":method", b"POST"), (":path", CHAT.as_bytes())];
    head.extend(more);
    stream.request_head(&head, false);
    stream.request_body(ASK, true);
    stream
}

fn answer(envoy: &Envoy, stream: Stream) {
    envoy.pass(300 * MS);
    stream.response_head("200", "application/json", false);
    stream.response_body(ANSWER, true);
    stream.end();
}

#[test]
fn without_a_profile_its_families_and_headers_are_not_there() {
    let envoy = Envoy::start("{}");
    envoy.take_calls();
    let head: [(&str, &[u8]); 1] = [("x-gateway-inference-fairness-id", b"alice")];
    answer(&envoy, ask(&envoy, &head));
    let plain = envoy.take_calls()["get_header"];
    envoy.settle();
    assert!(envoy.stats_with("llm_d_epp").is_empty() && envoy.stats_with("gen_ai").is_empty());
    assert!(envoy.stats_with("priority").is_empty() && envoy.stats_with("alice").is_empty());

    let envoy = Envoy::start(r#"{"profile":"gen_ai"}"#);
    envoy.take_calls();
    answer(&envoy, ask(&envoy, &head));
    assert_eq!(envoy.take_calls()["get_header"], plain, "OpenTelemetry's names need no header");
}

#[test]
fn both_profiles_count_what_the_seeds_families_count() {
    let envoy = Envoy::start(BOTH);
    let head: [(&str, &[u8]); 2] =
        [("x-gateway-inference-fairness-id", b"alice"), ("x-gateway-inference-objective", b"premium")];
    answer(&envoy, ask(&envoy, &head));
    answer(&envoy, ask(&envoy, &head));
    answer(&envoy, ask(&envoy, &[("x-llm-d-inference-objective", b"nobody knows it")]));
    envoy.settle();

    let total = "llm_d_epp_request_total";
    assert_eq!(envoy.stat(&llm_d("alice", "10", total)), 2);
    assert_eq!(envoy.stat(&llm_d("default-flow", "0", total)), 1);
    assert_eq!(envoy.stat(&llm_d("alice", "10", "llm_d_epp_request_input_tokens_sum")), 22);
    assert_eq!(envoy.stat(&llm_d("alice", "10", "llm_d_epp_request_output_tokens_sum")), 14);
    assert_eq!(envoy.stat(&llm_d("alice", "10", "le=.=0.4;.;llm_d_epp_request_duration_seconds_bucket")), 2);
    assert_eq!(envoy.stat(&llm_d("alice", "10", "le=.=0.2;.;llm_d_epp_request_duration_seconds_bucket")), 0);
    // No stream: the first byte, 300 ms after the head.
    let ttft = "llm_d_epp_request_ttft_seconds_bucket";
    assert_eq!(envoy.stat(&llm_d("alice", "10", &format!("streaming=.=false;.;le=.=0.4;.;{ttft}"))), 2);
    assert!(envoy.stats_with("streaming=.=true").is_empty());

    let usage = |kind: &str| gen_ai("m-2026", &format!("gen_ai_token_type=.={kind};.;gen_ai_client_token_usage_sum"));
    assert_eq!([envoy.stat(&usage("input")), envoy.stat(&usage("output"))], [33, 21]);
    assert_eq!(envoy.stat(&gen_ai("m-2026", "le=.=0.32;.;gen_ai_server_request_duration_seconds_bucket")), 3);
    assert_eq!(envoy.stat(&gen_ai("m-2026", "le=.=0.16;.;gen_ai_server_request_duration_seconds_bucket")), 0);
    // The seed's families are there too, without more labels.
    assert_eq!(envoy.stat("model_name=.=m;.;target_model_name=.=m;.;inference_objective_request_total"), 3);
}

#[test]
fn a_stream_has_its_first_token_and_the_time_per_token() {
    let envoy = Envoy::start(BOTH);
    let stream = ask(&envoy, &[]);
    stream.response_head("200", "text/event-stream", false);
    envoy.pass(50 * MS);
    stream.response_body(b"data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n", false);
    envoy.pass(50 * MS);
    stream.response_body(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", false);
    envoy.pass(40 * MS);
    stream.response_body(b"data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n", false);
    stream.response_body(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n", true);
    stream.end();
    envoy.settle();

    let of_llm_d = |rest: &str| envoy.stat(&llm_d("default-flow", "0", rest));
    // 100 ms to the first token, which is a bound and inside it; 40 ms to the second, one too.
    let ttft = |le: &str| of_llm_d(&format!("streaming=.=true;.;le=.={le};.;llm_d_epp_request_ttft_seconds_bucket"));
    assert_eq!([ttft("0.05"), ttft("0.1")], [0, 1]);
    let tpot = |le: &str| of_llm_d(&format!("le=.={le};.;llm_d_epp_request_streaming_tpot_seconds_bucket"));
    assert_eq!([tpot("0.02"), tpot("0.04")], [0, 1]);
    let itl = |le: &str| of_llm_d(&format!("le=.={le};.;llm_d_epp_request_streaming_itl_seconds_bucket"));
    assert_eq!([itl("0.02"), itl("0.04")], [0, 1]);
    assert!(envoy.stats_with("streaming=.=false").is_empty());

    let first =
        |le: &str| envoy.stat(&gen_ai("m", &format!("le=.={le};.;gen_ai_server_time_to_first_token_seconds_bucket")));
    assert_eq!([first("0.08"), first("0.1")], [0, 1]);
    let each =
        |le: &str| envoy.stat(&gen_ai("m", &format!("le=.={le};.;gen_ai_server_time_per_output_token_seconds_bucket")));
    assert_eq!([each("0.025"), each("0.05")], [0, 1]);
}

#[test]
fn what_fails_has_a_duration_with_its_error_and_no_more_in_opentelemetrys_families() {
    let envoy = Envoy::start(BOTH);
    let stream = ask(&envoy, &[("x-gateway-inference-objective", b"batch")]);
    envoy.pass(10 * MS);
    stream.response_head("500", "application/json", false);
    stream.response_body(b"{}", true);
    stream.end();
    // A client that leaves in the middle of a stream: no duration, and no first token of a request that did not end well.
    let stream = ask(&envoy, &[]);
    stream.response_head("200", "text/event-stream", false);
    stream.response_body(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", false);
    stream.end_with(16_384, "downstream_remote_disconnect");
    envoy.settle();

    let failed = gen_ai("m", "error_type=.=ModelServerError;.;gen_ai_server_request_duration_seconds_count");
    assert_eq!(envoy.stat(&failed), 1);
    let counts: Vec<_> = envoy.stats_with("gen_ai").into_iter().filter(|(name, _)| name.ends_with("_count")).collect();
    assert_eq!(counts.len(), 1, "{counts:?}");
    let error = "error_code=.=ModelServerError;.;llm_d_epp_request_error_total";
    assert_eq!(envoy.stat(&llm_d("default-flow", "-1", error)), 1);
    assert_eq!(envoy.stat(&llm_d("default-flow", "0", "llm_d_epp_request_total")), 1);
}

#[test]
fn running_requests_are_told_apart_and_come_down_again() {
    let envoy = Envoy::start(BOTH);
    let alice: [(&str, &[u8]); 1] = [("x-gateway-inference-fairness-id", b"alice")];
    let streams = [ask(&envoy, &alice), ask(&envoy, &alice), ask(&envoy, &[])];
    envoy.tick_after(250 * MS);
    let running = |flow: &str| envoy.stat(&llm_d(flow, "0", "llm_d_epp_request_running"));
    assert_eq!([running("alice"), running("default-flow")], [2, 1]);
    let [one, two, three] = streams;
    answer(&envoy, one);
    two.drop_unlogged();
    three.end_with(16_384, "downstream_remote_disconnect");
    envoy.settle();
    assert_eq!([running("alice"), running("default-flow")], [0, 0]);
}

#[test]
fn a_running_request_of_a_failed_vm_is_taken_out_under_llm_ds_name_too() {
    let mut envoy = Envoy::start(BOTH);
    let _running_on = ask(&envoy, &[]);
    envoy.tick_after(250 * MS);
    let gauge = llm_d("default-flow", "0", "llm_d_epp_request_running");
    assert_eq!(envoy.stat(&gauge), 1);
    assert!(envoy.add_root("{}"));
    envoy.tick_after(250 * MS);
    envoy.tick_after(10_000 * MS);
    assert_eq!(envoy.stat(&gauge), 0);
}

#[test]
fn hostile_names_stay_below_the_bound_that_is_said_at_start() {
    let config = r#"{"profile":["llm_d_epp","gen_ai"],"metric_labels":"v15","max_models":4,"max_fairness_ids":3,
        "objectives":{"a":1,"b":2}}"#;
    let envoy = Envoy::start(config);
    let line = envoy.log().into_iter().find(|line| line.contains("at most")).unwrap();
    let bound: usize = line.split(' ').find_map(|word| word.parse().ok()).unwrap();
    for number in 0..3_000 {
        let (flow, objective) = (format!("flow-{number}"), ["a", "b", "c"][number % 3]);
        let stream = envoy.stream();
        let path = ["/v1/chat/completions", "/v1/completions", "/v1/messages"][number % 3];
        stream.request_head(
            &[
                (":method", b"POST"),
                (":path", path.as_bytes()),
                ("x-gateway-inference-fairness-id", flow.as_bytes()),
                ("x-gateway-inference-objective", objective.as_bytes()),
                ("x-gateway-model-name-rewrite", format!("target-{}", number % 7).as_bytes()),
            ],
            false,
        );
        stream.request_body(format!(r#"{{"model":"hostile-{}"}}"#, number % 11).as_bytes(), true);
        let status = ["200", "500"][number % 2];
        stream.response_head(status, "application/json", false);
        stream.response_body(format!(r#"{{"model":"answered-{number}"}}"#).as_bytes(), true);
        stream.end();
    }
    envoy.settle();
    let all = envoy.stats_with("");
    assert!(all.len() <= bound, "{} stats, at most {bound} were announced", all.len());
    let sum = |family: &str| {
        all.iter().filter(|(name, _)| name.ends_with(&format!(";{family}"))).map(|(_, value)| value).sum::<i64>()
    };
    // Nothing is lost by folding.
    assert_eq!(sum("inference_objective_request_total"), 3_000);
    assert_eq!(sum("llm_d_epp_request_total"), 3_000);
    assert_eq!(sum("gen_ai_server_request_duration_seconds_count"), 3_000);
    assert_eq!(sum("llm_d_epp_request_running"), 0);
    // `unknown`, `default-flow` and `other` beside three names.
    let flows: std::collections::BTreeSet<_> =
        all.iter().filter_map(|(name, _)| name.split("fairness_id=.=").nth(1)?.split(';').next()).collect();
    assert!(flows.len() <= 6 && flows.contains("other"), "{flows:?}");
    assert!(envoy.stat("label=.=fairness_id;.;tally_filter_label_overflow_total") >= 2_990);
}

#[test]
fn the_total_is_told_apart_by_priority_only_if_told() {
    let envoy = Envoy::start(r#"{"metric_labels":"v15","objectives":{"premium":10}}"#);
    let premium: [(&str, &[u8]); 1] = [("x-gateway-inference-objective", b"premium")];
    answer(&envoy, ask(&envoy, &premium));
    answer(&envoy, ask(&envoy, &[]));
    answer(&envoy, ask(&envoy, &[]));
    envoy.settle();
    let total = |priority: &str| {
        let labels = format!("model_name=.=m;.;target_model_name=.=m;.;priority=.={priority};.;");
        envoy.stat(&format!("{labels}inference_objective_request_total"))
    };
    assert_eq!([total("10"), total("0")], [1, 2]);
    // The other families keep their labels.
    let labels = "model_name=.=m;.;target_model_name=.=m;.;";
    assert_eq!(envoy.stat(&format!("{labels}inference_objective_request_duration_seconds_count")), 3);
    assert_eq!(envoy.stat(&format!("{labels}inference_objective_request_total")), 0);
}

#[test]
fn what_admission_says_of_objectives_and_headers_counts_for_labels_too() {
    let envoy = Envoy::start(
        r#"{"profile":"llm_d_epp","admission":{"objectives":{"premium":7},"objective_headers":["x-o"],"fairness_headers":["x-f"]}}"#,
    );
    let stream = envoy.stream();
    let head: [(&str, &[u8]); 4] =
        [(":method", b"POST"), (":path", CHAT.as_bytes()), ("x-o", b"premium"), ("x-f", b"bob")];
    assert!(stream.request_head_waits(&head));
    stream.end_with(16_384, "downstream_remote_disconnect");
    envoy.settle();
    let labels = "model_name=.=unknown;.;target_model_name=.=unknown;.;fairness_id=.=bob;.;priority=.=7;.;";
    assert_eq!(envoy.stat(&format!("{labels}llm_d_epp_request_total")), 1);
}
