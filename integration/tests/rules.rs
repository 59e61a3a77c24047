//! Prometheus' rules and scrape configuration: promtool accepts and tests them, a real Prometheus evaluates them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use tally_core::catalog::{Kind, Source};
use tally_integration::growing::GrowingPage;
use tally_integration::prometheus::Prometheus;
use tally_integration::promql;
use tally_integration::tools::{poll, root};

const SOON: Duration = Duration::from_secs(40);

/// Labels that Prometheus adds, and what renaming adds.
const FOREIGN_LABELS: &[&str] = &["job", "instance", "le"];
/// Metrics that Prometheus makes.
const FOREIGN_METRICS: &[&str] = &["up"];

#[derive(Debug, Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    expr: String,
    #[serde(rename = "for", default)]
    lasting: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Rule {
    fn name(&self) -> &str {
        self.alert.as_deref().or(self.record.as_deref()).unwrap_or_default()
    }
}

fn folder() -> PathBuf {
    root().join("deploy/prometheus")
}

fn read(file: &str) -> Result<Rules> {
    let text = fs::read_to_string(folder().join(file)).with_context(|| file.to_owned())?;
    serde_saphyr::from_str(&text).with_context(|| file.to_owned())
}

fn rules(file: &str) -> Result<Vec<Rule>> {
    Ok(read(file)?.groups.into_iter().flat_map(|group| group.rules).collect())
}

/// Runs promtool in the folder of the rules; `false` if there is none.
fn promtool(arguments: &[&str]) -> Result<bool> {
    let Ok(output) = Command::new("promtool").args(arguments).current_dir(folder()).output() else {
        println!("not run: promtool is not installed (make setup)");
        return Ok(false);
    };
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
    }
    Ok(true)
}

#[test]
fn promtool_accepts_the_rules_and_the_scrape_configuration() -> Result<()> {
    promtool(&["check", "rules", "rules.yaml", "names.yaml"])?;
    promtool(&["check", "config", "--syntax-only", "prometheus.yml"])?;
    // Debian builds its promtool without Kubernetes' discovery: everything else of that file is checked.
    let text = fs::read_to_string(folder().join("kubernetes.yml"))?;
    let mut plain = text;
    for role in ["pod", "endpoints"] {
        plain = plain.replace(&format!("kubernetes_sd_configs:\n  - role: {role}\n"), "static_configs: []\n");
    }
    ensure!(!plain.contains("kubernetes_sd_configs"), "a discovery of another shape");
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), plain)?;
    promtool(&["check", "config", "--syntax-only", &file.path().to_string_lossy()])?;
    Ok(())
}

#[test]
fn promtool_runs_the_tests_of_the_rules() -> Result<()> {
    promtool(&["test", "rules", "tests/alerts.yaml", "tests/records.yaml"])?;
    Ok(())
}

#[test]
fn every_alert_is_tested_firing_and_not() -> Result<()> {
    let tests: Value = serde_saphyr::from_str(&fs::read_to_string(folder().join("tests/alerts.yaml"))?)?;
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for test in tests["tests"].as_array().context("tests")? {
        for case in test["alert_rule_test"].as_array().context("alert_rule_test")? {
            let name = case["alertname"].as_str().unwrap_or_default().to_owned();
            let fires = case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
            if fires {
                firing.insert(name)
            } else {
                silent.insert(name)
            };
        }
    }
    let alerts: BTreeSet<String> = rules("rules.yaml")?.into_iter().filter_map(|rule| rule.alert).collect();
    ensure!(alerts.len() >= 20 && firing == alerts && silent == alerts, "firing {firing:?}\nsilent {silent:?}");
    Ok(())
}

#[test]
fn the_endpoint_pickers_four_alerts_are_there_unchanged() -> Result<()> {
    let expected = [
        (
            "HighInferenceRequestLatencyP99",
            "histogram_quantile(0.99, rate(inference_objective_request_duration_seconds_bucket[5m])) > 10.0",
            "warning",
        ),
        (
            "HighInferenceErrorRate",
            "sum by (model_name) (rate(inference_objective_request_error_total[5m])) / sum by (model_name) (rate(inference_objective_request_total[5m])) > 0.05",
            "critical",
        ),
        ("HighInferencePoolAvgQueueSize", "inference_pool_average_queue_size > 50", "critical"),
        ("HighInferencePoolAvgKVCacheUtilization", "inference_pool_average_kv_cache_utilization > 0.9", "critical"),
    ];
    let groups = read("rules.yaml")?.groups;
    let group = groups.iter().find(|group| group.name == "gateway-api-inference-extension").context("the group")?;
    ensure!(group.rules.len() == expected.len(), "{group:?}");
    for (rule, (name, expression, severity)) in group.rules.iter().zip(expected) {
        ensure!(rule.name() == name && rule.expr == expression && rule.lasting == "5m", "{rule:?}");
        ensure!(rule.labels.get("severity").is_some_and(|found| found == severity), "{rule:?}");
    }
    Ok(())
}

