//! Twenty thousand requests that end in every way there is: the page equals what the clients know, exactly. Also across an
//! update of the listener, and around a VM that fails.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_integration::client::{Leave, Request};
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{Expect, exact, missing, within};
use tally_integration::model_server::{Behaviour, End, ModelServer};

const SOON: Duration = Duration::from_secs(60);
const REQUESTS: usize = 20_000;
const CLIENTS: usize = 8;

/// What the clients know of one model and outcome.
#[derive(Default, Clone)]
struct Entry {
    requests: usize,
    request_bytes: usize,
    input: Vec<u64>,
    output: Vec<u64>,
}

type Book = BTreeMap<(String, &'static str), Entry>;

/// One request of the mix, by its number: model, how the server behaves, when the client leaves, how it must end.
fn turn(number: usize) -> (String, Behaviour, Leave, &'static str, Option<(u64, u64)>) {
    let model = format!("model-{}", number % 7);
    let (input, output) = ((number % 5_000) as u64, 1 + (number % 300) as u64);
    let json = format!(r#"{{"model":"{model}","usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}}}"#);
    let base = Behaviour::default();
    let events = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}]}}\n\ndata: {{\"choices\":[],\"usage\":\
         {{\"prompt_tokens\":{input},\"completion_tokens\":{output}}}}}\n\ndata: [DONE]\n\n"
    );
    let stream = Behaviour { content_type: "text/event-stream".to_owned(), body: Some(events), pieces_of: 37, ..base };
    let tokens = Some((input, output));
    match number % 20 {
        0 => (model, Behaviour { status: 500, bytes: 10, ..base }, Leave::Never, "upstream_error", None),
        1 => (model, Behaviour { status: 429, bytes: 10, ..base }, Leave::Never, "upstream_error", None),
        2 => (model, Behaviour { end: End::NoAnswer, ..base }, Leave::Never, "upstream_reset", None),
        3 => (
            model,
            Behaviour { bytes: 300, pieces_of: 100, end: End::Close, ..base },
            Leave::Never,
            "upstream_reset",
            None,
        ),
        4 => (
            model,
            Behaviour { bytes: 300, pieces_of: 100, end: End::Hang, ..base },
            Leave::AfterBytes(200),
            "client_cancelled",
            None,
        ),
        5..=11 => (model, stream, Leave::Never, "complete", tokens),
        12 => (model, Behaviour { trailers: true, ..stream }, Leave::Never, "complete", tokens),
        _ => (model, Behaviour { body: Some(json), ..base }, Leave::Never, "complete", tokens),
    }
}

/// Sends so many requests of the mix from several clients and enters each in the book.
fn send(port: u16, numbers: std::ops::Range<usize>, book: &Mutex<Book>) {
    let next = AtomicUsize::new(numbers.start);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    let (model, behaviour, leave, outcome, tokens) = turn(number);
                    let body = format!(r#"{{"messages":[],"n":{number},"model":"{model}"}}"#);
                    let request = Request::post("/v1/chat/completions", body.clone())
                        .header("x-behave", behaviour.header())
                        .leaving(leave);
                    request.send(port).unwrap();
                    let mut book = book.lock().unwrap();
                    let entry = book.entry((model, outcome)).or_default();
                    entry.requests += 1;
                    entry.request_bytes += body.len();
                    entry.input.extend(tokens.map(|tokens| tokens.0));
                    entry.output.extend(tokens.map(|tokens| tokens.1));
                }
            });
        }
    });
}

/// What the page must say of the whole book.
fn statements(book: &Book) -> Vec<Expect> {
    let mut all = Vec::new();
    let mut sizes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for ((model, outcome), entry) in book {
        let labels = [("model_name", model.as_str()), ("outcome", *outcome)];
        all.push(exact("inference_objective_request_outcome_total", &labels, entry.requests as f64));
        let total = sizes.entry(model).or_default();
        *total = (total.0 + entry.requests, total.1 + entry.request_bytes);
        if *outcome == "complete" {
            let of_model = [("model_name", model.as_str())];
            for (family, values) in [("input_tokens", &entry.input), ("output_tokens", &entry.output)] {
                let name = format!("inference_objective_{family}");
                all.push(exact(&format!("{name}_count"), &of_model, values.len() as f64));
                all.push(exact(&format!("{name}_sum"), &of_model, values.iter().sum::<u64>() as f64));
                for le in [8_u64, 128, 1024, 8192] {
                    let inside = values.iter().filter(|value| **value <= le).count() as f64;
                    let text = le.to_string();
                    let bucket = [("model_name", model.as_str()), ("le", text.as_str())];
                    all.push(if inside > 0.0 {
                        exact(&format!("{name}_bucket"), &bucket, inside)
                    } else {
                        missing(&format!("{name}_bucket"), &bucket)
                    });
                }
            }
        }
    }
    for (model, (requests, bytes)) in sizes {
        let labels = [("model_name", model)];
        all.push(exact("inference_objective_request_total", &labels, requests as f64));
        all.push(exact("inference_objective_request_sizes_sum", &labels, bytes as f64));
        all.push(missing("inference_objective_running_requests", &labels));
    }
    all.push(missing("tally_filter_live_streams", &[]));
    all.push(missing("tally_filter_host_call_errors_total", &[]));
    all
}

