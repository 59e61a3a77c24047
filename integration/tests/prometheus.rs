//! A real Prometheus reads Envoy's page, and its answers are those of the requests that were sent.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_core::catalog::buckets::LATENCY;
use tally_integration::client::Request;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::model_server::{Behaviour, ModelServer};
use tally_integration::prometheus::Prometheus;
use tally_integration::tools::poll;

const SOON: Duration = Duration::from_secs(30);
const FAMILY: &str = "inference_objective_request_duration_seconds";

fn request(wait_ms: u64, input: u64, output: u64) -> Request {
    let usage = format!(
        r#"{{"model":"m","usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}}}}}"#,
        input + output
    );
    let behaviour = Behaviour { wait_ms, body: Some(usage), ..Behaviour::default() };
    Request::post("/v1/chat/completions", r#"{"model":"m","messages":[]}"#).header("x-behave", behaviour.header())
}

/// The bounds of the bucket that `seconds` falls into.
fn bucket(seconds: f64) -> (f64, f64) {
    let bounds: Vec<f64> = LATENCY.iter().map(|bound| bound.at as f64 / 1e9).collect();
    let upper = bounds.iter().copied().find(|bound| seconds <= *bound).unwrap_or(f64::INFINITY);
    let lower = bounds.iter().copied().rev().find(|bound| *bound < seconds).unwrap_or(0.0);
    (lower, upper)
}

#[test]
fn prometheus_computes_the_quantiles_and_sums_of_what_was_sent() -> Result<()> {
    if !Prometheus::installed() {
        println!("not run: prometheus is not installed (make setup)");
        return Ok(());
    }
    let envoy = Envoy::start(&Options::to(ModelServer::start()?.port))?;
    let waits: Vec<u64> = (0..96).map(|turn| 3 + (turn * turn * 7) % 900).collect();
    let took = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for share in waits.chunks(12) {
            let (took, port) = (&took, envoy.port);
            scope.spawn(move || {
                for wait in share {
                    let answer = request(*wait, *wait, wait / 2 + 1).send(port).unwrap();
                    took.lock().unwrap().push(answer.took.as_secs_f64());
                }
            });
        }
    });
    let mut took = took.into_inner().unwrap();
    took.sort_by(f64::total_cmp);

    let prometheus = Prometheus::start(envoy.admin, "/stats/prometheus")?;
    let sent = waits.len() as f64;
    let all_there = poll(SOON, || {
        let count = prometheus.query(&format!("sum({FAMILY}_count{{model_name=\"m\"}})")).ok()??;
        (count == sent).then_some(())
    });
    ensure!(all_there.is_some(), "Prometheus does not see {sent} requests");
    let ask = |query: &str| prometheus.query(query)?.with_context(|| format!("no answer to {query}"));

    // What Envoy sees lies between what the server waited and what the client waited; on a quiet machine all three fall
    // into one bucket.
    let mut waited: Vec<f64> = waits.iter().map(|wait| *wait as f64 / 1e3).collect();
    waited.sort_by(f64::total_cmp);
    for (q, rank) in [(0.5, 47), (0.9, 86), (0.99, 95)] {
        let found = ask(&format!("histogram_quantile({q}, sum by (le) ({FAMILY}_bucket{{model_name=\"m\"}}))"))?;
        let ((lower, _), (_, upper)) = (bucket(waited[rank]), bucket(took[rank]));
        ensure!((lower..=upper).contains(&found), "q{q}: Prometheus says {found}, it must lie in {lower}..{upper}");
    }
    let input: u64 = waits.iter().sum();
    let output: u64 = waits.iter().map(|wait| wait / 2 + 1).sum();
    for (name, expected) in [("input_tokens", input), ("output_tokens", output)] {
        let found = ask(&format!("sum(inference_objective_{name}_sum{{model_name=\"m\"}})"))?;
        ensure!(found == expected as f64, "{name}: {found}, sent {expected}");
    }
    let found = ask(&format!("sum({FAMILY}_sum{{model_name=\"m\"}})"))?;
    // Less than a second is carried on in each of Envoy's two workers.
    let (least, most) = (waited.iter().sum::<f64>() - 2.0, took.iter().sum::<f64>());
    ensure!((least..=most).contains(&found), "seconds: {found}, it must lie in {least}..{most}");
    Ok(())
}

#[test]
fn promtool_finds_nothing_but_what_counters_for_histograms_must_cause() -> Result<()> {
    let envoy = Envoy::start(&Options::to(ModelServer::start()?.port))?;
    request(1, 10, 10).send(envoy.port)?;
    let counted = poll(SOON, || (envoy.page().ok()?.total(&format!("{FAMILY}_count"), &[]) == 1.0).then_some(()));
    ensure!(counted.is_some(), "the request was not counted");
    let page = envoy.ask("/stats/prometheus")?;
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        println!("not run: promtool is not installed (make setup)");
        return Ok(());
    };
    promtool.stdin.take().context("stdin")?.write_all(page.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(!said.contains("error while linting"), "promtool cannot read the page: {said}");
    let allowed = [
        "no help text",
        "non-histogram and non-summary metrics should not have \"le\" label",
        "non-histogram metrics should not have \"le\" label",
        "counter metrics should have \"_total\" suffix",
        "non-histogram and non-summary metrics should not have \"_bucket\" suffix",
        "non-histogram and non-summary metrics should not have \"_count\" suffix",
        "non-histogram and non-summary metrics should not have \"_sum\" suffix",
        "non-histogram metrics should not have \"_bucket\" suffix",
        "metric names should not contain abbreviated units",
        // Envoy's counters are integers, and a flush takes far less than a second.
        "use base unit \"seconds\" instead of \"nanoseconds\"",
    ];
    let ours = said.lines().filter(|line| line.starts_with("inference_") || line.starts_with("tally_"));
    for line in ours {
        ensure!(allowed.iter().any(|remark| line.ends_with(remark)), "promtool: {line}");
    }
    Ok(())
}
