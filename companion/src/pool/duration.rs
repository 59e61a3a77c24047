//! Durations as Go writes them, so that the endpoint picker's values can be taken over.
//!
//! In: `50ms`, `1.5s`, `1m30s`. Out: a duration. It never takes a number without a unit, but for `0`.

use std::time::Duration;

/// What a text should look like.
pub(super) const EXPECTED: &str = "a duration such as 50ms, 2s or 1m30s";

pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit)?;
        let seconds = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let ms = |text: &str| parse(text).map(|duration| duration.as_millis());
        assert_eq!(
            [ms("50ms"), ms("2s"), ms("1m30s"), ms("1.5s"), ms("0"), ms("2h")],
            [50, 2_000, 90_000, 1_500, 0, 7_200_000].map(Some)
        );
        for bad in ["", "50", "ms", "5 s", "-1s", "1d", "1..5s", "1s5"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }
}
