//! The parameters of a profile's URL.
//!
//! In: the query. Out: numbers within bounds, or a sentence. Parameters of Go's that mean nothing here (`gc`) are taken.

use std::time::Duration;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Params {
    /// How long to look; for a heap: what happens in this time.
    pub(super) seconds: Option<Duration>,
    /// Samples a second of processor time.
    pub(super) hz: i32,
    /// 0: a file; 1, 2: text.
    pub(super) debug: u32,
    /// `format=svg`.
    pub(super) is_picture: bool,
}

impl Params {
    /// Reads `a=1&b=2`.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut params = Self { seconds: None, hz: DEFAULT_HZ, debug: 0, is_picture: false };
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "seconds" => params.seconds = Some(Duration::from_secs(number(key, value, 1, MAX_SECONDS)?)),
                "hz" => params.hz = i32::try_from(number(key, value, 1, MAX_HZ)?).unwrap_or(DEFAULT_HZ),
                "debug" => params.debug = u32::try_from(number(key, value, 0, 2)?).unwrap_or(0),
                "format" => match value {
                    "svg" => params.is_picture = true,
                    "proto" | "" => {}
                    _ => return Err(format!("format: expected svg or proto, found \"{value}\"")),
                },
                _ => {}
            }
        }
        Ok(params)
    }
}

fn number(key: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("{key}: expected a whole number from {min} to {max}, found \"{value}\"")),
    }
}

/// Go's.
const DEFAULT_HZ: i32 = 100;
/// The kernel's timer is not finer.
const MAX_HZ: u64 = 1000;
/// A forgotten request must not sample for hours.
const MAX_SECONDS: u64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_gos_and_unknown_parameters_are_taken() {
        let params = Params::parse("gc=1&x").unwrap();
        assert_eq!(params, Params { seconds: None, hz: 100, debug: 0, is_picture: false });
        let params = Params::parse("seconds=5&hz=250&debug=2&format=svg").unwrap();
        assert_eq!(params, Params { seconds: Some(Duration::from_secs(5)), hz: 250, debug: 2, is_picture: true });
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_in_words() {
        assert_eq!(
            Params::parse("seconds=601").unwrap_err(),
            "seconds: expected a whole number from 1 to 600, found \"601\""
        );
        for query in ["seconds=", "seconds=-1", "seconds=1.5", "hz=0", "hz=1001", "debug=x", "format=png"] {
            assert!(Params::parse(query).is_err(), "{query}");
        }
    }
}
