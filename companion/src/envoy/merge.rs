//! Several Envoys as one.
//!
//! In: what each of them says. Out: each label set once: counters, histograms and gauges added up, informations kept, and
//! families that do not fit together left out by name. Sums are exact: counts are integers below 2^53.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use tally_core::catalog::Kind;

use super::families::{Families, Known, Value};

/// What is on the page.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Merged {
    /// By place in the catalog.
    pub(super) known: BTreeMap<usize, Known>,
    /// Families with other bounds in one Envoy than in another.
    pub(super) conflicts: BTreeSet<&'static str>,
}

/// Adds them up; of one whose `is_stale` is set, without its gauges.
pub(super) fn merge<'a>(all: impl IntoIterator<Item = (&'a Families, bool)>) -> Merged {
    let mut merged = Merged::default();
    for (families, is_stale) in all {
        for (place, known) in &families.known {
            if is_stale && known.family.kind == Kind::Gauge {
                continue;
            }
            match merged.known.entry(*place) {
                Entry::Vacant(place) => {
                    place.insert(known.clone());
                }
                Entry::Occupied(mut sum) => {
                    if !add(sum.get_mut(), known) {
                        merged.conflicts.insert(known.family.name);
                    }
                }
            }
        }
    }
    let conflicts = &merged.conflicts;
    merged.known.retain(|_, known| !conflicts.contains(known.family.name));
    merged
}

fn add(sum: &mut Known, known: &Known) -> bool {
    let is_info = sum.family.name.ends_with("_info");
    let mut fits = true;
    for (key, value) in &known.series {
        match (sum.series.get_mut(key), value) {
            (None, value) => {
                sum.series.insert(key.clone(), value.clone());
            }
            (Some(Value::Number(sum)), Value::Number(value)) if is_info => *sum = sum.max(*value),
            (Some(Value::Number(sum)), Value::Number(value)) => *sum += value,
            (Some(Value::Histogram(sum)), Value::Histogram(value)) => fits &= sum.add(value),
            _ => fits = false,
        }
    }
    // One series over other bounds is enough: a quantile over all would be wrong.
    fits && has_one_set_of_bounds(sum)
}

fn has_one_set_of_bounds(known: &Known) -> bool {
    let mut bounds = known.series.values().filter_map(|value| match value {
        Value::Histogram(histogram) => Some(histogram.buckets.iter().map(|bucket| &bucket.le)),
        Value::Number(_) => None,
    });
    let Some(first) = bounds.next() else { return true };
    bounds.all(|other| other.eq(first.clone()))
}
