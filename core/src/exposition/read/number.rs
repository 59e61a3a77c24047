//! Numbers as a page writes them.
//!
//! In: one word. Out: its value. It never takes what Go's reader refuses: hexadecimal, underscores, a number too great.

/// A value, or nothing if the word is none.
pub(super) fn read(word: &str) -> Option<f64> {
    let value: f64 = word.parse().ok()?;
    if value.is_finite() || word.eq_ignore_ascii_case("nan") {
        return Some(value);
    }
    // Rust reads 1e999 as infinite and takes a sign before NaN: only the written infinity is one.
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    (unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity")).then_some(value)
}
