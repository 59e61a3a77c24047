//! What flow control says: EPP's names. `flow_control.metric_labels` chooses between the seed's
//! labels and the five of EPP v1.5.

use super::buckets::{QUEUE_TIME, SHORT};
use super::{Family, Kind, Origin, Source, Unit};

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    unit: Unit,
    origin: Origin,
    help: &'static str,
) -> Family {
    Family { name, kind, labels, unit, help, origin, source: Source::Companion }
}

use Origin::{Epp, EppV15, LlmD, Tally};

/// Labels EPP v1.5 adds to the queue families.
pub const V15_EXTRA_LABELS: &[&str] = &["inference_pool", "model_name", "target_model_name"];

/// Time in the queue.
pub const QUEUE_DURATION: Family = family(
    "inference_extension_flow_control_request_queue_duration_seconds",
    Kind::Histogram(QUEUE_TIME),
    &["fairness_id", "priority", "outcome"],
    Unit::Seconds,
    Epp,
    "Time from entering flow control to the final outcome.",
);
/// Requests held.
pub const QUEUE_SIZE: Family = family(
    "inference_extension_flow_control_queue_size",
    Kind::Gauge,
    &["fairness_id", "priority"],
    Unit::Requests,
    Epp,
    "Requests that flow control holds.",
);
/// Bytes held.
pub const QUEUE_BYTES: Family = family(
    "inference_extension_flow_control_queue_bytes",
    Kind::Gauge,
    &["fairness_id", "priority"],
    Unit::Bytes,
    EppV15,
    "Body bytes of the requests that flow control holds, as far as known when they entered.",
);
/// Time to enqueue.
pub const ENQUEUE_DURATION: Family = family(
    "inference_extension_flow_control_request_enqueue_duration_seconds",
    Kind::Histogram(SHORT),
    &["fairness_id", "priority", "outcome"],
    Unit::Seconds,
    EppV15,
    "Time that entering a request into the queue took, by what came of it: Queued, Dispatched or Rejected….",
);
/// Time of one dispatch cycle.
pub const DISPATCH_CYCLE_DURATION: Family = family(
    "inference_extension_flow_control_dispatch_cycle_duration_seconds",
    Kind::Histogram(SHORT),
    &[],
    Unit::Seconds,
    EppV15,
    "Time of one dispatch cycle that had something to do.",
);
/// How full the pool is.
pub const POOL_SATURATION: Family = family(
    "inference_extension_flow_control_pool_saturation",
    Kind::Gauge,
    &["inference_pool"],
    Unit::Ratio,
    EppV15,
    "Saturation of the pool: 1 and above holds requests back.",
);
/// Decisions.
pub const REQUESTS_TOTAL: Family = family(
    "inference_extension_flow_control_requests_total",
    Kind::Counter,
    &["priority", "outcome"],
    Unit::Requests,
    LlmD,
    "Requests that flow control decided on, by outcome.",
);
/// Fairness ids folded.
pub const FLOW_OVERFLOW_TOTAL: Family = family(
    "inference_extension_flow_control_label_overflow_total",
    Kind::Counter,
    &[],
    Unit::Requests,
    Tally,
    "Requests whose fairness id was written as `other` because the cap was reached.",
);

/// All of the above, in the order docs list them.
pub const FAMILIES: &[&Family] = &[
    &QUEUE_DURATION,
    &QUEUE_SIZE,
    &QUEUE_BYTES,
    &ENQUEUE_DURATION,
    &DISPATCH_CYCLE_DURATION,
    &POOL_SATURATION,
    &REQUESTS_TOTAL,
    &FLOW_OVERFLOW_TOTAL,
];
