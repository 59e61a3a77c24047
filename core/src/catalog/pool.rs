//! What `tallyd` learns from the model servers of a pool.

use super::{Family, Kind, Origin, Source, Unit};

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    unit: Unit,
    origin: Origin,
    help: &'static str,
) -> Family {
    Family { name, kind: Kind::Gauge, labels, unit, help, origin, source: Source::Companion }
}

use Origin::{Epp, EppV15, LlmD, Tally};

/// Mean KV cache use.
pub const AVERAGE_KV_CACHE_UTILIZATION: Family = gauge(
    "inference_pool_average_kv_cache_utilization",
    &["name"],
    Unit::Ratio,
    Epp,
    "Mean KV cache use of the pool's fresh endpoints, 0 to 1.",
);
/// Mean queue.
pub const AVERAGE_QUEUE_SIZE: Family = gauge(
    "inference_pool_average_queue_size",
    &["name"],
    Unit::Requests,
    Epp,
    "Mean number of requests waiting in the pool's fresh endpoints.",
);
/// Mean running.
pub const AVERAGE_RUNNING_REQUESTS: Family = gauge(
    "inference_pool_average_running_requests",
    &["name"],
    Unit::Requests,
    EppV15,
    "Mean number of requests running in the pool's fresh endpoints.",
);
/// Fresh endpoints.
pub const READY_PODS: Family =
    gauge("inference_pool_ready_pods", &["name"], Unit::None, Epp, "Endpoints of the pool with fresh metrics.");
/// Queue per endpoint.
pub const PER_POD_QUEUE_SIZE: Family = gauge(
    "inference_pool_per_pod_queue_size",
    &["name", "model_server_pod"],
    Unit::Requests,
    Epp,
    "Requests waiting in one endpoint.",
);
/// Spread of the KV cache use.
pub const STDDEV_KV_CACHE_UTILIZATION: Family = gauge(
    "inference_pool_stddev_kv_cache_utilization",
    &["name"],
    Unit::Ratio,
    LlmD,
    "Population standard deviation of KV cache use over the pool's fresh endpoints.",
);
/// Spread of the queues.
pub const STDDEV_QUEUE_SIZE: Family = gauge(
    "inference_pool_stddev_queue_size",
    &["name"],
    Unit::Requests,
    LlmD,
    "Population standard deviation of waiting requests over the pool's fresh endpoints.",
);
/// Spread of running requests.
pub const STDDEV_RUNNING_REQUESTS: Family = gauge(
    "inference_pool_stddev_running_requests",
    &["name"],
    Unit::Requests,
    LlmD,
    "Population standard deviation of running requests over the pool's fresh endpoints.",
);
/// Least KV cache use.
pub const MIN_KV_CACHE_UTILIZATION: Family = gauge(
    "inference_pool_min_kv_cache_utilization",
    &["name"],
    Unit::Ratio,
    Tally,
    "Least KV cache use among the pool's fresh endpoints.",
);
/// Most KV cache use.
pub const MAX_KV_CACHE_UTILIZATION: Family = gauge(
    "inference_pool_max_kv_cache_utilization",
    &["name"],
    Unit::Ratio,
    Tally,
    "Greatest KV cache use among the pool's fresh endpoints.",
);
/// Shortest queue.
pub const MIN_QUEUE_SIZE: Family = gauge(
    "inference_pool_min_queue_size",
    &["name"],
    Unit::Requests,
    Tally,
    "Shortest queue among the pool's fresh endpoints.",
);
/// Longest queue.
pub const MAX_QUEUE_SIZE: Family = gauge(
    "inference_pool_max_queue_size",
    &["name"],
    Unit::Requests,
    Tally,
    "Longest queue among the pool's fresh endpoints.",
);
/// Fewest running.
pub const MIN_RUNNING_REQUESTS: Family = gauge(
    "inference_pool_min_running_requests",
    &["name"],
    Unit::Requests,
    Tally,
    "Fewest running requests among the pool's fresh endpoints.",
);
/// Most running.
pub const MAX_RUNNING_REQUESTS: Family = gauge(
    "inference_pool_max_running_requests",
    &["name"],
    Unit::Requests,
    Tally,
    "Most running requests among the pool's fresh endpoints.",
);
/// Age of the last good sample.
pub const SAMPLE_AGE: Family = gauge(
    "inference_pool_sample_age_seconds",
    &["name", "model_server_pod"],
    Unit::Seconds,
    Tally,
    "Age of the endpoint's last good sample.",
);
/// Scrapes.
pub const SCRAPES_TOTAL: Family = Family {
    name: "inference_pool_scrapes_total",
    kind: Kind::Counter,
    labels: &["name"],
    unit: Unit::None,
    help: "Scrapes of the pool's endpoints, failed ones included.",
    origin: Tally,
    source: Source::Companion,
};
/// Failed scrapes.
pub const SCRAPE_ERRORS_TOTAL: Family = Family {
    name: "inference_pool_scrape_errors_total",
    kind: Kind::Counter,
    labels: &["name", "reason"],
    unit: Unit::None,
    help: "Failed scrapes of the pool's endpoints by reason: connect, missing_family, parse, status, timeout, too_large, truncated.",
    origin: Tally,
    source: Source::Companion,
};
/// Adapters running somewhere in the pool.
pub const LORA_RUNNING_PODS: Family = gauge(
    "inference_pool_lora_adapter_pods",
    &["name", "adapter_name"],
    Unit::None,
    Tally,
    "Endpoints of the pool that have this LoRA adapter active, by the server's own report.",
);
/// Build information.
pub const EXTENSION_INFO: Family = gauge(
    "inference_extension_info",
    &["commit", "build_ref"],
    Unit::None,
    Epp,
    "1, with the commit and the build reference of the running tallyd.",
);
/// Envoys read.
pub const ENVOY_UP: Family =
    gauge("tally_envoy_up", &["envoy"], Unit::None, Tally, "1 if the last read of this Envoy's stats page succeeded.");
