//! Counters that go on growing over an Envoy's restart.
//!
//! In: each read of one Envoy. Out: the same with what it had counted before its last restarts added. Without it, the sum
//! over several Envoys would fall when one of them restarts, and Prometheus would take that for a restart of all.

use tally_core::catalog::Kind;

use super::families::{Families, Histogram, Known, Value};

/// What one Envoy has counted.
#[derive(Debug, Default)]
pub(super) struct Carry {
    before: Families,
    last: Families,
}

impl Carry {
    /// Takes in a read.
    pub(super) fn add(&mut self, mut read: Families) -> Families {
        if has_restarted(&self.last, &read) {
            let last = std::mem::take(&mut self.last);
            grow(&mut self.before, &last);
        }
        self.last = read.clone();
        grow(&mut read, &self.before);
        read
    }
}

/// Has any counter become smaller, or gone? Envoy never forgets one that a filter made while it runs.
fn has_restarted(last: &Families, read: &Families) -> bool {
    last.known.iter().filter(|(_, known)| known.family.kind != Kind::Gauge).any(|(place, known)| {
        if read.conflicts.contains(known.family.name) {
            return false;
        }
        let Some(now) = read.known.get(place) else { return true };
        known.series.iter().any(|(key, value)| match (value, now.series.get(key)) {
            (_, None) => true,
            (Value::Number(before), Some(Value::Number(now))) => now < before,
            (Value::Histogram(before), Some(Value::Histogram(now))) => now.count < before.count,
            _ => false,
        })
    })
}

/// Adds the counters of one read to another; gauges of the other stay as they are.
fn grow(to: &mut Families, from: &Families) {
    for (place, known) in from.known.iter().filter(|(_, known)| known.family.kind != Kind::Gauge) {
        if to.conflicts.contains(known.family.name) {
            continue;
        }
        let to = to.known.entry(*place).or_insert_with(|| Known { family: known.family, series: Default::default() });
        for (key, value) in &known.series {
            match (to.series.get_mut(key), value) {
                (None, value) => {
                    to.series.insert(key.clone(), value.clone());
                }
                (Some(Value::Number(sum)), Value::Number(value)) => *sum += value,
                (Some(Value::Histogram(sum)), Value::Histogram(value)) => {
                    // Other bounds than before the restart: what was before cannot be added.
                    let _ = sum.add(value);
                }
                _ => {}
            }
        }
    }
}

impl Histogram {
    /// Adds another one over the same bounds; says false, and adds nothing, if the bounds differ.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        let is_same = self.buckets.len() == other.buckets.len()
            && self.buckets.iter().zip(&other.buckets).all(|(a, b)| a.le == b.le);
        if is_same {
            for (sum, value) in self.buckets.iter_mut().zip(&other.buckets) {
                sum.count += value.count;
            }
            self.sum += other.sum;
            self.count += other.count;
        }
        is_same
    }
}
