//! The Grafana dashboard is made from its source, names only what the catalog has, and every expression finds data.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tally_core::catalog::{self, Source};
use tally_integration::companion::Companion;
use tally_integration::dashboard;
use tally_integration::demo::send_recorded;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::growing::GrowingPage;
use tally_integration::lora::{ModelServer as _, Replayer, Syncer};
use tally_integration::model_server::ModelServer;
use tally_integration::prometheus::Prometheus;
use tally_integration::promql;
use tally_integration::tools::{poll, root};

const FILE: &str = "deploy/grafana/tally.json";
const SOON: Duration = Duration::from_secs(40);

/// Families that no panel shows, and why.
const NOT_SHOWN: &[(&str, &str)] =
    &[("normalized_time_per_output_token_seconds", "the same numbers as under its longer name")];

/// Families that have no data after the recorded traffic, and why; their expressions are not asked for any.
const NO_DATA: &[(&str, &str)] = &[
    ("inference_objective_cache_write_tokens_total", "no recorded server reports cache writes"),
    ("inference_objective_reasoning_tokens_total", "no recorded model reasons"),
    ("inference_objective_audio_input_tokens_total", "no recorded model hears"),
    ("inference_objective_audio_output_tokens_total", "no recorded model speaks"),
    ("inference_objective_partial_input_tokens_total", "recorded servers tell the input tokens only at the end"),
    ("inference_objective_model_mismatch_total", "every recorded server answers with the model that was asked for"),
    ("inference_pool_lora_adapter_pods", "the pool's server has no adapters"),
    ("inference_extension_flow_control_queue", "nothing asks flow control: admission is off by default"),
    ("inference_extension_flow_control_request", "nothing asks flow control: admission is off by default"),
    ("inference_extension_flow_control_dispatch", "nothing asks flow control: admission is off by default"),
    ("tally_filter_admissions_total", "admission is off by default"),
    ("tally_filter_label_overflow_total", "fewer models than the cap"),
    ("tally_filter_host_call_errors_total", "no host call fails"),
    ("tally_filter_reaped_streams_total", "no VM fails"),
    ("tally_filter_requests_ignored_total", "every request of the mix is measured"),
    ("tally_envoy_conflicts_total", "one Envoy, no conflict"),
    ("lora_syncer_errors_total", "no call fails"),
];

/// Labels that Prometheus or Grafana add.
const FOREIGN_LABELS: &[&str] = &["job", "instance", "le", "pod"];

fn expressions() -> Vec<(String, String)> {
    dashboard::rows()
        .into_iter()
        .flat_map(|row| row.panels.into_iter().map(move |panel| (row.title, panel)))
        .flat_map(|(row, panel)| {
            let title = format!("{row} / {}", panel.title);
            panel.targets.into_iter().map(move |(expression, _)| (title.clone(), expression))
        })
        .collect()
}

/// Puts values in place of Grafana's variables.
fn plain(expression: &str) -> String {
    expression
        .replace("$__rate_interval", "5s")
        .replace("$__range", "1m")
        .replace("$job", ".*")
        .replace("$pool", ".*")
        .replace("$model", ".*")
        .replace("$priority", ".*")
}

