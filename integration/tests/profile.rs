//! The profiles in the real Envoy: names and labels as other products' dashboards ask for them, under both kinds of tags.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_integration::client::Request;
use tally_integration::corpus::Exchange;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{exact, missing, within};
use tally_integration::model_server::{ModelServer, replay};
use tally_integration::page::Page;
use tally_integration::tools::root;

const SOON: Duration = Duration::from_secs(30);
const CONFIG: &str = r#"{"profile":["llm_d_epp","gen_ai"],"metric_labels":"v15","objectives":{"premium":10}}"#;

/// An Envoy with the profiles' tags beside the bootstrap's.
fn envoy(edits: &[(&str, &str)]) -> Result<Envoy> {
    let more = fs::read_to_string(root().join("envoy/profile-tags.yaml"))?;
    let tags: String = more.lines().filter(|line| line.contains("tag_name:")).map(|line| format!("{line}\n")).collect();
    let bootstrap = fs::read_to_string(root().join("envoy/bootstrap.yaml"))?;
    let mut text = bootstrap.replacen("  stats_tags:\n", &format!("  stats_tags:\n{tags}"), 1);
    for (from, to) in edits {
        ensure!(text.contains(from), "no {from}");
        text = text.replace(from, to);
    }
    Envoy::start_from(&text, &Options::to(ModelServer::start()?.port).config(CONFIG))
}

/// Sends a recorded stream and a recorded whole answer; checks the page.
fn check(envoy: &Envoy) -> Result<Page> {
    let (stream, whole) = (
        Exchange::read("vllm-chat-stream-include-usage-details")?,
        Exchange::read("vllm-chat-prefix-second-same-prefix-details")?,
    );
    let usage = |exchange: &Exchange| exchange.expect.usage.clone().context("no usage");
    let (streamed, plain) = (usage(&stream)?, usage(&whole)?);
    let model = stream.expect.model.as_str().context("no model")?.to_owned();
    ensure!(whole.expect.model == model.as_str(), "two models");
    let asked = |exchange: &Exchange| -> Request {
        replay(exchange)
            .header("x-gateway-inference-fairness-id", "alice")
            .header("x-gateway-inference-objective", "premium")
    };
    asked(&stream).send(envoy.port)?;
    asked(&whole).send(envoy.port)?;
    let (input, output) = (
        (streamed.input_tokens.unwrap_or(0) + plain.input_tokens.unwrap_or(0)) as f64,
        (streamed.output_tokens.unwrap_or(0) + plain.output_tokens.unwrap_or(0)) as f64,
    );
    let cached = plain.cached_tokens.unwrap_or(0) as f64;
    ensure!(input > 0.0 && output > 0.0 && cached > 0.0);

    let llm_d: [(&str, &str); 4] =
        [("model_name", &model), ("target_model_name", &model), ("fairness_id", "alice"), ("priority", "10")];
    let with = |label: (&'static str, &'static str)| -> Vec<(&str, &str)> { [&llm_d[..], &[label]].concat() };
    let gen_ai: [(&str, &str); 4] = [
        ("gen_ai_operation_name", "chat"),
        ("gen_ai_provider_name", "openai"),
        ("gen_ai_request_model", &model),
        ("gen_ai_response_model", &model),
    ];
    let tokens = |kind: &'static str| -> Vec<(&str, &str)> { [&gen_ai[..], &[("gen_ai_token_type", kind)]].concat() };
    let v15 = [("model_name", model.as_str()), ("target_model_name", &model), ("priority", "10")];
    let page = within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_total", &v15, 2.0),
            exact("inference_objective_output_tokens_sum", &[("model_name", &model)], output),
            exact("llm_d_epp_request_total", &llm_d, 2.0),
            exact("llm_d_epp_request_input_tokens_sum", &llm_d, input),
            exact("llm_d_epp_request_output_tokens_sum", &llm_d, output),
            exact("llm_d_epp_request_cached_tokens_sum", &llm_d, cached),
            exact("llm_d_epp_request_duration_seconds_bucket", &with(("le", "+Inf")), 2.0),
            exact("llm_d_epp_request_ttft_seconds_count", &with(("streaming", "true")), 1.0),
            exact("llm_d_epp_request_ttft_seconds_count", &with(("streaming", "false")), 1.0),
            exact("llm_d_epp_request_streaming_tpot_seconds_count", &llm_d, 1.0),
            missing("llm_d_epp_request_running", &[]),
            exact("gen_ai_client_token_usage_sum", &tokens("input"), input),
            exact("gen_ai_client_token_usage_sum", &tokens("output"), output),
            exact("gen_ai_server_request_duration_seconds_count", &gen_ai, 2.0),
            exact("gen_ai_server_time_to_first_token_seconds_count", &gen_ai, 1.0),
        ],
    )?;
    let leaks: Vec<_> = page.samples.iter().filter(|sample| sample.name.contains("___")).collect();
    ensure!(leaks.is_empty(), "labels stayed in names: {leaks:#?}");
    Ok(page)
}

#[test]
fn a_recorded_stream_and_a_whole_answer_are_counted_under_all_names() -> Result<()> {
    check(&envoy(&[])?)?;
    Ok(())
}

#[test]
fn the_labels_are_the_same_under_istios_unanchored_tags() -> Result<()> {
    let unanchored = [
        (r"(?:^wasmcustom\.|;\.;)", ""),
        (r"([^;]*);\.;)'", r"(.*?);\.;)'"),
        ("  stats_tags:\n", "  use_all_default_tags: false\n  stats_tags:\n"),
    ];
    check(&envoy(&unanchored)?)?;
    Ok(())
}
