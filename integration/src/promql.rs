//! What an expression names: metrics and labels, found by their place in the text.
//!
//! In: an expression that Prometheus accepts. Out: names. It knows no grammar beyond strings, braces and `by`-like lists.

use std::collections::BTreeSet;

use tally_core::catalog::{self, Family, Kind};

/// Words before a list of labels.
const LISTS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Names in an expression.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Identifiers that look like metric names of this product: with an underscore, and no function.
    pub metrics: BTreeSet<String>,
    /// Labels in selectors and in lists.
    pub labels: BTreeSet<String>,
}

/// Finds them. Grafana's `$variables` are passed over.
#[must_use]
pub fn names(expression: &str) -> Names {
    let mut found = Names::default();
    let (mut rest, mut inside, mut list, mut last) = (expression, false, false, String::new());
    while let Some(first) = rest.chars().next() {
        if first == '"' || first == '\'' {
            rest = after_string(rest);
            continue;
        }
        if first.is_alphabetic() || matches!(first, '_' | '$' | ':') {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:$".contains(c))).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let called = after.trim_start().starts_with('(');
            if inside || list {
                found.labels.insert(word.to_owned());
            } else if word.contains('_') && !called && !word.starts_with('$') && !LISTS.contains(&word) {
                found.metrics.insert(word.to_owned());
            }
            word.clone_into(&mut last);
            rest = after;
            continue;
        }
        match first {
            '{' => inside = true,
            '}' => inside = false,
            '(' => list = LISTS.contains(&last.as_str()),
            ')' => list = false,
            _ => {}
        }
        if !first.is_whitespace() {
            last.clear();
        }
        // A duration like 5m, or any other sign: digits take their letters with them.
        let signs = if first.is_ascii_digit() {
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        rest = rest.get(signs..).unwrap_or_default();
    }
    found.labels.remove("__name__");
    found
}

/// What follows the string that the text begins with.
fn after_string(text: &str) -> &str {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    while let Some((at, sign)) = chars.next() {
        if sign == '\\' {
            chars.next();
        } else if Some(sign) == quote {
            return text.get(at + 1..).unwrap_or_default();
        }
    }
    ""
}

/// The family that a scraped name belongs to.
#[must_use]
pub fn family_of(metric: &str) -> Option<&'static Family> {
    catalog::find(metric).or_else(|| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| metric.strip_suffix(suffix))?;
        catalog::find(base).filter(|family| matches!(family.kind, Kind::Histogram(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_labels_are_found_by_their_place() {
        let found = names(
            r#"histogram_quantile(0.9, sum by (le, model_name) (rate(a_bucket{job=~"$job", x="c_d{"}[$__rate_interval]))) / on (name) group_left () (b_total offset 5m > 0)"#,
        );
        let metrics: Vec<&str> = found.metrics.iter().map(String::as_str).collect();
        let labels: Vec<&str> = found.labels.iter().map(String::as_str).collect();
        assert_eq!(metrics, ["a_bucket", "b_total"]);
        assert_eq!(labels, ["job", "le", "model_name", "name", "x"]);
    }
}
