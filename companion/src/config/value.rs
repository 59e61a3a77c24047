//! Small readers for the values of the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use super::duration;
use crate::yaml::{ConfigError, Tree};

/// Refuses keys that mean nothing: a misspelt one would silently do nothing.
pub(crate) fn only(tree: &Tree<'_>, known: &[&str]) -> Result<(), ConfigError> {
    match tree.map()?.into_iter().find(|(key, _)| !known.contains(key)) {
        Some((_, value)) => Err(value.problem(format!("unknown key; known here are {}", known.join(", ")))),
        None => Ok(()),
    }
}

/// A duration within bounds.
pub(crate) fn duration(tree: &Tree<'_>, min: Duration, max: Duration) -> Result<Duration, ConfigError> {
    match tree.text().ok().and_then(duration::parse) {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        Some(_) => Err(tree.wrong(&format!("a duration from {min:?} to {max:?}"))),
        None => Err(tree.wrong(duration::EXPECTED)),
    }
}

/// A path.
pub(crate) fn path(tree: &Tree<'_>) -> Result<PathBuf, ConfigError> {
    tree.text().map(PathBuf::from)
}

/// One of some words.
pub(crate) fn word<T: clap::ValueEnum>(tree: &Tree<'_>) -> Result<T, ConfigError> {
    tree.text().ok().and_then(|text| T::from_str(text, false).ok()).ok_or_else(|| {
        let words: Vec<String> = T::value_variants()
            .iter()
            .filter_map(|word| Some(word.to_possible_value()?.get_name().to_owned()))
            .collect();
        tree.wrong(&format!("one of {}", words.join(", ")))
    })
}