/// The panels of EPP's own dashboard (v1.2.0 and the flow control row of v1.5.0), as people have them installed: what
/// each shows, made from the interface that it relies on.
fn endpoint_picker_expressions() -> Vec<(String, String)> {
    let mut list = Vec::new();
    for family in ["request_duration_seconds", "request_sizes", "response_sizes", "input_tokens", "output_tokens"] {
        for q in ["0.95", "0.9", "0.5"] {
            list.push(format!(
                "histogram_quantile({q}, sum by(le) (rate(inference_objective_{family}_bucket{{}}[$__rate_interval])))"
            ));
        }
    }
    let fc = "inference_extension_flow_control";
    let rate = |metric: &str, by: &str| format!("sum by ({by}) (rate({fc}_{metric}[$__rate_interval]))");
    let top = |metric: &str, by: &str| {
        format!("{} and on({by}) topk(10, sum by ({by}) (rate({fc}_{metric}[$__range])))", rate(metric, by))
    };
    let held = |metric: &str| {
        let by = "priority, fairness_id";
        format!(
            "sum by ({by}) ({fc}_{metric}) and on({by}) topk(10, sum by ({by}) (max_over_time({fc}_{metric}[$__range])))"
        )
    };
    list.extend([
        "sum by(name) (inference_pool_average_kv_cache_utilization)".to_owned(),
        "sum by(name) (inference_pool_average_queue_size)".to_owned(),
        "sum by(name, model_server_pod, pod) (inference_pool_per_pod_queue_size)".to_owned(),
        "sum by(model_name, target_model_name) (rate(inference_objective_request_total{}[$__rate_interval]))".to_owned(),
        "sum by(error_code, model_name, target_model_name) (rate(inference_objective_request_error_total[$__rate_interval]))"
            .to_owned(),
        format!("max by(inference_pool) ({fc}_pool_saturation)"),
        format!("sum(deriv({fc}_queue_size[$__rate_interval]))"),
        top("request_enqueue_duration_seconds_count", "priority, fairness_id"),
        held("queue_size"),
        held("queue_bytes"),
        top("request_queue_duration_seconds_count", "priority, fairness_id, outcome"),
        top("request_queue_duration_seconds_count{outcome=\"Dispatched\"}", "priority, fairness_id"),
        format!(
            "histogram_quantile(0.99, {}) > 0 and on(priority, fairness_id) {} > 0.05",
            rate("request_queue_duration_seconds_bucket", "priority, fairness_id, le"),
            rate("request_enqueue_duration_seconds_count", "priority, fairness_id")
        ),
        format!("histogram_quantile(0.99, {}) > 0", rate("dispatch_cycle_duration_seconds_bucket", "le")),
        format!("histogram_quantile(0.99, {}) > 0", rate("request_enqueue_duration_seconds_bucket", "le")),
    ]);
    list.into_iter().map(|expression| ("EPP's dashboard".to_owned(), expression)).collect()
}

/// Asks until every expression has data, or the time is over; gives those that have none.
fn without_data(prometheus: &Prometheus, expressions: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let mut open: BTreeMap<String, String> =
        expressions.iter().map(|(place, expression)| (expression.clone(), place.clone())).collect();
    let mut failed = None;
    let done = poll(SOON, || {
        let mut still = BTreeMap::new();
        for (expression, place) in &open {
            match prometheus.series(&plain(expression)) {
                Ok(0) => drop(still.insert(expression.clone(), place.clone())),
                Ok(_) => {}
                Err(error) => {
                    failed = Some(error);
                    return Some(());
                }
            }
        }
        open = still;
        open.is_empty().then_some(())
    });
    match failed {
        Some(error) => Err(error),
        None if done.is_some() => Ok(BTreeMap::new()),
        None => Ok(open),
    }
}

#[test]
fn the_dashboard_file_is_what_its_source_makes() -> Result<()> {
    let made = format!("{}\n", serde_json::to_string_pretty(&dashboard::render())?);
    let path = root().join(FILE);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, made)?;
        return Ok(());
    }
    let found = fs::read_to_string(&path).context(FILE)?;
    ensure!(found == made, "{FILE} is not in step with integration/src/dashboard: run `make docs UPDATE=1`");
    Ok(())
}

/// Grafana's own types are Go: this needs a Go that has, or can get, one module.
#[test]
fn grafanas_own_types_read_the_dashboard_strictly() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("check");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(root().join("integration/grafana"))
        .env("GOFLAGS", "-mod=readonly")
        .output();
    if !built.is_ok_and(|output| output.status.success()) {
        println!("not run: Grafana's types (no Go, or no module of them)");
        return Ok(());
    }
    let file = fs::File::open(root().join(FILE))?;
    let output = Command::new(&program).stdin(file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn every_metric_and_label_on_the_dashboard_is_in_the_catalog() -> Result<()> {
    for (place, expression) in expressions() {
        let names = promql::names(&expression);
        ensure!(!names.metrics.is_empty(), "{place}: {expression} names no metric");
        let mut labels: BTreeSet<&str> = FOREIGN_LABELS.iter().copied().collect();
        for metric in &names.metrics {
            let family =
                promql::family_of(metric).with_context(|| format!("{place}: {metric} is not in the catalog"))?;
            labels.extend(family.labels);
        }
        for label in &names.labels {
            ensure!(labels.contains(label.as_str()), "{place}: {expression} has no label {label}");
        }
    }
    Ok(())
}

#[test]
fn every_family_of_the_catalog_is_on_the_dashboard_or_listed_as_not() -> Result<()> {
    let shown: BTreeSet<&str> = expressions()
        .iter()
        .flat_map(|(_, expression)| promql::names(expression).metrics)
        .filter_map(|metric| promql::family_of(&metric).map(|family| family.name))
        .collect();
    // What a profile adds are the same numbers under other names.
    for family in catalog::usual() {
        let listed = NOT_SHOWN.iter().any(|(name, _)| *name == family.name);
        ensure!(shown.contains(family.name) != listed, "{} is on no panel (or needlessly listed)", family.name);
    }
    Ok(())
}

#[test]
fn panels_do_not_overlap_and_each_says_what_it_shows() -> Result<()> {
    let document = dashboard::render();
    let panels = document.pointer("/panels").and_then(Value::as_array).context("panels")?;
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        let place = |key: &str| panel.pointer(&format!("/gridPos/{key}")).and_then(Value::as_u64).unwrap_or_default();
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        ensure!(w > 0 && h > 0 && x + w <= 24, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            ensure!(taken.insert(cell), "two panels at {cell:?}");
        }
        ensure!(ids.insert(panel.pointer("/id").map(ToString::to_string)), "an id is there twice");
        if panel.pointer("/type").is_some_and(|kind| kind != "row") {
            let text = panel.pointer("/description").and_then(Value::as_str).unwrap_or_default();
            ensure!(text.contains('`') && text.len() > 20, "{}: no description", panel["title"]);
        }
    }
    Ok(())
}

