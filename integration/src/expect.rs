//! What a page must say, and must not say, within a deadline; the difference in words if it does not.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::page::Page;
use crate::tools::poll;

/// Series shown beside a statement that does not hold.
const MOST_SHOWN: usize = 8;

/// One statement about a metrics page.
#[derive(Debug, Clone)]
pub enum Expect {
    /// The series with these labels add up to exactly this.
    Exact(String, Vec<(String, String)>, f64),
    /// The series with these labels add up to at least this.
    AtLeast(String, Vec<(String, String)>, f64),
    /// There is no such series, or it is 0.
    Missing(String, Vec<(String, String)>),
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The series must add up to exactly `value`.
#[must_use]
pub fn exact(name: &str, labels: &[(&str, &str)], value: f64) -> Expect {
    Expect::Exact(name.to_owned(), owned(labels), value)
}

/// The series must add up to `value` or more.
#[must_use]
pub fn at_least(name: &str, labels: &[(&str, &str)], value: f64) -> Expect {
    Expect::AtLeast(name.to_owned(), owned(labels), value)
}

/// Nothing may have been counted there.
#[must_use]
pub fn missing(name: &str, labels: &[(&str, &str)]) -> Expect {
    Expect::Missing(name.to_owned(), owned(labels))
}

impl Expect {
    fn difference(&self, page: &Page) -> Option<String> {
        let (name, labels) = match self {
            Self::Exact(name, labels, _) | Self::AtLeast(name, labels, _) | Self::Missing(name, labels) => {
                (name, labels)
            }
        };
        let borrowed: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let found = page.sum(name, &borrowed);
        let wanted = match self {
            Self::Exact(_, _, value) => (found != Some(*value)).then(|| format!("exactly {value}")),
            Self::AtLeast(_, _, value) => found.is_none_or(|found| found < *value).then(|| format!("{value} or more")),
            Self::Missing(..) => found.is_some_and(|found| found != 0.0).then(|| "nothing".to_owned()),
        }?;
        let found = found.map_or_else(|| "no such series".to_owned(), |found| found.to_string());
        Some(format!("{name}{borrowed:?}: expected {wanted}, found {found}"))
    }
}

/// Reads the page until all statements hold.
///
/// # Errors
/// At the deadline: every statement that does not hold, with what the page says of that metric.
pub fn within(time: Duration, mut read: impl FnMut() -> Result<Page>, statements: &[Expect]) -> Result<Page> {
    let mut last = Page::default();
    let mut differences = Vec::new();
    let met = poll(time, || {
        last = read().ok()?;
        differences = statements.iter().filter_map(|statement| statement.difference(&last)).collect();
        differences.is_empty().then_some(())
    });
    if met.is_some() {
        return Ok(last);
    }
    let mut report = String::new();
    for difference in &differences {
        let _ = writeln!(report, "  {difference}");
        let name = difference.split('[').next().unwrap_or_default();
        for sample in last.matching(name, &[]).take(MOST_SHOWN) {
            let _ = writeln!(report, "      page has {:?} {}", sample.labels, sample.value);
        }
    }
    bail!("after {time:?} the page does not say what it should:\n{report}")
}
