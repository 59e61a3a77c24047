//! Every metric of Tally, once: name, kind, help, unit, labels, bucket bounds, where it comes from.
//!
//! In: nothing. Out: static tables, one file for each part of the product that emits.
//! README, docs/METRICS.md, the Envoy bootstrap, dashboards, alerts and the Helm chart are checked
//! against these tables by tests; a name that is not here does not exist.

pub mod buckets;
pub mod filter;
pub mod flow;
pub mod lora;
pub mod objective;
pub mod pool;
pub mod profile;

pub use buckets::Bound;

/// What a family is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Classic histogram with these cumulative bounds; `+Inf` is implied.
    Histogram(&'static [Bound]),
}

/// Unit of the observed values, as a person would say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes on the wire, before decompression.
    Bytes,
    /// A plain count, a flag or an identifier.
    None,
    /// Nanoseconds, where a counter must be an integer.
    Nanoseconds,
    /// A share between 0 and 1.
    Ratio,
    /// Requests.
    Requests,
    /// Seconds; held as nanoseconds inside Tally.
    Seconds,
    /// Tokens as the model server counts them.
    Tokens,
    /// Unix time in seconds.
    UnixSeconds,
}

/// Where a family's name and meaning come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The endpoint picker of Gateway API Inference Extension, in the release the seed describes.
    Epp,
    /// The endpoint picker's last release, v1.5.0.
    EppV15,
    /// llm-d's router, where the endpoint picker lives on.
    LlmD,
    /// The dynamic LoRA adapter sidecar.
    LoraSidecar,
    /// OpenTelemetry's GenAI conventions.
    OpenTelemetry,
    /// Tally's own.
    Tally,
}

/// Which process serves a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The filter, at Envoy's `/stats/prometheus` (and through `tallyd`'s page).
    Envoy,
    /// `tallyd serve`, on :9090.
    Companion,
    /// `tallyd lora-syncer`, on :8080.
    LoraSyncer,
}

/// One metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Full name as scraped, without `_bucket`, `_count` or `_sum`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Label keys in the order they are written; `le` is implied for histograms.
    pub labels: &'static [&'static str],
    /// Unit of its values.
    pub unit: Unit,
    /// HELP text without the `[ALPHA] ` prefix; empty in the filter, which cannot give it to Envoy.
    pub help: &'static str,
    /// Who named it first.
    pub origin: Origin,
    /// Who serves it.
    pub source: Source,
}

impl Family {
    /// HELP line as served: the field marks the stability in front.
    pub const STABILITY: &'static str = "[ALPHA] ";

    /// Stats that one series of the family takes in Envoy.
    #[must_use]
    pub const fn stats(&self) -> usize {
        match self.kind {
            Kind::Counter | Kind::Gauge => 1,
            // Each bound, `+Inf`, `_count` and `_sum`.
            Kind::Histogram(bounds) => bounds.len() + 3,
        }
    }
}

/// All families of all parts, in the order docs list them.
pub fn all() -> impl Iterator<Item = &'static Family> {
    objective::FAMILIES
        .iter()
        .chain(profile::FAMILIES)
        .chain(filter::FAMILIES)
        .chain(pool::FAMILIES)
        .chain(flow::FAMILIES)
        .chain(lora::FAMILIES)
        .copied()
}

/// The families that are there whatever the filter's `profile` is.
pub fn usual() -> impl Iterator<Item = &'static Family> {
    all().filter(|family| !profile::FAMILIES.contains(family))
}

/// The family of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Family> {
    all().find(|family| family.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn every_name_exists_once() {
        let mut names: Vec<_> = all().map(|family| family.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(before, names.len());
    }

    #[test]
    fn every_counter_ends_in_total_and_nothing_else_does() {
        for family in all() {
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
        }
    }

    #[test]
    fn bounds_grow_strictly_and_their_text_is_their_value() {
        for family in all() {
            let Kind::Histogram(bounds) = family.kind else { continue };
            let scale = if family.unit == Unit::Seconds { 1e9 } else { 1.0 };
            for pair in bounds.windows(2) {
                assert!(pair[0].at < pair[1].at, "{}", family.name);
            }
            for bound in bounds {
                let text: f64 = bound.le.parse().unwrap();
                assert!((text * scale - bound.at as f64).abs() < 0.5, "{} le={}", family.name, bound.le);
            }
        }
    }

    /// Istio's generated tag regexes are not anchored: `(k=\.=(.*?);\.;)` also matches inside a
    /// longer key that ends in `k`. The one pair where that is so is put in the safe order.
    #[test]
    fn no_label_key_is_the_end_of_another_but_model_name() {
        let mut keys: Vec<&str> =
            all().filter(|f| f.source == Source::Envoy).flat_map(|f| f.labels.iter().copied()).collect();
        keys.push("le");
        keys.sort_unstable();
        keys.dedup();
        for long in &keys {
            for short in &keys {
                if long != short && long.ends_with(short) {
                    assert_eq!((*short, *long), ("model_name", "target_model_name"));
                }
            }
        }
        for family in all() {
            let model = family.labels.iter().position(|key| *key == "model_name");
            let target = family.labels.iter().position(|key| *key == "target_model_name");
            if let (Some(model), Some(target)) = (model, target) {
                assert!(model < target, "{}", family.name);
            }
        }
    }
}
