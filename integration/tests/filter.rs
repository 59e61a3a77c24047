//! The real filter in the real Envoy counts what the client's own ledger says, exactly.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_integration::client::{Leave, Request};
use tally_integration::corpus::Exchange;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{at_least, exact, missing, within};
use tally_integration::ledger::Ledger;
use tally_integration::model_server::{Behaviour, End, ModelServer, replay};

/// The tick comes four times a second; a loaded machine takes longer.
const SOON: Duration = Duration::from_secs(15);
const GENERATING: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"];

fn envoy() -> Result<Envoy> {
    Envoy::start(&Options::to(ModelServer::start()?.port))
}

/// Requests that name a model, and whose tokens do not rest on a server's private fields.
fn plain(exchange: &Exchange) -> bool {
    exchange.method == "POST" && exchange.expect.model.is_string() && exchange.expect.timings.is_none()
}

fn model(exchange: &Exchange) -> Result<&str> {
    exchange.expect.model.as_str().context("no model")
}

fn chat(model: &str, behaviour: &Behaviour) -> Request {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hello"}}]}}"#);
    Request::post("/v1/chat/completions", body).header("x-behave", behaviour.header())
}

#[test]
fn tokens_sizes_and_outcomes_are_those_of_the_recordings() -> Result<()> {
    let envoy = envoy()?;
    let mut ledger = Ledger::default();
    for exchange in Exchange::all()?.iter().filter(|exchange| plain(exchange)) {
        if GENERATING.contains(&exchange.path.as_str()) {
            replay(exchange).send(envoy.port)?;
            ledger.enter(model(exchange)?, exchange);
        }
    }
    let page = within(SOON, || envoy.page(), &ledger.statements())?;
    for (model, account) in ledger.accounts() {
        let families = [
            ("inference_objective_input_tokens", &account.input_tokens),
            ("inference_objective_output_tokens", &account.output_tokens),
            ("inference_objective_request_sizes", &account.request_bytes),
            ("inference_objective_response_sizes", &account.response_bytes),
        ];
        for (family, values) in families {
            for (bound, found) in page.buckets(family, &[("model_name", model)]) {
                let inside = values.iter().filter(|value| **value as f64 <= bound).count();
                ensure!(found == inside as f64, "{family} of {model}, le {bound}: {found}, but {inside} lie inside");
            }
        }
    }
    Ok(())
}

#[test]
fn each_exchange_alone_gives_its_own_tokens() -> Result<()> {
    let envoy = envoy()?;
    let mut before = envoy.page()?;
    for exchange in Exchange::all()?.iter().filter(|exchange| plain(exchange)) {
        if !GENERATING.contains(&exchange.path.as_str()) || exchange.expect.usage.is_none() {
            continue;
        }
        if exchange.expect.ended != "complete" || exchange.expect.usage_per_choice {
            continue;
        }
        replay(exchange).send(envoy.port)?;
        let usage = exchange.expect.usage.clone().unwrap_or_default();
        let mut expected = vec![exact(
            "inference_objective_request_total",
            &[],
            before.total("inference_objective_request_total", &[]) + 1.0,
        )];
        for (name, tokens) in [("input_tokens", usage.input_tokens), ("output_tokens", usage.output_tokens)] {
            let name = format!("inference_objective_{name}_sum");
            expected.push(exact(&name, &[], before.total(&name, &[]) + tokens.unwrap_or(0) as f64));
        }
        let after = within(SOON, || envoy.page(), &expected).with_context(|| exchange.name.clone())?;
        before = after;
    }
    Ok(())
}

#[test]
fn tokens_do_not_depend_on_where_the_bytes_are_cut() -> Result<()> {
    let envoy = envoy()?;
    let mut ledger = Ledger::default();
    for exchange in Exchange::all()?.iter().filter(|exchange| plain(exchange) && exchange.expect.usage.is_some()) {
        if GENERATING.contains(&exchange.path.as_str()) && exchange.expect.response_bytes < 3_000 {
            let whole = exchange.body.is_empty() || exchange.body.len() > 3_000;
            let request = replay(exchange).header("x-cut", "1");
            (if whole { request } else { request.in_pieces_of(1) }).send(envoy.port)?;
            ledger.enter(model(exchange)?, exchange);
        }
    }
    within(SOON, || envoy.page(), &ledger.statements())?;
    Ok(())
}

