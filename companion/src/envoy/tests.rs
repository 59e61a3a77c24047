use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tally_core::catalog;
use tally_core::exposition::{Format, Writer};

use super::carry::Carry;
use super::families::{Families, Histogram, Value};
use super::merge::{Merged, merge};
use super::*;
use crate::collect::Collect;
use crate::config::AdminAddress;

/// Output tokens as Envoy 1.40 writes the filter's counters: three families, `+Inf` first, bounds in the order of their
/// text, no HELP. The counts are by hand: values 1, 20, 20 and 9000 tokens.
const TOKENS: &str = r#"# TYPE inference_objective_output_tokens_bucket counter
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="+Inf"} 4
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="1"} 1
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="1024"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="128"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="16"} 1
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="2048"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="256"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="32"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="4096"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="512"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="64"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="8"} 1
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="8192"} 3
# TYPE inference_objective_output_tokens_count counter
inference_objective_output_tokens_count{model_name="m",target_model_name="t"} 4
# TYPE inference_objective_output_tokens_sum counter
inference_objective_output_tokens_sum{model_name="m",target_model_name="t"} 9041
# TYPE inference_objective_running_requests gauge
inference_objective_running_requests{model_name="m"} 2
# TYPE tally_filter_info gauge
tally_filter_info{version="0.1.0"} 1
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_cluster_name="c"} 7
"#;

/// The same as a page of histograms.
const TOKENS_SHOWN: &str = r#"# TYPE inference_objective_output_tokens histogram
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="1"} 1
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="8"} 1
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="16"} 1
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="32"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="64"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="128"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="256"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="512"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="1024"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="2048"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="4096"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="8192"} 3
inference_objective_output_tokens_bucket{model_name="m",target_model_name="t",le="+Inf"} 4
inference_objective_output_tokens_sum{model_name="m",target_model_name="t"} 9041
inference_objective_output_tokens_count{model_name="m",target_model_name="t"} 4
"#;

fn read(page: &str) -> Families {
    Families::parse(page.as_bytes(), None)
}

/// Envoys that have just been read.
fn envoys(pages: &[Families]) -> Envoys {
    let envoys = pages.iter().enumerate().map(|(index, families)| {
        let envoy = Envoy::new(&EnvoyAdmin::at(AdminAddress::Tcp(format!("envoy-{index}:9901"))));
        *envoy.state() = State { is_up: Some(true), good: Some((Arc::new(families.clone()), Instant::now())) };
        Arc::new(envoy)
    });
    Envoys { envoys: envoys.collect(), conflicts: Arc::default() }
}

fn shown(envoys: &Envoys) -> String {
    let mut page = Writer::new(Format::Text);
    envoys.collect(&mut page);
    page.finish()
}

fn number(merged: &Merged, name: &str) -> Vec<f64> {
    let known = merged.known.values().find(|known| known.family.name == name);
    known.map_or_else(Vec::new, |known| {
        let number = |value: &Value| match value {
            Value::Number(value) => *value,
            Value::Histogram(histogram) => histogram.count,
        };
        known.series.values().map(number).collect()
    })
}

#[test]
fn counters_become_a_histogram_with_exact_bounds_counts_and_sum() {
    let page = shown(&envoys(&[read(TOKENS)]));
    assert!(page.contains(TOKENS_SHOWN), "{page}");
    assert!(page.contains("# HELP inference_objective_output_tokens [ALPHA] Output tokens of a request"));
    assert!(page.contains(
        "# TYPE inference_objective_running_requests gauge\ninference_objective_running_requests{model_name=\"m\"} 2\n"
    ));
    assert!(page.contains("tally_envoy_up{envoy=\"envoy-0:9901\"} 1\n"));
    assert!(!page.contains("envoy_cluster_upstream_rq"), "not of the catalog and not asked for");
}

