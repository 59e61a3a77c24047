//! The service as Envoys see it: real gRPC over real sockets, in this process.

// Helpers of a test may stop it too; clippy only knows the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod flow_client;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flow_client::{Client, certified, config, pool, question, start, start_with};
use tally_core::admission::{Completed, Outcome, ReportRequest, Running};
use tally_core::exposition::{Format, Writer};
use tallyd::collect::Collect;
use tokio::sync::watch;

/// Polls until `holds`, for twenty seconds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn page(flow: &impl Collect) -> String {
    let mut page = Writer::new(Format::Text);
    flow.collect(&mut page);
    page.finish()
}

/// Sum of the samples whose line starts so.
fn sum(page: &str, start: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(start));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn a_request_goes_at_once_while_there_is_room_and_waits_until_another_has_ended() {
    let server = start(&config("saturationDetector: {maxConcurrency: 1}")).await;
    let client = Client::connect(server.address()).await;
    let first = client.ask(question(1)).await.unwrap();
    assert_eq!((first.outcome(), first.refusal), (Outcome::Dispatched, None));
    let second = tokio::spawn({
        let client = client.clone();
        async move { client.ask(question(2)).await.unwrap() }
    });
    until("the second waits", || server.flow.gate().waiting() == 1).await;
    let reports = client.report();
    let end = Completed { request: 1, prompt_tokens: 5, output_tokens: 7 };
    reports.send(ReportRequest { reporter: 9, completed: vec![end], running: None }).await.unwrap();
    assert_eq!(second.await.unwrap().outcome(), Outcome::Dispatched);
    assert_eq!((server.flow.gate().waiting(), server.flow.gate().running()), (0, 1));
}

#[tokio::test]
async fn a_caller_that_cancels_gives_up_its_place_at_once_and_counts_as_cancelled() {
    let server = start(&config("saturationDetector: {maxConcurrency: 1}")).await;
    let client = Client::connect(server.address()).await;
    client.ask(question(1)).await.unwrap();
    let calls: Vec<_> = (2..502)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.ask(question(number)).await })
        })
        .collect();
    until("all wait", || server.flow.gate().waiting() == 500).await;
    assert_eq!(sum(&page(&server.flow), "inference_extension_flow_control_queue_size"), 500.0);
    for call in &calls {
        call.abort();
    }
    until("none waits", || server.flow.gate().waiting() == 0).await;
    let page = page(&server.flow);
    let cancelled =
        "inference_extension_flow_control_requests_total{priority=\"0\",outcome=\"EvictedContextCancelled\"}";
    assert_eq!(sum(&page, cancelled), 500.0, "{page}");
    assert_eq!(sum(&page, "inference_extension_flow_control_queue_size"), 0.0);
    // The connection survived five hundred resets.
    let reports = client.report();
    reports.send(ReportRequest { reporter: 9, completed: vec![], running: Some(Running::default()) }).await.unwrap();
    let end = Completed { request: 1, prompt_tokens: 0, output_tokens: 0 };
    reports.send(ReportRequest { reporter: 9, completed: vec![end], running: None }).await.unwrap();
    assert_eq!(client.ask(question(900)).await.unwrap().outcome(), Outcome::Dispatched);
}

/// A server may take many small frames on one connection for an attack, and close it with all its calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_ten_thousand_questions_on_one_connection_waits_and_does_not_cost_the_connection() {
    let server = start(&config("{defaultRequestTTL: 0, saturationDetector: {maxConcurrency: 1}}")).await;
    let client = Client::connect(server.address()).await;
    client.ask(question(1)).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 2..10_002 {
        let client = client.clone();
        calls.spawn(async move { client.ask(question(number)).await });
    }
    until("all wait", || {
        assert!(calls.try_join_next().is_none(), "a call came back");
        server.flow.gate().waiting() == 10_000
    })
    .await;
}

