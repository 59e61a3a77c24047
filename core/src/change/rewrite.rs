//! Which models are another one upstream.
//!
//! In: the configuration's `model_rewrites`, a model's name, a random number. Out: the name to use. Names match exactly;
//! a target is not looked up again.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use crate::config::whole;

/// One model and what it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRewrite {
    model: String,
    /// Names with their weights; the sum is at least 1.
    targets: Vec<(String, u32)>,
}

/// What [`read`] reads.
pub const EXPECTED: &str = "a list of {\"model\": name, \"targets\": [{\"model\": name, \"weight\": whole number}]}, \
                            each model once, with a weight above 0 (at most 1000000) among its targets";

/// Largest weight.
pub const MAX_WEIGHT: u32 = 1_000_000;

impl ModelRewrite {
    /// The model and its targets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        core::iter::once(self.model()).chain(self.targets())
    }

    /// The model that clients ask for.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// What it may become.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().map(|(name, _)| name.as_str())
    }

    /// One of the targets, as often as its weight says if `draw` is evenly spread.
    #[must_use]
    pub fn choose(&self, draw: u64) -> &str {
        let total: u64 = self.targets.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = draw.checked_rem(total).unwrap_or(0);
        for (name, weight) in &self.targets {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return name,
            }
        }
        &self.model
    }
}

/// The rewrite of this model.
#[must_use]
pub fn of<'r>(rewrites: &'r [ModelRewrite], model: &str) -> Option<&'r ModelRewrite> {
    rewrites.iter().find(|rewrite| rewrite.model == model)
}

/// Reads the configuration's list.
#[must_use]
pub fn read(value: &Value) -> Option<Vec<ModelRewrite>> {
    let mut rewrites: Vec<ModelRewrite> = Vec::new();
    for entry in value.as_array()? {
        let model = name(entry, &["model", "targets"])?;
        let targets = entry.get("targets")?.as_array()?.iter().map(target).collect::<Option<Vec<_>>>()?;
        if of(&rewrites, &model).is_some() || targets.iter().all(|(_, weight)| *weight == 0) {
            return None;
        }
        rewrites.push(ModelRewrite { model, targets });
    }
    Some(rewrites)
}

fn target(value: &Value) -> Option<(String, u32)> {
    let weight = match value.get("weight") {
        None => 1,
        Some(weight) => whole(weight).filter(|weight| *weight <= MAX_WEIGHT)?,
    };
    Some((name(value, &["model", "weight"])?, weight))
}

/// The `model` of an object that has no other keys than these.
fn name(value: &Value, keys: &[&str]) -> Option<String> {
    let object = value.as_object()?;
    let model = object.get("model")?.as_str().filter(|model| !model.is_empty())?;
    object.keys().all(|key| keys.contains(&key.as_str())).then(|| model.to_string())
}

/// Spreads a number that is only unlike the others, as a time is, over all 64 bits (the finaliser of SplitMix64).
#[must_use]
pub const fn spread(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrites(text: &str) -> Option<Vec<ModelRewrite>> {
        read(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn targets_are_chosen_as_often_as_their_weights_say() {
        let text = r#"[{"model":"a","targets":[{"model":"x","weight":3},{"model":"no","weight":0},{"model":"y"}]}]"#;
        let rewrites = rewrites(text).unwrap();
        let chosen: Vec<&str> = (0..8).map(|draw| of(&rewrites, "a").unwrap().choose(draw)).collect();
        assert_eq!(chosen, ["x", "x", "x", "y", "x", "x", "x", "y"]);
        assert_eq!(of(&rewrites, "x"), None);
        let of_x = (0..40_000_u64)
            .filter(|count| rewrites[0].choose(spread(1_700_000_000_000_000_000 + count * 1_000_003)) == "x")
            .count();
        assert!((29_500..30_500).contains(&of_x), "{of_x} of 40000 for a weight of three quarters");
    }

    #[test]
    fn a_list_that_says_nothing_certain_is_refused() {
        for text in [
            r#"{}"#,
            r#"[{"model":"a"}]"#,
            r#"[{"model":"a","targets":[]}]"#,
            r#"[{"model":"a","targets":[{"model":"b","weight":0}]}]"#,
            r#"[{"model":"a","targets":[{"model":"b","weight":-1}]}]"#,
            r#"[{"model":"a","targets":[{"model":"b","wieght":1}]}]"#,
            r#"[{"model":"","targets":[{"model":"b"}]}]"#,
            r#"[{"model":"a","targets":[{"model":"b"}]},{"model":"a","targets":[{"model":"c"}]}]"#,
        ] {
            assert_eq!(rewrites(text), None, "{text}");
        }
    }
}
