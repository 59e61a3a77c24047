//! What `tallyd lora-syncer` says of adapters.

use super::{Family, Kind, Origin, Source, Unit};

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    unit: Unit,
    origin: Origin,
    help: &'static str,
) -> Family {
    Family { name, kind, labels, unit, help, origin, source: Source::LoraSyncer }
}

use Origin::{LoraSidecar, Tally};

/// Is the adapter loaded?
pub const ADAPTER_STATUS: Family = family(
    "lora_syncer_adapter_status",
    Kind::Gauge,
    &["adapter_name"],
    Unit::None,
    LoraSidecar,
    "1 if the model server has the adapter loaded as the configuration asks, 0 if not.",
);
/// Reconcile runs.
pub const RECONCILES_TOTAL: Family = family(
    "lora_syncer_reconciles_total",
    Kind::Counter,
    &["result"],
    Unit::None,
    Tally,
    "Reconcile runs by result: ok, partial (something is not as asked yet), failed (the server did not answer).",
);
/// Time of the last reconcile.
pub const RECONCILE_DURATION: Family = family(
    "lora_syncer_reconcile_duration_seconds",
    Kind::Gauge,
    &[],
    Unit::Seconds,
    Tally,
    "Duration of the last reconcile run: health check and listing; the calls that follow go on beside it.",
);
/// Errors by adapter.
pub const ERRORS_TOTAL: Family = family(
    "lora_syncer_errors_total",
    Kind::Counter,
    &["adapter_name", "reason"],
    Unit::None,
    Tally,
    "Failed calls by adapter and reason; an empty adapter name is the listing or the health check.",
);
/// When all was well.
pub const LAST_SUCCESS: Family = family(
    "lora_syncer_last_success_timestamp_seconds",
    Kind::Gauge,
    &[],
    Unit::UnixSeconds,
    Tally,
    "Unix time of the last reconcile run in which everything was as the configuration asks.",
);
/// Which configuration.
pub const CONFIG_GENERATION: Family = family(
    "lora_syncer_config_generation",
    Kind::Gauge,
    &[],
    Unit::None,
    Tally,
    "How many good configurations have been read since start.",
);
/// Is the file good?
pub const CONFIG_VALID: Family = family(
    "lora_syncer_config_valid",
    Kind::Gauge,
    &[],
    Unit::None,
    Tally,
    "1 if the configuration file on disk is valid, 0 while an earlier good one is kept.",
);

/// All of the above, in the order docs list them.
pub const FAMILIES: &[&Family] = &[
    &ADAPTER_STATUS,
    &RECONCILES_TOTAL,
    &RECONCILE_DURATION,
    &ERRORS_TOTAL,
    &LAST_SUCCESS,
    &CONFIG_GENERATION,
    &CONFIG_VALID,
];