#[tokio::test]
async fn a_wait_ends_at_the_callers_patience_with_epps_words_and_a_retry_after() {
    let server = start(&config("saturationDetector: {maxConcurrency: 1}\nretry_after_seconds: 7")).await;
    let client = Client::connect(server.address()).await;
    client.ask(question(1)).await.unwrap();
    let mut late = question(2);
    late.patience_millis = 30;
    let answer = client.ask(late).await.unwrap();
    let refusal = answer.refusal.clone().unwrap();
    assert_eq!((answer.outcome(), refusal.status, refusal.retry_after_seconds), (Outcome::EvictedTtl, 503, 7));
    assert!(refusal.body.contains("request TTL expired"), "{}", refusal.body);
    assert!((30_000_000..5_000_000_000).contains(&answer.waited_nanos), "{}", answer.waited_nanos);
}

#[tokio::test]
async fn a_drain_refuses_what_comes_lets_go_what_it_can_and_decides_on_the_rest() {
    let mut server = start(&config("saturationDetector: {maxConcurrency: 1}\ndrainTimeout: 300ms")).await;
    let client = Client::connect(server.address()).await;
    client.ask(question(1)).await.unwrap();
    let waiting: Vec<_> = (2..12)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.ask(question(number)).await.unwrap() })
        })
        .collect();
    let reports = client.report();
    until("all wait", || server.flow.gate().waiting() == 10).await;
    server.shutdown.cancel();
    let refused = loop {
        let mut hasty = question(100);
        hasty.patience_millis = 1;
        let answer = client.ask(hasty).await.unwrap();
        if answer.outcome() != Outcome::EvictedTtl {
            break answer;
        }
    };
    assert_eq!(refused.outcome(), Outcome::RejectedOther);
    assert!(refused.refusal.unwrap().unavailable, "the filter acts as if nobody were there");
    let end = Completed { request: 1, prompt_tokens: 0, output_tokens: 0 };
    reports.send(ReportRequest { reporter: 9, completed: vec![end], running: None }).await.unwrap();
    let mut outcomes = Vec::new();
    for answer in waiting {
        outcomes.push(answer.await.unwrap().outcome());
    }
    outcomes.sort();
    let mut expected = vec![Outcome::EvictedOther; 10];
    expected[0] = Outcome::Dispatched;
    assert_eq!(outcomes, expected);
    drop(reports);
    server.ended().await;
}

#[tokio::test]
async fn many_envoys_at_once_get_one_answer_for_each_question() {
    let server = start(&config("saturationDetector: {maxConcurrency: 64}")).await;
    let mut envoys = Vec::new();
    for envoy in 1..=8u64 {
        let client = Client::connect(server.address()).await;
        envoys.push(tokio::spawn(async move {
            let reports = client.report();
            let mut asked = tokio::task::JoinSet::new();
            for request in 0..250u64 {
                let (client, reports) = (client.clone(), reports.clone());
                asked.spawn(async move {
                    let mut question = question(request + 1);
                    question.reporter = envoy;
                    question.fairness_id = format!("tenant-{}", request % 7);
                    let answer = client.ask(question).await.unwrap();
                    assert_eq!(answer.outcome(), Outcome::Dispatched);
                    let end = Completed { request: request + 1, prompt_tokens: 1, output_tokens: 1 };
                    let report = ReportRequest { reporter: envoy, completed: vec![end], running: None };
                    reports.send(report).await.unwrap();
                });
            }
            asked.join_all().await.len()
        }));
    }
    let mut answered = 0;
    for envoy in envoys {
        answered += envoy.await.unwrap();
    }
    assert_eq!(answered, 2_000);
    until("all ended", || server.flow.gate().running() == 0).await;
    let page = page(&server.flow);
    assert_eq!(sum(&page, "inference_extension_flow_control_requests_total"), 2_000.0);
    assert_eq!(sum(&page, "inference_extension_flow_control_request_queue_duration_seconds_count"), 2_000.0);
    assert_eq!(sum(&page, "inference_extension_flow_control_request_enqueue_duration_seconds_count"), 2_000.0);
}

