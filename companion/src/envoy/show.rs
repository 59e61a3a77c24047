//! The Envoys' part of the page.

use std::time::Instant;

use tally_core::catalog::pool::{ENVOY_AGE, ENVOY_CONFLICTS_TOTAL, ENVOY_UP};
use tally_core::exposition::Writer;
use tally_core::exposition::read::TypeKind;

use super::families::{Key, Value};
use super::{Envoys, State, lock, merge};
use crate::collect::Collect;

impl Collect for Envoys {
    fn collect(&self, page: &mut Writer) {
        if self.envoys.is_empty() {
            return;
        }
        let now = Instant::now();
        let states: Vec<State> = self.envoys.iter().map(|envoy| envoy.state().clone()).collect();
        let age = |state: &State| state.good.as_ref().map(|(_, at)| now.saturating_duration_since(*at));
        let merged = merge::merge(self.envoys.iter().zip(&states).filter_map(|(envoy, state)| {
            let (families, _) = state.good.as_ref()?;
            Some((families.as_ref(), age(state) > Some(envoy.stale_after)))
        }));
        for known in merged.known.values() {
            let mut family = page.family(known.family);
            for (key, value) in &known.series {
                match value {
                    Value::Number(value) => family.sample(&borrowed(key), *value),
                    Value::Histogram(histogram) => {
                        let buckets = histogram.buckets.iter().map(|bucket| (&*bucket.le, bucket.count));
                        family.buckets(&borrowed(key), buckets, histogram.sum, histogram.count);
                    }
                }
            }
        }
        let mut family = page.family(&ENVOY_UP);
        for (envoy, state) in self.envoys.iter().zip(&states) {
            family.sample(&[("envoy", &envoy.name)], f64::from(u8::from(state.is_up == Some(true))));
        }
        let mut family = page.family(&ENVOY_AGE);
        for (envoy, state) in self.envoys.iter().zip(&states) {
            if let Some(age) = age(state) {
                family.sample(&[("envoy", &envoy.name)], age.as_secs_f64());
            }
        }
        let mut family = page.family(&ENVOY_CONFLICTS_TOTAL);
        let mut conflicts = lock(&self.conflicts);
        for name in merged.conflicts {
            *conflicts.entry(name).or_default() += 1;
        }
        for (name, count) in conflicts.iter() {
            family.sample(&[("family", name)], *count as f64);
        }
        drop(conflicts);
        self.pass_on(&states, page);
    }
}

impl Envoys {
    /// Families that the catalog does not know: as they are, with the Envoy's name, never added up.
    fn pass_on(&self, states: &[State], page: &mut Writer) {
        let all = || self.envoys.iter().zip(states).filter_map(|(envoy, state)| Some((envoy, &state.good.as_ref()?.0)));
        let mut names: Vec<&String> = all().flat_map(|(_, families)| families.others.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let found = || all().filter_map(|(envoy, families)| Some((envoy, families.others.get(name)?)));
            let mut kinds = found().map(|(_, other)| other.kind);
            let first = kinds.next().unwrap_or(TypeKind::Unknown);
            let kind = if kinds.all(|kind| kind == first) { first } else { TypeKind::Unknown };
            let mut family = page.foreign(name, kind);
            for (envoy, other) in found() {
                for (name, key, value) in &other.samples {
                    let mut labels = borrowed(key);
                    labels.push(("envoy", &envoy.name));
                    family.sample(name, &labels, *value);
                }
            }
        }
    }
}

fn borrowed(key: &Key) -> Vec<(&str, &str)> {
    key.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
