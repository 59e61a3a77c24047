//! A metrics page as samples. A reader of its own, so that the tests do not trust the one that they test.

use std::collections::BTreeMap;

/// One sample line.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Metric name with its suffix.
    pub name: String,
    /// Labels by key.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// All samples of a page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In the order of the page.
    pub samples: Vec<Sample>,
    /// `# TYPE` lines by family.
    pub types: BTreeMap<String, String>,
}

impl Page {
    /// Reads the Prometheus text format; a line that is none is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                if let Some((name, kind)) = kind.split_once(' ') {
                    page.types.insert(name.to_owned(), kind.to_owned());
                }
            } else if !line.starts_with('#')
                && let Some(sample) = sample(line)
            {
                page.samples.push(sample);
            }
        }
        page
    }

    /// Samples of this name that carry all of these labels.
    pub fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).map(String::as_str) == Some(*value))
        })
    }

    /// Sum over the matching samples; `None` if there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut values = self.matching(name, labels).map(|sample| sample.value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// Like `sum`, with 0 for a series that does not exist yet.
    #[must_use]
    pub fn total(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels).unwrap_or(0.0)
    }

    /// The distinct values of a label in one metric.
    #[must_use]
    pub fn label_values(&self, name: &str, label: &str) -> Vec<String> {
        let mut values: Vec<String> =
            self.matching(name, &[]).filter_map(|sample| sample.labels.get(label).cloned()).collect();
        values.sort();
        values.dedup();
        values
    }

    /// Cumulative buckets of a histogram, summed over the matching series, as (bound, count), by bound.
    #[must_use]
    pub fn buckets(&self, family: &str, labels: &[(&str, &str)]) -> Vec<(f64, f64)> {
        let name = format!("{family}_bucket");
        let mut found: Vec<(f64, f64)> = Vec::new();
        for sample in self.matching(&name, labels) {
            let Some(bound) = sample.labels.get("le").and_then(|le| le.replace("+Inf", "inf").parse().ok()) else {
                continue;
            };
            match found.iter_mut().find(|(at, _)| *at == bound) {
                Some((_, count)) => *count += sample.value,
                None => found.push((bound, sample.value)),
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found
    }

    /// Quantile by Prometheus' rule: linear inside the bucket, the last finite bound beyond it.
    #[must_use]
    pub fn quantile(&self, family: &str, labels: &[(&str, &str)], q: f64) -> Option<f64> {
        let buckets = self.buckets(family, labels);
        let rank = q * buckets.last().filter(|(_, count)| *count > 0.0)?.1;
        let (mut below, mut before) = (0.0, 0.0);
        for (bound, count) in buckets {
            if count >= rank {
                let share = if count > before { (rank - before) / (count - before) } else { 1.0 };
                return Some(if bound.is_finite() { below + (bound - below) * share } else { below });
            }
            (below, before) = (bound, count);
        }
        None
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name, mut labels, value) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = labels(rest)?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, BTreeMap::new(), rest)
        }
    };
    labels.retain(|_, value| !value.is_empty());
    let value = value.split_whitespace().next()?.replace("+Inf", "inf").parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the closing brace, and the rest of the line.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut found = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        found.insert(key.trim_start_matches(',').to_owned(), value);
        rest = after.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_value_may_hold_braces_commas_and_escaped_quotes() {
        let page = Page::parse("a_total{x=\"{,}\\\"\\\\\\n\",y=\"2\"} 3\nb 4.5e1\n# TYPE b gauge\n");
        assert_eq!(page.total("a_total", &[("x", "{,}\"\\\n"), ("y", "2")]), 3.0);
        assert_eq!(page.total("b", &[]), 45.0);
        assert_eq!(page.types["b"], "gauge");
    }

    #[test]
    fn a_quantile_is_linear_inside_its_bucket() {
        let page = Page::parse("h_bucket{le=\"1\"} 2\nh_bucket{le=\"3\"} 6\nh_bucket{le=\"+Inf\"} 6\n");
        // Rank 3 of 6 lies a quarter into the bucket from 1 to 3.
        assert_eq!(page.quantile("h", &[], 0.5), Some(1.5));
    }
}
