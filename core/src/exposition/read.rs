//! Reads pages: Prometheus text 0.0.4 and OpenMetrics 1.0.
//!
//! In: a page's bytes. Out: its lines, one by one, borrowed from the page: [`lines`] gives them all, [`select::Reader`]
//! only those of wanted families. Both are strict about what they read, and neither allocates for a line without escapes.
//! It never groups lines into families and never checks a type against a sample: the caller knows what it expects.

mod labels;
mod number;
mod sample;
pub mod select;
pub mod spec;

use alloc::borrow::Cow;

use memchr::memchr;

pub use labels::Labels;
pub use sample::Sample;
pub use select::{Found, Matches, Reader, Selector};
pub use spec::Spec;

/// One line that says something. Comments, `# UNIT` and empty lines say nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// Not a line of either format; the lines around it are unhurt.
    Broken,
    /// `# EOF`: an OpenMetrics page is whole. What follows is not read.
    Eof,
    /// `# HELP name text`, the text with its escapes undone.
    Help {
        /// Name of the family.
        name: &'a str,
        /// What it is.
        text: Cow<'a, str>,
    },
    /// A sample.
    Sample {
        /// Name with its suffix, such as `_bucket`.
        name: &'a str,
        /// Labels in the order of the page.
        labels: Labels<'a>,
        /// The value; may be infinite or not a number.
        value: f64,
        /// As written: milliseconds in text 0.0.4, seconds in OpenMetrics.
        timestamp: Option<f64>,
    },
    /// `# TYPE name kind`.
    Type {
        /// Name of the family.
        name: &'a str,
        /// Its kind.
        kind: TypeKind,
    },
}

/// What a `# TYPE` line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeKind {
    /// `counter`
    Counter,
    /// `gauge`
    Gauge,
    /// `histogram`
    Histogram,
    /// One that only OpenMetrics has: `gaugehistogram`, `info`, `stateset`.
    Other,
    /// `summary`
    Summary,
    /// `untyped` or `unknown`
    Unknown,
}

/// The lines of a whole page. A last line without its line feed is [`Line::Broken`]: half a number is no number.
#[must_use]
pub const fn lines(page: &[u8]) -> Lines<'_> {
    Lines { rest: page }
}

/// See [`lines`].
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let Some((line, rest)) = memchr(b'\n', self.rest).and_then(|end| split(self.rest, end)) else {
                let last = core::mem::take(&mut self.rest);
                match read(last) {
                    None => continue,
                    Some(Line::Eof) => return Some(Line::Eof),
                    Some(_) => return Some(Line::Broken),
                }
            };
            self.rest = rest;
            let Some(line) = read(line) else { continue };
            if line == Line::Eof {
                self.rest = &[];
            }
            return Some(line);
        }
    }
}

/// The line before the line feed at `end`, and what follows it.
fn split(page: &[u8], end: usize) -> Option<(&[u8], &[u8])> {
    Some((page.get(..end)?, page.get(end + 1..)?))
}

/// One line without its line feed; nothing for one that says nothing.
fn read(line: &[u8]) -> Option<Line<'_>> {
    let Ok(line) = core::str::from_utf8(line) else { return Some(Line::Broken) };
    let line = line.strip_suffix('\r').unwrap_or(line).trim_start_matches(BLANKS);
    if line.is_empty() {
        return None;
    }
    match line.strip_prefix('#') {
        Some(comment) => head(comment),
        None => Some(sample::read(line).map_or(Line::Broken, |sample| Line::Sample {
            name: sample.name,
            labels: sample.labels,
            value: sample.value,
            timestamp: sample.timestamp,
        })),
    }
}

/// What follows the `#` of a line.
fn head(comment: &str) -> Option<Line<'_>> {
    let (keyword, rest) = word(comment.trim_start_matches(BLANKS));
    if !comment.starts_with(BLANKS) {
        return None;
    }
    match keyword {
        "EOF" if rest.is_empty() => Some(Line::Eof),
        "HELP" => {
            let (name, text) = word(rest);
            Some(if sample::is_name(name) { Line::Help { name, text: unescaped(text, false) } } else { Line::Broken })
        }
        "TYPE" => {
            let (name, rest) = word(rest);
            let kind = match rest.trim_end_matches(BLANKS) {
                "counter" => TypeKind::Counter,
                "gauge" => TypeKind::Gauge,
                "histogram" => TypeKind::Histogram,
                "gaugehistogram" | "info" | "stateset" => TypeKind::Other,
                "summary" => TypeKind::Summary,
                "unknown" | "untyped" => TypeKind::Unknown,
                _ => return Some(Line::Broken),
            };
            Some(if sample::is_name(name) { Line::Type { name, kind } } else { Line::Broken })
        }
        _ => None,
    }
}

/// The text up to the first blank, and the text after the blanks.
fn word(text: &str) -> (&str, &str) {
    match text.split_once(BLANKS) {
        Some((word, rest)) => (word, rest.trim_start_matches(BLANKS)),
        None => (text, ""),
    }
}

/// Undoes `\\` and `\n`, and `\"` in a label value. An unknown escape in a help text stands as it is, as in Prometheus.
fn unescaped(text: &str, quotes: bool) -> Cow<'_, str> {
    if memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = alloc::string::String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some('\\') => plain.push('\\'),
            Some('"') if quotes => plain.push('"'),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    Cow::Owned(plain)
}

const BLANKS: [char; 2] = [' ', '\t'];

// proptest and the oracle are for native runs only.
#[cfg(test)]
#[cfg(not(target_arch = "wasm32"))]
mod tests;
