//! Writes a page: Prometheus text 0.0.4 or OpenMetrics 1.0.
//!
//! In: families of the catalog, each once, with their samples. Out: the page as text. It never sorts, merges or drops:
//! that one family is written once, and one label set once in it, is the caller's.

use alloc::string::String;
use core::fmt::Write;

use super::read::TypeKind;
use crate::catalog::{Family, Kind, Unit};
use crate::histogram::Histogram;

/// Which of the two text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0: counters are named without `_total` in their head lines, the page ends with `# EOF`.
    OpenMetrics,
}

impl Format {
    /// Value of the `content-type` header.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page being written.
#[derive(Debug)]
pub struct Writer {
    page: String,
    format: Format,
}

impl Writer {
    /// An empty page.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { page: String::new(), format }
    }

    /// Begins a family: writes its HELP and TYPE lines.
    pub fn family<'a>(&'a mut self, family: &'a Family) -> FamilyWriter<'a> {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let name = match (self.format, family.kind) {
            (Format::OpenMetrics, Kind::Counter) => family.name.trim_end_matches("_total"),
            _ => family.name,
        };
        // Writing to a String cannot fail; the same holds below.
        let _ = writeln!(self.page, "# HELP {name} {}{}\n# TYPE {name} {kind}", Family::STABILITY, family.help);
        FamilyWriter { page: &mut self.page, family }
    }

    /// Begins a family that the catalog does not know, passed on from another page: without HELP.
    ///
    /// OpenMetrics wants `_total` at the end of a counter's name; one without it is `unknown` there.
    pub fn foreign<'a>(&'a mut self, name: &str, kind: TypeKind) -> ForeignWriter<'a> {
        let is_open = self.format == Format::OpenMetrics;
        let (name, kind) = match (kind, name.strip_suffix("_total")) {
            (TypeKind::Counter, Some(bare)) if is_open => (bare, "counter"),
            (TypeKind::Counter, _) if !is_open => (name, "counter"),
            (TypeKind::Gauge, _) => (name, "gauge"),
            (TypeKind::Histogram, _) => (name, "histogram"),
            (TypeKind::Summary, _) => (name, "summary"),
            _ if is_open => (name, "unknown"),
            _ => (name, "untyped"),
        };
        let _ = writeln!(self.page, "# TYPE {name} {kind}");
        ForeignWriter { page: &mut self.page }
    }

    /// The page.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.page.push_str("# EOF\n");
        }
        self.page
    }
}

/// One family of a page being written.
#[derive(Debug)]
pub struct FamilyWriter<'a> {
    page: &'a mut String,
    family: &'a Family,
}

impl FamilyWriter<'_> {
    /// One sample of a counter or a gauge, in the family's unit. Label values may hold any text.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, value);
    }

    /// One series of a histogram. Its values are in the base integer of the family's bounds; seconds come out as seconds.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let Kind::Histogram(bounds) = self.family.kind else { return };
        for (bound, count) in bounds.iter().zip(histogram.cumulative()) {
            self.line("_bucket", labels, Some(bound.le), count as f64);
        }
        let count = histogram.count() as f64;
        self.line("_bucket", labels, Some("+Inf"), count);
        let scale = if self.family.unit == Unit::Seconds { 1e9 } else { 1.0 };
        self.line("_sum", labels, None, histogram.sum() as f64 / scale);
        self.line("_count", labels, None, count);
    }

    /// One series of a histogram that was counted elsewhere: text of `le` and cumulative count, ascending and without
    /// `+Inf`; the sum in the family's unit.
    pub fn buckets<'b>(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (&'b str, f64)>,
        sum: f64,
        count: f64,
    ) {
        for (le, value) in buckets {
            self.line("_bucket", labels, Some(le), value);
        }
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], le: Option<&str>, value: f64) {
        self.page.push_str(self.family.name);
        self.page.push_str(suffix);
        rest_of_line(self.page, labels.iter().copied().chain(le.map(|le| ("le", le))), value);
    }
}

