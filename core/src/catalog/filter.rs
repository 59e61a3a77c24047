//! What the filter says of itself: enough to see that it is well, and why a number may be missing.

use super::{Family, Kind, Origin, Source, Unit};
use crate::doc;

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    unit: Unit,
    help: &'static str,
) -> Family {
    Family { name, kind, labels, unit, help: doc(help), origin: Origin::Tally, source: Source::Envoy }
}

/// Requests the filter let pass without measuring.
pub const REQUESTS_IGNORED_TOTAL: Family = family(
    "tally_filter_requests_ignored_total",
    Kind::Counter,
    &["reason"],
    Unit::Requests,
    "Requests that passed unmeasured, by reason: method, path, content_type, upgrade, disabled.",
);
/// Streams in the filter right now.
pub const LIVE_STREAMS: Family = family(
    "tally_filter_live_streams",
    Kind::Gauge,
    &[],
    Unit::Requests,
    "Streams that the filter holds, measured or not, over all workers.",
);
/// Stats defined in Envoy.
pub const SERIES: Family = family(
    "tally_filter_series",
    Kind::Gauge,
    &[],
    Unit::None,
    "Envoy stats that the filter has defined, summed over all workers.",
);
/// Label values folded into `other`.
pub const LABEL_OVERFLOW_TOTAL: Family = family(
    "tally_filter_label_overflow_total",
    Kind::Counter,
    &["label"],
    Unit::Requests,
    "Requests whose label value was written as `other` because the cap of distinct values was reached.",
);
/// Table flushes.
pub const FLUSHES_TOTAL: Family = family(
    "tally_filter_flushes_total",
    Kind::Counter,
    &[],
    Unit::None,
    "Flushes of the filter's table into Envoy's stats, over all workers.",
);
/// Time spent flushing.
pub const FLUSH_NANOSECONDS_TOTAL: Family = family(
    "tally_filter_flush_nanoseconds_total",
    Kind::Counter,
    &[],
    Unit::Nanoseconds,
    "Time spent in flushes, over all workers.",
);
/// Bytes read.
pub const SCANNED_BYTES_TOTAL: Family = family(
    "tally_filter_scanned_bytes_total",
    Kind::Counter,
    &["direction"],
    Unit::Bytes,
    "Body bytes that the filter read, by direction: request, response.",
);
/// Host calls that failed.
pub const HOST_CALL_ERRORS_TOTAL: Family = family(
    "tally_filter_host_call_errors_total",
    Kind::Counter,
    &["call"],
    Unit::None,
    "Calls to Envoy that failed, by call.",
);
/// Linear memory.
pub const VM_MEMORY_BYTES: Family = family(
    "tally_filter_vm_memory_bytes",
    Kind::Gauge,
    &[],
    Unit::Bytes,
    "Linear memory of the filter's VMs, summed over all workers.",
);
/// Streams of dead VMs.
pub const REAPED_STREAMS_TOTAL: Family = family(
    "tally_filter_reaped_streams_total",
    Kind::Counter,
    &[],
    Unit::Requests,
    "Streams of a failed VM that another VM took out of the gauges.",
);
/// Admission answers.
pub const ADMISSIONS_TOTAL: Family = family(
    "tally_filter_admissions_total",
    Kind::Counter,
    &["result"],
    Unit::Requests,
    "Admission decisions as the filter saw them: dispatched, rejected, failed_open, failed_closed, cancelled.",
);
/// Build information.
pub const INFO: Family =
    family("tally_filter_info", Kind::Gauge, &["version"], Unit::None, "1, with the filter's version.");

/// All of the above, in the order docs list them.
pub const FAMILIES: &[&Family] = &[
    &REQUESTS_IGNORED_TOTAL,
    &LIVE_STREAMS,
    &SERIES,
    &LABEL_OVERFLOW_TOTAL,
    &FLUSHES_TOTAL,
    &FLUSH_NANOSECONDS_TOTAL,
    &SCANNED_BYTES_TOTAL,
    &HOST_CALL_ERRORS_TOTAL,
    &VM_MEMORY_BYTES,
    &REAPED_STREAMS_TOTAL,
    &ADMISSIONS_TOTAL,
    &INFO,
];