#[test]
fn every_metric_and_label_in_the_rules_is_in_the_catalog() -> Result<()> {
    let all: Vec<Rule> = rules("rules.yaml")?.into_iter().chain(rules("names.yaml")?).collect();
    let recorded: BTreeSet<&str> = all.iter().filter_map(|rule| rule.record.as_deref()).collect();
    for rule in &all {
        let names = promql::names(&rule.expr);
        let mut labels: BTreeSet<&str> = FOREIGN_LABELS.iter().copied().collect();
        for metric in &names.metrics {
            if recorded.contains(metric.as_str()) || FOREIGN_METRICS.contains(&metric.as_str()) {
                continue;
            }
            let family = promql::family_of(metric).with_context(|| format!("{}: {metric}", rule.name()))?;
            labels.extend(family.labels);
        }
        for label in &names.labels {
            ensure!(labels.contains(label.as_str()), "{}: {} has no label {label}", rule.name(), rule.expr);
        }
    }
    Ok(())
}

#[test]
fn a_renamed_histogram_is_renamed_in_all_its_parts() -> Result<()> {
    let all = rules("names.yaml")?;
    let recorded: BTreeSet<&str> = all.iter().map(Rule::name).collect();
    for rule in &all {
        let metric = promql::names(&rule.expr).metrics.into_iter().next().context("a metric")?;
        let family = promql::family_of(&metric).context("a family")?;
        if !matches!(family.kind, Kind::Histogram(_)) {
            continue;
        }
        let part = metric.strip_prefix(family.name).unwrap_or_default();
        let base = rule.name().strip_suffix(part).with_context(|| format!("{} is not for {metric}", rule.name()))?;
        for part in ["_bucket", "_sum", "_count"] {
            ensure!(recorded.contains(format!("{base}{part}").as_str()), "{base}{part} is missing");
        }
    }
    Ok(())
}

#[test]
fn every_metric_that_a_guide_gives_to_tally_is_in_the_catalog() -> Result<()> {
    let own =
        ["inference_objective_", "inference_pool_", "inference_extension_", "normalized_", "tally_", "lora_syncer_"];
    for guide in ["OPERATIONS.md", "MIGRATION.md"] {
        let text = fs::read_to_string(root().join("docs").join(guide))?;
        // Rows that say `none` name what Tally does not have.
        for line in text.lines().filter(|line| !line.contains("| none |")) {
            let code = line.split('`').skip(1).step_by(2);
            for name in
                code.filter(|code| own.iter().any(|prefix| code.starts_with(prefix)) && !code.contains(['*', '…']))
            {
                ensure!(promql::family_of(name).is_some(), "docs/{guide} names {name}");
            }
        }
    }
    Ok(())
}

/// The expression with every threshold put out of the way, so that healthy data gives a result: `absent(x)` becomes `x`.
fn loosened(expression: &str) -> String {
    let mut text = expression.replace("absent(", "(");
    for sign in [" > ", " >= ", " == "] {
        let mut parts = text.split(sign);
        let mut next = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let number = part.find(|c: char| !"0123456789.* ".contains(c)).unwrap_or(part.len());
            let (head, tail) = part.split_at(number);
            ensure_number(head);
            next.push_str(" !=  -1 ");
            next.push_str(tail);
        }
        text = next;
    }
    text
}

fn ensure_number(text: &str) {
    assert!(text.trim().chars().next().is_some_and(|first| first.is_ascii_digit()), "a threshold: {text}");
}

#[test]
fn a_real_prometheus_evaluates_every_rule_and_finds_data_under_it() -> Result<()> {
    if !Prometheus::installed() {
        println!("not run: prometheus is not installed (make setup)");
        return Ok(());
    }
    let page = GrowingPage::start(&[Source::Envoy, Source::Companion, Source::LoraSyncer], "")?;
    let more = format!(
        "global: {{ evaluation_interval: 1s }}\nrule_files: ['{0}/rules.yaml', '{0}/names.yaml']",
        folder().display()
    );
    let prometheus = Prometheus::scraping(&[("tallyd", page.port, "/metrics")], &more)?;
    let mut open: Vec<Rule> = rules("rules.yaml")?.into_iter().chain(rules("names.yaml")?).collect();
    let count = open.len();
    poll(SOON, || {
        open.retain(|rule| {
            let recorded = rule.record.as_ref().is_none_or(|name| prometheus.series(name).is_ok_and(|found| found > 0));
            let found = recorded && prometheus.series(&loosened(&rule.expr)).is_ok_and(|found| found > 0);
            !found
        });
        open.is_empty().then_some(())
    });
    let names: Vec<&str> = open.iter().map(Rule::name).collect();
    ensure!(open.is_empty(), "no data under {names:?}");
    let groups = prometheus.rule_groups()?;
    let evaluated: Vec<&Value> = groups
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .collect();
    ensure!(evaluated.len() == count, "{} rules of {count}", evaluated.len());
    for rule in evaluated {
        ensure!(rule["health"] == "ok", "{rule}");
    }
    println!("{count} rules, all evaluated, all with data");
    Ok(())
}
