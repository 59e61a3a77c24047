//! What one Envoy's page says, typed by the catalog.
//!
//! In: the page. Envoy has no classic histograms of exact counts, so the filter writes each as counters named `_bucket`,
//! `_count` and `_sum`; here they become one again. Out: families of the catalog, others that are asked for by name, and
//! the names of those whose type is not the catalog's: these are left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use regex::Regex;
use tally_core::catalog::{self, Family, Kind, Source};
use tally_core::exposition::read::{Labels, Line, TypeKind, lines};

/// Labels of a series, without `le`: the catalog's in its order, then any others.
pub(super) type Key = Vec<(String, String)>;

/// One read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Families {
    /// By place in the catalog.
    pub(super) known: BTreeMap<usize, Known>,
    /// By name.
    pub(super) others: BTreeMap<String, Other>,
    /// Families whose type is not the catalog's.
    pub(super) conflicts: BTreeSet<&'static str>,
}

/// A family of the catalog.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) family: &'static Family,
    pub(super) series: BTreeMap<Key, Value>,
}

/// A family that is passed on as it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Other {
    pub(super) kind: TypeKind,
    /// Name with suffix, labels, value; in the order of the page.
    pub(super) samples: Vec<(String, Key, f64)>,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Histogram(Histogram),
    Number(f64),
}

/// Cumulative counts of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// Text and value of `le` with its count, ascending; without `+Inf`.
    pub(super) buckets: Vec<Bucket>,
    pub(super) sum: f64,
    pub(super) count: f64,
}

/// Values up to a bound.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bucket {
    pub(super) le: Box<str>,
    pub(super) count: f64,
}

/// Which line of a family a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Bucket,
    Count,
    Sum,
    Whole,
}

/// Names on Envoy's page, with the place of their family in the catalog.
static NAMES: LazyLock<HashMap<String, (usize, &'static Family, Part)>> = LazyLock::new(|| {
    let mut names = HashMap::new();
    for (place, family) in catalog::all().enumerate().filter(|(_, family)| family.source == Source::Envoy) {
        names.insert(family.name.to_owned(), (place, family, Part::Whole));
        if matches!(family.kind, Kind::Histogram(_)) {
            for (suffix, part) in [("_bucket", Part::Bucket), ("_count", Part::Count), ("_sum", Part::Sum)] {
                names.insert(format!("{}{suffix}", family.name), (place, family, part));
            }
        }
    }
    names
});

impl Families {
    /// Reads a page; `also` names families besides the catalog's. A line that is none is left out.
    pub(super) fn parse(page: &[u8], also: Option<&Regex>) -> Self {
        let mut read = Self::default();
        let mut head: Option<(&str, TypeKind)> = None;
        for line in lines(page) {
            match line {
                Line::Type { name, kind } => {
                    head = Some((name, kind));
                    read.check_type(name, kind);
                }
                Line::Sample { name, labels, value, .. } => match NAMES.get(name) {
                    Some(&(place, family, part)) => read.add(place, family, part, labels, value),
                    None => read.add_other(name, head, labels, value, also),
                },
                _ => {}
            }
        }
        let conflicts = std::mem::take(&mut read.conflicts);
        read.known.retain(|_, known| !conflicts.contains(known.family.name));
        read.conflicts = conflicts;
        read.known.values_mut().for_each(Known::settle);
        read
    }

    fn check_type(&mut self, name: &str, kind: TypeKind) {
        let Some((_, family, part)) = NAMES.get(name) else { return };
        let is_right = match (part, family.kind) {
            (Part::Whole, Kind::Counter) | (Part::Bucket | Part::Count | Part::Sum, _) => kind == TypeKind::Counter,
            (Part::Whole, Kind::Gauge) => kind == TypeKind::Gauge,
            // The filter's switch `histograms: envoy`.
            (Part::Whole, Kind::Histogram(_)) => kind == TypeKind::Histogram,
        };
        if !is_right {
            self.conflicts.insert(family.name);
        }
    }

    fn add(&mut self, place: usize, family: &'static Family, part: Part, labels: Labels<'_>, value: f64) {
        let (key, le) = key(family, labels);
        let known = self.known.entry(place).or_insert_with(|| Known { family, series: BTreeMap::new() });
        if part == Part::Whole {
            known.series.insert(key, Value::Number(value));
            return;
        }
        let series = known.series.entry(key).or_insert_with(|| Value::Histogram(Histogram::default()));
        let Value::Histogram(histogram) = series else { return };
        match part {
            Part::Bucket => match le.as_deref() {
                // The count says the same, and Envoy always has it.
                Some("+Inf") | None => {}
                Some(le) => histogram.buckets.push(Bucket { le: le.into(), count: value }),
            },
            Part::Count => histogram.count = value,
            Part::Sum => histogram.sum = value,
            Part::Whole => {}
        }
    }

    fn add_other(
        &mut self,
        name: &str,
        head: Option<(&str, TypeKind)>,
        labels: Labels<'_>,
        value: f64,
        also: Option<&Regex>,
    ) {
        let Some(also) = also else { return };
        let (family, kind) = head.filter(|(family, _)| name.starts_with(family)).unwrap_or((name, TypeKind::Unknown));
        if !also.is_match(family) || catalog::find(family).is_some() {
            return;
        }
        let other = self.others.entry(family.to_owned()).or_insert_with(|| Other { kind, samples: Vec::new() });
        let key = labels.map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
        other.samples.push((name.to_owned(), key, value));
    }
}

impl Known {
    /// Puts each histogram's buckets in order, the catalog's ones complete.
    fn settle(&mut self) {
        let Kind::Histogram(bounds) = self.family.kind else { return };
        for value in self.series.values_mut() {
            let Value::Histogram(histogram) = value else { continue };
            let is_catalogs = histogram.buckets.iter().all(|bucket| bounds.iter().any(|bound| *bound.le == *bucket.le));
            if !is_catalogs {
                let at = |bucket: &Bucket| bucket.le.parse().unwrap_or(f64::INFINITY);
                histogram.buckets.sort_by(|a, b| at(a).total_cmp(&at(b)));
                continue;
            }
            // Counters that were never incremented may be absent. A count below a bound that is absent is no smaller
            // than the bound before it says.
            let mut so_far = 0.0_f64;
            histogram.buckets = bounds
                .iter()
                .map(|bound| {
                    let found = histogram.buckets.iter().find(|bucket| *bucket.le == *bound.le);
                    so_far = found.map_or(so_far, |bucket| bucket.count);
                    Bucket { le: bound.le.into(), count: so_far }
                })
                .collect();
        }
    }
}

fn key(family: &Family, labels: Labels<'_>) -> (Key, Option<String>) {
    let mut le = None;
    let mut key: Key = Vec::with_capacity(family.labels.len());
    for (name, value) in labels {
        if name == "le" {
            le = Some(value.into_owned());
        } else {
            key.push((name.to_owned(), value.into_owned()));
        }
    }
    let place = |name: &str| family.labels.iter().position(|label| *label == name).unwrap_or(usize::MAX);
    key.sort_by(|a, b| place(&a.0).cmp(&place(&b.0)).then_with(|| a.0.cmp(&b.0)));
    (key, le)
}