#[test]
fn twenty_thousand_mixed_requests_are_counted_exactly_across_a_listener_update() -> Result<()> {
    let options = Options { is_listener_dynamic: true, ..Options::to(ModelServer::start()?.port) };
    let mut envoy = Envoy::start(&options)?;
    let book = Mutex::new(Book::new());
    let half = REQUESTS / 2;
    send(envoy.port, 0..half, &book);
    // One request is in flight while its listener is replaced: it is counted by the old configuration's root.
    let port = envoy.port;
    let slow = Behaviour { wait_ms: 3_000, bytes: 4, ..Behaviour::default() };
    let body = r#"{"model":"across"}"#;
    let across = std::thread::spawn(move || {
        Request::post("/v1/chat/completions", body).header("x-behave", slow.header()).send(port)
    });
    let running = [("model_name", "across")];
    within(SOON, || envoy.page(), &[exact("inference_objective_running_requests", &running, 1.0)])?;
    envoy.update_listener(&options.config(r#"{"max_models":50}"#))?;
    send(envoy.port, half..REQUESTS, &book);
    let answer = across.join().ok().context("client")??;
    ensure!(answer.status == 200, "the request in flight: {answer:?}");
    let mut expected = statements(&book.into_inner().unwrap());
    expected.push(exact("inference_objective_request_total", &running, 1.0));
    expected.push(missing("inference_objective_running_requests", &running));
    within(SOON, || envoy.page(), &expected)?;
    ensure!(envoy.alive() && envoy.vm_failures()? == 0.0, "{}", envoy.log());
    Ok(())
}

/// The VM is made to fail by taking a right from it that it uses for streaming requests only, to ask for their usage: the
/// SDK panics when Envoy refuses the call.
#[test]
fn a_failing_vm_loses_what_was_not_flushed_and_nothing_else_and_the_gauges_heal() -> Result<()> {
    let rights = "capability_restriction_config: { allowed_capabilities: { proxy_log: {}, proxy_get_buffer_bytes: {}, \
                  proxy_get_header_map_value: {}, proxy_get_property: {}, proxy_remove_header_map_value: {}, proxy_get_current_time_nanoseconds: {}, \
                  proxy_set_tick_period_milliseconds: {}, proxy_define_metric: {}, proxy_increment_metric: {}, \
                  proxy_record_metric: {}, proxy_get_shared_data: {}, proxy_set_shared_data: {}, \
                  proxy_set_effective_context: {}, proxy_on_vm_start: {}, proxy_on_configure: {}, proxy_on_tick: {}, \
                  proxy_on_context_create: {}, proxy_on_request_headers: {}, proxy_on_request_body: {}, \
                  proxy_on_response_headers: {}, proxy_on_response_body: {}, proxy_on_log: {}, proxy_on_done: {}, \
                  proxy_on_delete: {} } }";
    let line = "                failure_policy: FAIL_RELOAD\n";
    let mut options = Options::to(ModelServer::start()?.port).edit(line, &format!("{line}                {rights}\n"));
    options.workers = 1;
    let options = options.config(r#"{"inject_usage":true}"#);
    let mut envoy = Envoy::start(&options)?;
    let chat = |model: &str, behaviour: &Behaviour| {
        Request::post("/v1/chat/completions", format!(r#"{{"model":"{model}"}}"#))
            .header("x-behave", behaviour.header())
    };
    let good = Behaviour { bytes: 4, ..Behaviour::default() };
    for _ in 0..50 {
        chat("kept", &good).send(envoy.port)?;
    }
    within(SOON, || envoy.page(), &[exact("inference_objective_request_total", &[("model_name", "kept")], 50.0)])?;
    let port = envoy.port;
    let held: Vec<_> = (0..3)
        .map(|_| {
            let request = chat("held", &Behaviour { wait_ms: 20_000, ..Behaviour::default() });
            std::thread::spawn(move || request.leaving(Leave::After(Duration::from_secs(4))).send(port))
        })
        .collect();
    let running = [("model_name", "held")];
    within(SOON, || envoy.page(), &[exact("inference_objective_running_requests", &running, 3.0)])?;

    let trap = r#"{"model":"trap","stream":true,"messages":[]}"#;
    Request::post("/v1/chat/completions", trap).header("x-behave", good.header()).send(envoy.port)?;
    let reloaded = tally_integration::tools::poll(SOON, || {
        // While the VM is away Envoy answers 503; then the filter is anew and measures again.
        (chat("after", &good).send(envoy.port).ok()?.status == 200).then_some(())
    });
    ensure!(reloaded.is_some(), "the VM did not come again:\n{}", envoy.log());
    ensure!(envoy.alive(), "Envoy ended:\n{}", envoy.log());
    ensure!(envoy.vm_failures()? > 0.0, "the VM has not failed:\n{}", envoy.log());
    within(
        SOON,
        || envoy.page(),
        &[
            missing("inference_objective_running_requests", &running),
            exact("inference_objective_request_total", &[("model_name", "kept")], 50.0),
            exact("inference_objective_request_total", &[("model_name", "after")], 1.0),
        ],
    )?;
    for client in held {
        client.join().ok().context("client")??;
    }
    chat("after", &good).send(envoy.port)?;
    within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_total", &[("model_name", "after")], 2.0),
            missing("inference_objective_running_requests", &[]),
            missing("tally_filter_live_streams", &[]),
        ],
    )?;
    Ok(())
}