#[test]
fn every_family_of_the_filter_comes_through_with_its_bounds() {
    let mut text = String::new();
    for family in catalog::all().filter(|family| family.source == catalog::Source::Envoy) {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("{label}=\"v\"")).collect();
        let labels = labels.join(",");
        let name = family.name;
        match family.kind {
            catalog::Kind::Histogram(bounds) => {
                writeln!(text, "# TYPE {name}_bucket counter").unwrap();
                for (count, bound) in bounds.iter().enumerate() {
                    writeln!(text, "{name}_bucket{{{labels},le=\"{}\"}} {count}", bound.le).unwrap();
                }
                writeln!(text, "# TYPE {name}_count counter\n{name}_count{{{labels}}} {}", bounds.len()).unwrap();
                writeln!(text, "# TYPE {name}_sum counter\n{name}_sum{{{labels}}} 5").unwrap();
            }
            catalog::Kind::Counter => writeln!(text, "# TYPE {name} counter\n{name}{{{labels}}} 5").unwrap(),
            catalog::Kind::Gauge => writeln!(text, "# TYPE {name} gauge\n{name}{{{labels}}} 5").unwrap(),
        }
    }
    let page = shown(&envoys(&[read(&text)]));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        // Envoy writes `{}` where there are no labels.
        assert!(page.contains(&format!("{}\n", line.replace("{}", ""))), "{line}");
    }
}

#[test]
fn several_envoys_are_added_up_series_by_series() {
    let other = TOKENS.replace("model_name=\"m\"", "model_name=\"n\"");
    let merged = merge([(&read(TOKENS), false), (&read(TOKENS), false), (&read(&other), false)]);
    assert_eq!(number(&merged, "inference_objective_output_tokens"), [8.0, 4.0]);
    assert_eq!(number(&merged, "inference_objective_running_requests"), [4.0, 2.0]);
    assert_eq!(number(&merged, "tally_filter_info"), [1.0], "an information is not added up");
    let page = shown(&envoys(&[read(TOKENS), read(TOKENS)]));
    for line in [
        "_bucket{model_name=\"m\",target_model_name=\"t\",le=\"32\"} 6",
        "_sum{model_name=\"m\",target_model_name=\"t\"} 18082",
    ] {
        assert!(page.contains(&format!("inference_objective_output_tokens{line}\n")), "{line}\n{page}");
    }
}

#[test]
fn an_envoy_that_restarts_does_not_take_its_counts_along() {
    let mut carry = Carry::default();
    let first = "# TYPE inference_objective_request_total counter\ninference_objective_request_total{model_name=\"m\",target_model_name=\"t\"} 10\n";
    let count = |families: &Families| number(&merge([(families, false)]), "inference_objective_request_total")[0];
    let tokens = |families: &Families| number(&merge([(families, false)]), "inference_objective_output_tokens");
    let with_tokens = format!("{first}{TOKENS}");
    assert_eq!(count(&carry.add(read(&with_tokens))), 10.0);
    assert_eq!(count(&carry.add(read(&with_tokens.replace("} 10\n", "} 12\n")))), 12.0);
    let after = carry.add(read(&first.replace("} 10\n", "} 3\n")));
    assert_eq!((count(&after), tokens(&after)), (15.0, vec![4.0]), "restarted, other families are gone");
    let after = carry.add(read(&with_tokens.replace("} 10\n", "} 5\n")));
    assert_eq!((count(&after), tokens(&after)), (17.0, vec![8.0]), "goes on");
    let running = number(&merge([(&after, false)]), "inference_objective_running_requests");
    assert_eq!(running, [2.0], "gauges are as read");
}

#[test]
fn a_family_of_another_type_is_left_out_and_counted() {
    let wrong = TOKENS.replace(
        "# TYPE inference_objective_running_requests gauge",
        "# TYPE inference_objective_running_requests counter",
    );
    let families = read(&wrong);
    assert_eq!(families.conflicts.iter().copied().collect::<Vec<_>>(), ["inference_objective_running_requests"]);
    let page = shown(&envoys(&[families]));
    assert!(!page.contains("inference_objective_running_requests{"), "{page}");
    assert!(page.contains("inference_objective_output_tokens_count{"), "others are unhurt");
}

#[test]
fn envoys_own_histograms_pass_with_their_bounds_and_are_not_mixed_with_others() {
    let native = "# TYPE inference_objective_output_tokens histogram\n\
        inference_objective_output_tokens_bucket{model_name=\"m\",target_model_name=\"t\",le=\"0.5\"} 0\n\
        inference_objective_output_tokens_bucket{model_name=\"m\",target_model_name=\"t\",le=\"100\"} 3\n\
        inference_objective_output_tokens_bucket{model_name=\"m\",target_model_name=\"t\",le=\"+Inf\"} 4\n\
        inference_objective_output_tokens_sum{model_name=\"m\",target_model_name=\"t\"} 9100.5\n\
        inference_objective_output_tokens_count{model_name=\"m\",target_model_name=\"t\"} 4\n";
    let page = shown(&envoys(&[read(native)]));
    assert!(page.contains(native), "{page}");
    let mixed = envoys(&[read(native), read(TOKENS)]);
    let page = shown(&mixed);
    assert!(!page.contains("inference_objective_output_tokens_bucket"), "{page}");
    assert!(page.contains("tally_envoy_conflicts_total{family=\"inference_objective_output_tokens\"} 1\n"), "{page}");
}