/// A family of another page being passed on.
#[derive(Debug)]
pub struct ForeignWriter<'a> {
    page: &'a mut String,
}

impl ForeignWriter<'_> {
    /// One sample; the name has its suffix.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.page.push_str(name);
        rest_of_line(self.page, labels.iter().copied(), value);
    }
}

fn rest_of_line<'a>(page: &mut String, labels: impl Iterator<Item = (&'a str, &'a str)>, value: f64) {
    let mut separator = '{';
    for (key, text) in labels {
        page.push(separator);
        separator = ',';
        page.push_str(key);
        page.push_str("=\"");
        escape(page, text);
        page.push('"');
    }
    if separator == ',' {
        page.push('}');
    }
    let _ = match value {
        f64::INFINITY => writeln!(page, " +Inf"),
        f64::NEG_INFINITY => writeln!(page, " -Inf"),
        value => writeln!(page, " {value}"),
    };
}

fn escape(page: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => page.push_str(r"\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str(r"\n"),
            other => page.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{flow, lora};

    #[test]
    fn a_hostile_label_value_stays_inside_its_label() {
        let mut writer = Writer::new(Format::Text);
        writer.family(&lora::ADAPTER_STATUS).sample(&[("adapter_name", "a\"} 1\nx{b=\"\\")], 1.0);
        assert!(
            writer.finish().ends_with("\nlora_syncer_adapter_status{adapter_name=\"a\\\"} 1\\nx{b=\\\"\\\\\"} 1\n")
        );
    }

    #[test]
    fn seconds_are_written_as_seconds_and_buckets_are_cumulative() {
        let Kind::Histogram(bounds) = flow::DISPATCH_CYCLE_DURATION.kind else { panic!("a histogram") };
        let mut histogram = Histogram::new(bounds);
        histogram.observe(150_000);
        histogram.observe(2_000_000_000);
        let mut writer = Writer::new(Format::OpenMetrics);
        writer.family(&flow::DISPATCH_CYCLE_DURATION).histogram(&[], &histogram);
        let page = writer.finish();
        let name = flow::DISPATCH_CYCLE_DURATION.name;
        for line in [
            "_bucket{le=\"0.0001\"} 0",
            "_bucket{le=\"0.0002\"} 1",
            "_bucket{le=\"0.1\"} 1",
            "_bucket{le=\"+Inf\"} 2",
            "_sum 2.00015",
            "_count 2",
        ] {
            assert!(page.contains(&alloc::format!("{name}{line}\n")), "{line} in\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_foreign_counter_is_one_only_where_its_name_lets_it() {
        let page = |format, name: &str| {
            let mut writer = Writer::new(format);
            writer.foreign(name, TypeKind::Counter).sample(name, &[("a", "b")], 1.0);
            writer.finish()
        };
        assert_eq!(page(Format::Text, "envoy_rq"), "# TYPE envoy_rq counter\nenvoy_rq{a=\"b\"} 1\n");
        assert_eq!(page(Format::OpenMetrics, "envoy_rq"), "# TYPE envoy_rq unknown\nenvoy_rq{a=\"b\"} 1\n# EOF\n");
        assert_eq!(page(Format::OpenMetrics, "x_total"), "# TYPE x counter\nx_total{a=\"b\"} 1\n# EOF\n");
    }

    #[test]
    fn openmetrics_names_a_counter_without_its_suffix_in_the_head_only() {
        let mut writer = Writer::new(Format::OpenMetrics);
        writer.family(&lora::RECONCILES_TOTAL).sample(&[("result", "ok")], 3.0);
        let page = writer.finish();
        assert!(
            page.contains("# TYPE lora_syncer_reconciles counter\nlora_syncer_reconciles_total{result=\"ok\"} 3\n")
        );
    }
}