#[test]
fn embeddings_have_input_tokens() -> Result<()> {
    let envoy = envoy()?;
    let mut input = 0;
    for exchange in Exchange::all()?.iter().filter(|exchange| plain(exchange) && exchange.path == "/v1/embeddings") {
        replay(exchange).send(envoy.port)?;
        input += exchange.expect.usage.as_ref().and_then(|usage| usage.input_tokens).unwrap_or(0);
    }
    within(SOON, || envoy.page(), &[exact("inference_objective_input_tokens_sum", &[], input as f64)])?;
    Ok(())
}

#[test]
fn a_client_that_leaves_is_no_error_and_its_tokens_are_kept_apart() -> Result<()> {
    let envoy = envoy()?;
    replay(&Exchange::read("vllm-chat-cancel-stream-after-5-chunks")?).send(envoy.port)?;
    let silent = Behaviour { wait_ms: 3_000, ..Behaviour::default() };
    chat("silent", &silent).leaving(Leave::After(Duration::from_millis(200))).send(envoy.port)?;
    let left = [("outcome", "client_cancelled")];
    within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_outcome_total", &left, 2.0),
            exact("inference_objective_request_total", &[("model_name", "silent")], 1.0),
            missing("inference_objective_request_error_total", &[]),
            missing("inference_objective_output_tokens_count", &[]),
            missing("inference_objective_running_requests", &[]),
        ],
    )?;
    Ok(())
}

#[test]
fn each_way_to_fail_is_counted_under_its_own_name() -> Result<()> {
    let envoy = envoy()?;
    for status in [400, 404, 429, 500, 503] {
        chat("refused", &Behaviour { status, bytes: 20, ..Behaviour::default() }).send(envoy.port)?;
    }
    let cut = Behaviour { bytes: 100, pieces_of: 50, end: End::Close, ..Behaviour::default() };
    chat("cut", &cut).send(envoy.port)?;
    chat("gone", &Behaviour { end: End::NoAnswer, ..Behaviour::default() }).send(envoy.port)?;
    let of = |model, outcome| [("model_name", model), ("outcome", outcome)];
    within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_outcome_total", &of("refused", "upstream_error"), 5.0),
            exact("inference_objective_request_error_total", &[("model_name", "refused")], 5.0),
            exact("inference_objective_request_outcome_total", &of("cut", "upstream_reset"), 1.0),
            exact("inference_objective_request_error_total", &[("model_name", "cut")], 1.0),
            exact("inference_objective_request_error_total", &[("model_name", "gone")], 1.0),
            missing("inference_objective_running_requests", &[]),
        ],
    )?;
    Ok(())
}

#[test]
fn what_is_no_inference_is_let_pass_and_counted_as_ignored() -> Result<()> {
    let envoy = envoy()?;
    let answer = Behaviour { bytes: 4, ..Behaviour::default() }.header();
    for (method, path) in [("GET", "/v1/models"), ("GET", "/v1/chat/completions"), ("HEAD", "/"), ("POST", "/metrics2")]
    {
        Request::bare(method, path).header("x-behave", answer.as_str()).send(envoy.port)?;
    }
    within(
        SOON,
        || envoy.page(),
        &[at_least("tally_filter_requests_ignored_total", &[], 4.0), missing("inference_objective_request_total", &[])],
    )?;
    Ok(())
}

#[test]
fn a_body_that_names_no_model_is_counted_by_what_was_wrong_with_it() -> Result<()> {
    let envoy = envoy()?;
    let answer = Behaviour { bytes: 4, ..Behaviour::default() }.header();
    for body in ["", "nonsense", "{\"messages\":[]}"] {
        Request::post("/v1/chat/completions", body).header("x-behave", answer.as_str()).send(envoy.port)?;
    }
    let of = |quality| [("quality", quality)];
    within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_quality_total", &of("empty"), 1.0),
            exact("inference_objective_request_quality_total", &of("unparsed"), 1.0),
            exact("inference_objective_request_quality_total", &of("model_missing"), 1.0),
        ],
    )?;
    Ok(())
}