#[test]
fn buckets_that_were_never_incremented_may_be_absent() {
    let sparse: String = TOKENS
        .lines()
        .filter(|line| !["\"1\"", "\"8\"", "\"64\""].iter().any(|le| line.contains(&format!("le={le}"))))
        .map(|line| format!("{line}\n"))
        .collect();
    let families = read(&sparse);
    let Some(Value::Histogram(Histogram { buckets, .. })) = families
        .known
        .values()
        .find(|known| known.family.name == "inference_objective_output_tokens")
        .and_then(|known| known.series.values().next())
    else {
        panic!("a histogram")
    };
    let counts: Vec<_> = buckets.iter().map(|bucket| bucket.count).collect();
    assert_eq!(counts, [0.0, 0.0, 1.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]);
}

#[test]
fn gauges_of_an_envoy_that_is_away_go_and_its_counters_stay() {
    let away = envoys(&[read(TOKENS), read(TOKENS)]);
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    {
        let mut state = away.envoys[0].state();
        state.is_up = Some(false);
        state.good.as_mut().unwrap().1 = long_ago;
    }
    let page = shown(&away);
    assert!(
        page.contains("inference_objective_running_requests{model_name=\"m\"} 2\n"),
        "only the other one's: {page}"
    );
    assert!(
        page.contains("inference_objective_output_tokens_count{model_name=\"m\",target_model_name=\"t\"} 8\n"),
        "{page}"
    );
    assert!(page.contains("tally_envoy_up{envoy=\"envoy-0:9901\"} 0\n"), "{page}");
    assert!(page.contains("tally_envoy_age_seconds{envoy=\"envoy-0:9901\"} 60."), "{page}");
}

#[test]
fn families_that_are_asked_for_are_passed_on_with_the_envoys_name() {
    let also = regex::Regex::new("^(?:envoy_cluster_.*)$").unwrap();
    let text = format!(
        "{TOKENS}# TYPE envoy_cluster_time histogram\nenvoy_cluster_time_bucket{{le=\"+Inf\"}} 1\nenvoy_cluster_time_sum{{}} 2\nenvoy_cluster_time_count{{}} 1\n# TYPE envoy_server_live gauge\nenvoy_server_live{{}} 1\n"
    );
    let families = Families::parse(text.as_bytes(), Some(&also));
    let page = shown(&envoys(&[families.clone(), families]));
    let expected = "# TYPE envoy_cluster_upstream_rq counter\n\
        envoy_cluster_upstream_rq{envoy_cluster_name=\"c\",envoy=\"envoy-0:9901\"} 7\n\
        envoy_cluster_upstream_rq{envoy_cluster_name=\"c\",envoy=\"envoy-1:9901\"} 7\n";
    assert!(page.contains(expected), "{page}");
    assert!(
        page.contains(
            "# TYPE envoy_cluster_time histogram\nenvoy_cluster_time_bucket{le=\"+Inf\",envoy=\"envoy-0:9901\"} 1\n"
        ),
        "{page}"
    );
    assert!(!page.contains("envoy_server_live"), "{page}");
}

#[test]
fn hostile_label_values_stay_values() {
    let text = "# TYPE inference_objective_request_total counter\ninference_objective_request_total{model_name=\"a\\\"b\\\\\",target_model_name=\"x\\ny\"} 1\n";
    let page = shown(&envoys(&[read(text)]));
    assert!(page.contains(text), "{page}");
}

#[test]
fn half_a_page_and_noise_do_no_harm() {
    for cut in 0..TOKENS.len() {
        let families = read(&TOKENS[..cut]);
        let _ = shown(&envoys(&[families]));
    }
    assert!(read("\u{0}\nx{ 1\n{} 2\ninference_objective_request_total{model_name=} 1\n").known.is_empty());
}
