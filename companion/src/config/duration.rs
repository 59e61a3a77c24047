//! Durations as people and Go programs write them: `50ms`, `1m30s`, `2h`, `0`.
//!
//! In: text. Out: a duration, or `None` if the text is none. It never takes a bare number but 0: the unit would be a guess.

use std::time::Duration;

/// Reads one duration. Parts may have decimals; a sign is not taken.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at_checked(number)?;
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (name, next) = after.split_at_checked(unit)?;
        let seconds = value.parse::<f64>().ok()? * seconds_of(name)?;
        sum = sum.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(sum)
}

/// For flags.
pub(crate) fn flag(text: &str) -> Result<Duration, String> {
    parse(text).ok_or_else(|| format!("expected {EXPECTED}"))
}

fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

/// The words for an error.
pub(crate) const EXPECTED: &str = "a duration such as 50ms, 2s or 1m30s";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        for (text, millis) in [("50ms", 50), ("2s", 2000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0", 0), ("0s", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("250us"), Some(Duration::from_micros(250)));
        assert_eq!(parse("250µs"), Some(Duration::from_micros(250)));
    }

    #[test]
    fn a_number_without_a_unit_a_sign_and_nonsense_are_no_durations() {
        for text in ["", "5", "s", "-1s", "1 s", "1d", "1s2", "1..5s", "99999999999999999999h", "é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
