//! The table of a soak: where each measure began, where it ended, and the slope between.

use std::fmt::Write;

use super::sample::{MEASURES, Measure, Sample, slope};
use super::{Settings, picture};

/// The first quarter of the samples fills tables, pools and caches.
const WARM_UP: usize = 4;
const MILLION: f64 = 1e6;

/// What a soak has found.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was asked for.
    pub settings: Settings,
    pub(super) samples: Vec<Sample>,
    /// What the page says other than the clients, in words.
    pub wrong: Vec<String>,
}

/// One measure after the warm-up.
struct Course {
    measure: Measure,
    first: f64,
    last: f64,
    least: f64,
    most: f64,
    /// Along the fitted line, from the first to the last sample.
    growth: f64,
    per_million: f64,
}

impl Report {
    fn warm(&self) -> &[Sample] {
        self.samples.get(self.samples.len() / WARM_UP..).unwrap_or_default()
    }

    fn courses(&self) -> Vec<Course> {
        let warm = self.warm();
        let course = |(at, measure): (usize, &Measure)| {
            let values: Vec<f64> = warm.iter().filter_map(|sample| sample.values.get(at).copied()).collect();
            let points: Vec<(f64, f64)> =
                warm.iter().map(|sample| sample.seconds).zip(values.iter().copied()).collect();
            let (from, to) = (points.first().map_or(0.0, |at| at.0), points.last().map_or(0.0, |at| at.0));
            let growth = slope(&points) * (to - from);
            // tallyd scrapes, Envoy passes requests on.
            let work = |sample: &Sample| if measure.name.contains("tallyd") { sample.scrapes } else { sample.requests };
            let done = warm.last().map_or(0.0, work) - warm.first().map_or(0.0, work);
            Course {
                measure: *measure,
                first: values.first().copied().unwrap_or_default(),
                last: values.last().copied().unwrap_or_default(),
                least: values.iter().copied().fold(f64::INFINITY, f64::min),
                most: values.iter().copied().fold(0.0, f64::max),
                growth,
                per_million: if done > 0.0 { growth / done * MILLION } else { 0.0 },
            }
        };
        MEASURES.iter().enumerate().map(course).collect()
    }

    /// Did nothing grow, and was everything counted once?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty() && self.courses().iter().all(Course::is_flat)
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let last = |of: fn(&Sample) -> f64| self.samples.last().map_or(0.0, of);
        let (requests, scrapes, seconds) = (last(|at| at.requests), last(|at| at.scrapes), last(|at| at.seconds));
        let counted =
            if self.wrong.is_empty() { "each counted once, tokens to the last one" } else { "NOT counted exactly" };
        let mut out = format!(
            "{requests:.0} requests through the filter ({counted}), {scrapes:.0} scrapes of endpoints by tallyd, in {seconds:.0} s; \
             {} samples, of which the first quarter is warm-up.\n\n\
             | measure | first | last | least | most | growth along the line | per million | |\n|---|---|---|---|---|---|---|---|\n",
            self.samples.len()
        );
        for course in self.courses() {
            let Course { measure, first, last, least, most, growth, per_million } = course;
            let (name, unit) = (measure.name, measure.unit);
            let of = if name.contains("tallyd") { "scrapes" } else { "requests" };
            let digits = if unit.is_empty() { 0 } else { 2 };
            let verdict = if course.is_flat() { "flat" } else { "GROWS" };
            let space = if unit.is_empty() { "" } else { " " };
            let _ = writeln!(
                out,
                "| {name} | {first:.digits$}{space}{unit} | {last:.digits$} | {least:.digits$} | {most:.digits$} | {growth:+.2} | {per_million:+.2} ({of}) | {verdict} |"
            );
        }
        for wrong in &self.wrong {
            let _ = writeln!(out, "\n{wrong}");
        }
        out
    }

    /// The course of all measures.
    #[must_use]
    pub fn picture(&self) -> String {
        picture::draw(&self.samples, self.samples.len() / WARM_UP)
    }
}

impl Course {
    fn is_flat(&self) -> bool {
        // Sums of the same number over and over are not exact.
        const ROUNDING: f64 = 1e-6;
        self.growth <= self.measure.may_grow + ROUNDING
    }
}
