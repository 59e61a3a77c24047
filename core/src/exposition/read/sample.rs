//! One sample line.
//!
//! In: a line without its line feed. Out: name, labels, value, timestamp. It never gives half of them: a line is read
//! whole or not at all.

use super::{BLANKS, Labels, number};

/// A sample, borrowed from its line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Name with its suffix.
    pub name: &'a str,
    /// Labels in the order of the page.
    pub labels: Labels<'a>,
    /// The value; may be infinite or not a number.
    pub value: f64,
    /// As written: milliseconds in text 0.0.4, seconds in OpenMetrics.
    pub timestamp: Option<f64>,
}

/// Reads a line that begins with a name.
pub(super) fn read(line: &str) -> Option<Sample<'_>> {
    let end = line.bytes().position(|byte| matches!(byte, b'{' | b' ' | b'\t'))?;
    let (name, rest) = line.split_at_checked(end)?;
    if !is_name(name) {
        return None;
    }
    let rest = rest.trim_start_matches(BLANKS);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => Labels::read(inside)?,
        None => (Labels::default(), rest),
    };
    let (value, rest) = next_word(rest)?;
    let value = number::read(value)?;
    let (timestamp, rest) = match next_word(rest) {
        None => (None, ""),
        // An exemplar: its own labels and value are no part of the sample.
        Some(("#", exemplar)) => (None, exemplar),
        Some((word, rest)) => (Some(number::read(word).filter(|at| at.is_finite())?), rest),
    };
    let is_whole = match next_word(rest) {
        None => true,
        Some((word, _)) => word.starts_with(['#', '{']),
    };
    is_whole.then_some(Sample { name, labels, value, timestamp })
}

/// Is it a name in the classic alphabet?
pub(super) fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':'));
    first && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
}

fn next_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_matches(BLANKS);
    if text.is_empty() {
        return None;
    }
    Some(text.split_once(BLANKS).unwrap_or((text, "")))
}
