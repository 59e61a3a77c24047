use super::super::band::{Fairness, Ordering};
use super::*;

fn read(text: &str) -> FlowConfig {
    serde_saphyr::from_str(text).unwrap()
}

/// The thresholds and limits by hand from EPP's documentation of its defaults.
#[test]
fn an_empty_block_has_epps_thresholds_and_band_limits() {
    let plan = read("{}").plan().unwrap();
    let saturation = plan.controller.saturation;
    assert_eq!((saturation.queue_depth_threshold, saturation.kv_cache_util_threshold), (5.0, 0.8));
    assert_eq!((saturation.staleness_nanos, saturation.max_concurrency), (200_000_000, 100.0));
    let (priority, band) = plan.controller.queue.bands.first().unwrap();
    assert_eq!((*priority, band.max_bytes, band.max_requests, band.ceiling), (0, 1_000_000_000, 0, 1.0));
}

#[test]
fn a_block_as_epp_users_write_it_is_understood() {
    let plan = read(
        "maxBytes: 2Gi\nmaxRequests: 5000\ndefaultRequestTTL: 1m30s\n\
         priorityBands:\n- priority: 100\n  fairnessPolicyRef: global-strict-fairness-policy\n  \
         orderingPolicyRef: edf-ordering-policy\n  maxBytes: 500M\n\
         - priority: -10\n  usageLimit: 0.7\n  weights: {a: 3}\n  fairnessPolicyRef: weighted-fairness-policy\n\
         saturationDetector: {detectors: [utilization-detector], queueDepthThreshold: 10}\n\
         objectives: {chat: 100}\nmetric_labels: v15\nreply: llm-d\n",
    )
    .plan()
    .unwrap();
    assert_eq!((plan.controller.queue.max_bytes, plan.controller.ttl_nanos), (1 << 31, 90_000_000_000));
    let (_, first) = &plan.controller.queue.bands[0];
    assert_eq!((first.fairness, first.ordering), (Fairness::GlobalStrict, Ordering::EarliestDeadline));
    let (_, second) = &plan.controller.queue.bands[1];
    assert_eq!((second.fairness, second.weights["a"], second.ceiling), (Fairness::Weighted, 3, 0.7));
    assert_eq!((plan.objectives["chat"], plan.metric_labels), (100, MetricLabels::V15));
}

#[test]
fn a_value_that_cannot_be_is_named_with_its_key() {
    for (text, said) in [
        ("saturationDetector: {queueDepthThreshold: 0}", "saturationDetector.queueDepthThreshold: expected a number"),
        ("priorityBands: [{priority: 1}, {priority: 1}]", "priorityBands: priority 1 is listed twice"),
        ("defaultPriorityBand: {weights: {a: 0}}", "weights: expected numbers from 1 to 1000"),
        ("defaultPriorityBand: {usageLimit: 0}", "usageLimit: expected a number above 0"),
    ] {
        let error = read(text).plan().unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
    let error = serde_saphyr::from_str::<FlowConfig>("maxByte: 1").unwrap_err().to_string();
    assert!(error.contains("maxByte") && error.contains("maxBytes"), "{error}");
}

#[test]
fn without_a_pool_the_default_counts_what_runs_and_utilization_is_refused() {
    let plan = read("{}").plan().unwrap().with_pool(false).unwrap().controller.saturation;
    assert_eq!((plan.utilization, plan.concurrency), (false, true));
    let plan = read("{}").plan().unwrap().with_pool(true).unwrap().controller.saturation;
    assert_eq!((plan.utilization, plan.concurrency), (true, false));
    let asked = read("saturationDetector: {detectors: [utilization-detector]}").plan().unwrap();
    assert_eq!(asked.with_pool(false).unwrap_err(), FlowConfigError::NoPool);
}