#[test]
fn a_hostile_model_name_becomes_one_label_value_and_nothing_else() -> Result<()> {
    let envoy = envoy()?;
    let names =
        ["x;.;le=.=9;.;y", "a=b", "ends.", "line\\nbreak", "nul\\u0000", "\\ud83d\\ude00", "quote\\\"back\\\\slash"];
    for name in names {
        chat(name, &Behaviour { bytes: 4, ..Behaviour::default() }).send(envoy.port)?;
    }
    let page = within(SOON, || envoy.page(), &[exact("inference_objective_request_total", &[], names.len() as f64)])?;
    for sample in page.samples.iter().filter(|sample| sample.name == "inference_objective_request_total") {
        let keys: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
        ensure!(keys == ["model_name", "target_model_name"], "{sample:?}");
    }
    let foreign: Vec<_> = page.samples.iter().filter(|sample| sample.name.contains("___")).collect();
    ensure!(foreign.is_empty(), "names with labels in them: {foreign:?}");
    Ok(())
}

#[test]
fn an_answer_with_trailers_or_early_hints_ends_well_and_keeps_its_tokens() -> Result<()> {
    let envoy = envoy()?;
    let usage = r#"{"model":"m","usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}"#;
    let plain = Behaviour { body: Some(usage.to_owned()), pieces_of: 10, ..Behaviour::default() };
    chat("trailers", &Behaviour { trailers: true, ..plain.clone() }).send(envoy.port)?;
    chat("hints", &Behaviour { early_hints: true, ..plain }).send(envoy.port)?;
    let mut expected = Vec::new();
    for model in ["trailers", "hints"] {
        let labels = [("model_name", model)];
        expected.push(exact("inference_objective_request_outcome_total", &labels, 1.0));
        expected.push(exact("inference_objective_request_outcome_total", &[labels[0], ("outcome", "complete")], 1.0));
        expected.push(exact("inference_objective_input_tokens_sum", &labels, 11.0));
        expected.push(exact("inference_objective_output_tokens_sum", &labels, 7.0));
    }
    within(SOON, || envoy.page(), &expected)?;
    Ok(())
}

#[test]
fn http2_clients_are_counted_like_http1_clients() -> Result<()> {
    let envoy = envoy()?;
    let exchange = Exchange::read("vllm-chat-stream-include-usage")?;
    let sent = Command::new("curl")
        .args(["--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "20", "--data-binary", "@-"])
        .args(["--header", "content-type: application/json", "--header", "x-pace: 0"])
        .args(["--header", &format!("x-replay: {}", exchange.name)])
        .arg(format!("http://127.0.0.1:{}{}", envoy.port, exchange.path))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut curl) = sent else {
        println!("not run: curl is not installed");
        return Ok(());
    };
    curl.stdin.take().context("stdin")?.write_all(&exchange.body)?;
    let output = curl.wait_with_output()?;
    ensure!(output.stdout == exchange.answer_body(), "curl got another body: {output:?}");
    let mut ledger = Ledger::default();
    ledger.enter(model(&exchange)?, &exchange);
    within(SOON, || envoy.page(), &ledger.statements())?;
    Ok(())
}

#[test]
fn running_requests_show_what_is_in_flight() -> Result<()> {
    let envoy = envoy()?;
    let port = envoy.port;
    let slow = Behaviour { wait_ms: 2_500, bytes: 4, ..Behaviour::default() };
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let request = chat("busy", &slow);
            std::thread::spawn(move || request.send(port))
        })
        .collect();
    let labels = [("model_name", "busy")];
    within(SOON, || envoy.page(), &[exact("inference_objective_running_requests", &labels, 3.0)])?;
    for client in clients {
        client.join().ok().context("client")??;
    }
    within(SOON, || envoy.page(), &[missing("inference_objective_running_requests", &labels)])?;
    Ok(())
}
