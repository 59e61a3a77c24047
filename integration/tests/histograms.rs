//! `histograms: envoy` in the real Envoy: its own histograms for bytes and tokens, counters for seconds; tallyd takes both.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_integration::client::Request;
use tally_integration::companion::Companion;
use tally_integration::corpus::Exchange;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{exact, within};
use tally_integration::model_server::{ModelServer, replay};

const SOON: Duration = Duration::from_secs(40);
/// As docs/METRICS.md has it: the labels stand in front of a name, so that only its end can be matched.
const STATS: &str = "stats_flush_interval: 1s\nstats_config:\n  histogram_bucket_settings:\n  - match: { suffix: input_tokens }\n    buckets: [1, 8, 16, 32, 64, 128, 1024]\n";

#[test]
fn envoys_own_histograms_have_the_recorded_tokens_and_seconds_stay_counters() -> Result<()> {
    let options = Options::to(ModelServer::start()?.port).config(r#"{"histograms":"envoy"}"#);
    let envoy = Envoy::start(&options.edit("stats_config:\n", STATS))?;
    let mut tokens = Vec::new();
    for name in ["vllm-chat-content-parts", "vllm-chat-max-tokens-1", "vllm-chat-prefix-first"] {
        let exchange = Exchange::read(name)?;
        let usage = exchange.expect.usage.clone().context("no usage")?;
        tokens.push(usage.input_tokens.context("no input")?);
        replay(&exchange).send(envoy.port)?;
    }
    let inside = |bound: u64| tokens.iter().filter(|value| **value <= bound).count() as f64;
    let name = "inference_objective_input_tokens_bucket";
    let count = tokens.len() as f64;
    ensure!(inside(32) == 1.0 && inside(64) == 2.0 && count == 3.0, "{tokens:?}");
    let statements = [
        exact("inference_objective_input_tokens_count", &[], count),
        // Envoy's histograms are exact below 100.
        exact(name, &[("le", "16")], 0.0),
        exact(name, &[("le", "32")], 1.0),
        exact(name, &[("le", "64")], 2.0),
        exact(name, &[("le", "1024")], 3.0),
        exact("inference_objective_output_tokens_count", &[], count),
        exact("inference_objective_request_sizes_count", &[], count),
        exact("inference_objective_request_duration_seconds_bucket", &[("le", "+Inf")], count),
    ];
    within(SOON, || envoy.page(), &statements)?;
    let text = envoy.ask("/stats/prometheus")?;
    for line in [
        "# TYPE inference_objective_input_tokens histogram",
        "# TYPE inference_objective_request_duration_seconds_bucket counter",
    ] {
        ensure!(text.lines().any(|found| found == line), "no line {line}");
    }

    let companion = Companion::start(
        &format!("auth: {{mode: none}}\nenvoy:\n- {{name: e, url: 'http://127.0.0.1:{}'}}\n", envoy.admin),
        &[],
    )?;
    let page = || -> Result<String> {
        let answer = Request::bare("GET", "/metrics").header("connection", "close").send(companion.port)?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    };
    let both =
        ["# TYPE inference_objective_input_tokens histogram", "# TYPE inference_objective_request_sizes histogram"];
    let taken = tally_integration::tools::poll(SOON, || {
        let page = page().ok()?;
        let has = |line: &str| page.lines().any(|found| found == line);
        let counted = page.lines().any(|line| {
            line.starts_with("inference_objective_input_tokens_bucket{")
                && line.contains(r#"le="64""#)
                && line.ends_with(" 2")
        });
        (both.into_iter().all(has) && counted).then_some(())
    });
    taken.with_context(|| page().unwrap_or_default())
}