#[tokio::test]
async fn the_scraped_pool_opens_the_gate_and_its_saturation_is_a_gauge() {
    let (tell, told) = watch::channel(Arc::new(pool(&[8.0])));
    let server = start_with(&config("saturationDetector: {metricsStalenessThreshold: 60s}"), Some(told), None).await;
    let client = Client::connect(server.address()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.ask(question(1)).await.unwrap() }
    });
    until("it waits", || server.flow.gate().waiting() == 1).await;
    let gauge = "inference_extension_flow_control_pool_saturation{inference_pool=\"test-pool\"}";
    assert_eq!(sum(&page(&server.flow), gauge), 1.6);
    tell.send(Arc::new(pool(&[2.0]))).unwrap();
    assert_eq!(call.await.unwrap().outcome(), Outcome::Dispatched);
    // 2 of 5 wait, and the one just sent counts as one more.
    assert!((sum(&page(&server.flow), gauge) - 0.6).abs() < 1e-9);
}

#[tokio::test]
async fn an_objective_gives_the_priority_and_a_named_priority_wins() {
    let server = start(&config("objectives: {chat: 7}")).await;
    let client = Client::connect(server.address()).await;
    let mut by_objective = question(1);
    by_objective.objective = "chat".into();
    assert_eq!(client.ask(by_objective.clone()).await.unwrap().priority, 7);
    by_objective.priority = Some(-3);
    assert_eq!(client.ask(by_objective).await.unwrap().priority, -3);
}

#[tokio::test]
async fn health_says_yes_until_the_signal_and_tls_is_spoken_where_a_certificate_is_given() {
    let server = start_with::<flow_client::Pool>(&config("drainTimeout: 5s"), None, Some("localhost")).await;
    assert_eq!(server.health().await, 1, "serving");
    let client = Client::connect_tls(server.address(), server.authority.as_ref().unwrap()).await;
    assert_eq!(client.ask(question(1)).await.unwrap().outcome(), Outcome::Dispatched);
    assert!(Client::try_plain(server.address()).await.is_err(), "no plain text on a TLS port");
}

#[tokio::test]
async fn a_new_certificate_counts_for_new_connections_and_who_is_connected_stays_so() {
    let server = start_with::<flow_client::Pool>(&config("{}"), None, Some("localhost")).await;
    let old = server.authority.as_ref().unwrap();
    let before = Client::connect_tls(server.address(), old).await;
    assert_eq!(before.ask(question(1)).await.unwrap().outcome(), Outcome::Dispatched);
    let (renewed, new) = certified("localhost");
    server.certificates.as_ref().unwrap().send_replace(renewed);
    let after = Client::connect_tls(server.address(), &new).await;
    assert_eq!(after.ask(question(2)).await.unwrap().outcome(), Outcome::Dispatched);
    assert!(Client::try_tls(server.address(), old).await.is_err(), "the old certificate is no longer shown");
    assert_eq!(before.ask(question(3)).await.unwrap().outcome(), Outcome::Dispatched);
}

#[tokio::test]
async fn fairness_ids_beyond_the_cap_are_other_and_v15_has_five_labels() {
    let server = start(&config("max_fairness_ids: 2\nmetric_labels: v15")).await;
    let client = Client::connect(server.address()).await;
    for (number, tenant) in (1..).zip(["a", "b", "c", "d", "a"]) {
        let mut question = question(number);
        (question.fairness_id, question.model) = (tenant.into(), "m\"1".into());
        client.ask(question).await.unwrap();
    }
    let page = page(&server.flow);
    let size = "inference_extension_flow_control_queue_size";
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with(size)).collect();
    let rest = r#"priority="0",inference_pool="",model_name="m\"1",target_model_name=""} 0"#;
    for tenant in ["a", "b", "other"] {
        assert!(lines.contains(&format!("{size}{{fairness_id=\"{tenant}\",{rest}").as_str()), "{lines:?}");
    }
    assert_eq!(lines.len(), 3);
    assert!(page.contains("inference_extension_flow_control_label_overflow_total 2\n"));
}

#[tokio::test]
async fn what_is_no_question_is_a_status_and_not_an_outcome() {
    let server = start(&config("{}")).await;
    let client = Client::connect(server.address()).await;
    assert_eq!(client.call_unknown().await, tonic::Code::Unimplemented);
    let reports = client.report();
    reports.send(ReportRequest::default()).await.unwrap();
    until("the stream was closed", || reports.is_closed()).await;
    assert_eq!(sum(&page(&server.flow), "inference_extension_flow_control_requests_total"), 0.0);
}
