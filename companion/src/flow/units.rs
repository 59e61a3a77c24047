//! Durations and sizes as EPP's configuration writes them: `1m30s`, `200ms`; `1Gi`, `500M`, `4096`.
//!
//! In: text or a number, by serde. Out: nanoseconds or bytes. It never takes a duration without a unit but 0.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::config::duration;

/// A duration in Go's spelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nanos(pub u64);

/// A size in Kubernetes' spelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Nanos {
    /// That many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    fn parse(text: &str) -> Option<Self> {
        let nanos = u64::try_from(duration::parse(text)?.as_nanos()).ok()?;
        (nanos <= MAX_NANOS).then_some(Self(nanos))
    }
}

impl Bytes {
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let unit = match unit {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(unit).map(Self)
    }
}

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text(
            Self::parse,
            |number| (number == 0).then_some(Self(0)),
            "such as 200ms or 1m30s",
        ))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text(Self::parse, |number| Some(Self(number)), "in bytes, or such as 500M or 1Gi"))
    }
}

/// Takes a text or a whole number; the words are for the error.
struct Text<T>(fn(&str) -> Option<T>, fn(u64) -> Option<T>, &'static str);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value {}", self.2)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.1)(number).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self)),
        }
    }
}

/// A hundred years.
const MAX_NANOS: u64 = 3_200_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them_and_sizes_as_kubernetes_does() {
        for (text, nanos) in [("200ms", 200_000_000), ("1m30s", 90_000_000_000), ("1.5s", 1_500_000_000), ("0", 0)] {
            assert_eq!(Nanos::parse(text), Some(Nanos(nanos)), "{text}");
        }
        for (text, bytes) in [("4096", 4096), ("500M", 500_000_000), ("1Gi", 1_073_741_824), ("2k", 2_000)] {
            assert_eq!(Bytes::parse(text), Some(Bytes(bytes)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1 s", "1d", "1..5s", "9999999999h"] {
            assert_eq!(Nanos::parse(text), None, "{text}");
        }
        for text in ["", "Gi", "-1", "1.5Gi", "1GB", "99999999999Gi"] {
            assert_eq!(Bytes::parse(text), None, "{text}");
        }
    }
}