#[test]
fn prometheus_finds_data_for_every_expression_on_a_page_of_the_whole_catalog() -> Result<()> {
    if !Prometheus::installed() {
        println!("not run: prometheus is not installed (make setup)");
        return Ok(());
    }
    let page = GrowingPage::start(&[Source::Envoy, Source::Companion, Source::LoraSyncer], "")?;
    let prometheus = Prometheus::start(page.port, "/metrics")?;
    let mut all = expressions();
    all.extend(endpoint_picker_expressions());
    let empty = without_data(&prometheus, &all)?;
    ensure!(empty.is_empty(), "no data: {empty:#?}");
    println!("{} expressions, all with data", all.len());
    Ok(())
}

/// Every metric of the expression that has no data here, if each has a reason for that.
fn excused(expression: &str) -> bool {
    let names = promql::names(expression).metrics;
    names.iter().any(|metric| NO_DATA.iter().any(|(name, _)| metric.starts_with(name)))
}

#[test]
fn prometheus_finds_data_for_every_expression_after_real_traffic_or_a_reason_is_listed() -> Result<()> {
    if !Prometheus::installed() {
        println!("not run: prometheus is not installed (make setup)");
        return Ok(());
    }
    let server = ModelServer::start()?;
    let config = r#"{"tenant_header":"user-agent","estimate_missing_usage":true}"#;
    let envoy = Envoy::start(&Options::to(server.port).config(config))?;
    let companion = Companion::start(
        &format!(
            "auth: {{mode: none}}\nflow_control: {{}}\nlisten: {{flow: '127.0.0.1:0', flow_health: '127.0.0.1:0'}}\nenvoy:\n- {{name: e, url: 'http://127.0.0.1:{}'}}\n\
             pools:\n- {{name: p, engine: vllm, discovery: {{static: ['127.0.0.1:{}']}}, refresh_metrics_interval: 1s}}\n",
            envoy.admin, server.port
        ),
        &[],
    )?;
    let replayer = Replayer::start()?;
    let mut syncer = Syncer::start(&[])?;
    syncer.write(&format!(
        "vLLMLoRAConfig:\n  host: 127.0.0.1\n  port: {}\n  ensureExist:\n    models:\n    - {{id: a, source: {}}}\n",
        replayer.port(),
        replayer.adapter(1).display()
    ))?;
    let jobs = [("tallyd", companion.port, "/metrics"), ("lora-syncer", syncer.port, "/metrics")];
    let prometheus = Prometheus::scraping(&jobs, "")?;
    let port = envoy.port;
    let sending = std::thread::spawn(move || send_recorded(port, SOON));

    let mut all = expressions();
    all.extend(endpoint_picker_expressions());
    let (without, asked): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, expression)| excused(expression));
    let empty = without_data(&prometheus, &asked)?;
    ensure!(empty.is_empty(), "no data, and no reason listed: {empty:#?}");
    println!("{} expressions with data, {} listed as without", asked.len(), without.len());
    for (place, expression) in &without {
        ensure!(prometheus.series(&plain(expression))? == 0, "{place} has data: take it off the list");
    }
    drop(sending);
    Ok(())
}