/// Age of an Envoy's families.
pub const ENVOY_AGE: Family =
    gauge("tally_envoy_age_seconds", &["envoy"], Unit::Seconds, Tally, "Age of the Envoy families on this page.");
/// Families that two Envoys disagree on.
pub const ENVOY_CONFLICTS_TOTAL: Family = Family {
    name: "tally_envoy_conflicts_total",
    kind: Kind::Counter,
    labels: &["family"],
    unit: Unit::None,
    help: "Reads in which a family had another type than the catalog or another Envoy gives it; such a family is left out.",
    origin: Tally,
    source: Source::Companion,
};

/// All of the above, in the order docs list them.
pub const FAMILIES: &[&Family] = &[
    &AVERAGE_KV_CACHE_UTILIZATION,
    &AVERAGE_QUEUE_SIZE,
    &AVERAGE_RUNNING_REQUESTS,
    &READY_PODS,
    &PER_POD_QUEUE_SIZE,
    &STDDEV_KV_CACHE_UTILIZATION,
    &STDDEV_QUEUE_SIZE,
    &STDDEV_RUNNING_REQUESTS,
    &MIN_KV_CACHE_UTILIZATION,
    &MAX_KV_CACHE_UTILIZATION,
    &MIN_QUEUE_SIZE,
    &MAX_QUEUE_SIZE,
    &MIN_RUNNING_REQUESTS,
    &MAX_RUNNING_REQUESTS,
    &SAMPLE_AGE,
    &SCRAPES_TOTAL,
    &SCRAPE_ERRORS_TOTAL,
    &LORA_RUNNING_PODS,
    &EXTENSION_INFO,
    &ENVOY_UP,
    &ENVOY_AGE,
    &ENVOY_CONFLICTS_TOTAL,
];
