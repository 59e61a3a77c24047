//! What a key of the configuration is: its name, what may stand there, what it does.
//!
//! In: a key's JSON value. Out: the value in its place, or one sentence. docs/CONFIG.md and envoy/tally.schema.json are
//! made of the same [`Kind`]s that read: a bound or a default stands in one place.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Map, Value};

use super::{Config, ConfigError, OnFailure, Profile};
use crate::api::Api;
use crate::change::rewrite::{self, ModelRewrite};
use crate::labels::TenantKey;

/// A key of the configuration.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What may stand there, and where it is kept.
    pub kind: Kind,
    /// What it does.
    pub meaning: &'static str,
}

/// Where a value is kept. One type for all keys, those of admission too: the code that reads them is there once.
pub type Place<V> = fn(&mut Config) -> &mut V;

/// What may stand under a key. What is read goes to the place.
pub enum Kind {
    /// `true` or `false`.
    Flag(Place<bool>),
    /// A whole number from the first to the second, both included.
    Whole(u32, u32, Place<u32>),
    /// A header name; kept in lower case. Empty: none.
    Header(Place<String>),
    /// At most so many header names.
    Headers(usize, Place<Vec<String>>),
    /// Names, none of them empty.
    Names(Place<Vec<String>>),
    /// A text of visible ASCII characters, at most so many.
    Text(usize, Place<String>),
    /// 32 hexadecimal digits, which no message shows.
    Secret(Place<Option<TenantKey>>),
    /// Path endings and the APIs they speak.
    Paths(Place<Vec<(String, Api)>>),
    /// Models that are another one upstream.
    Rewrites(Place<Vec<ModelRewrite>>),
    /// Names and their priorities, at most so far from 0.
    Priorities(u32, Place<Vec<(String, i32)>>),
    /// `open` or `closed`.
    OnFailure(Place<OnFailure>),
    /// One of two names; the flag says that it is the second.
    OneOf([&'static str; 2], Place<bool>),
    /// `llm_d_epp`, `gen_ai`, or a list of them.
    Profile(Place<Profile>),
    /// The keys of admission; its object switches it on, and is read when the other keys are.
    Admission(&'static [Key]),
}

impl Kind {
    /// What may stand there, in words.
    #[must_use]
    pub fn expected(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Flag(_) => "true or false",
            Self::Whole(least, most, _) => return format!("a whole number from {least} to {most}").into(),
            Self::Header(_) => "a header name",
            Self::Headers(most, _) => return format!("a list of at most {most} header names").into(),
            Self::Names(_) => "a list of names, none of them empty",
            Self::Text(most, _) => return format!("a text of at most {most} visible ASCII characters").into(),
            Self::Secret(_) => "32 hexadecimal digits",
            Self::Paths(_) => {
                "an object from path endings that begin with / to one of chat, completions, embeddings, messages, \
                 generate, responses, other"
            }
            Self::Rewrites(_) => rewrite::EXPECTED,
            Self::Priorities(most, _) => {
                return format!("an object from names to whole numbers from -{most} to {most}").into();
            }
            Self::OnFailure(_) => "\"open\" or \"closed\"",
            Self::OneOf([first, second], _) => return format!("\"{first}\" or \"{second}\"").into(),
            Self::Profile(_) => "\"llm_d_epp\", \"gen_ai\", or a list of them",
            Self::Admission(_) => "an object",
        })
    }

    /// Reads a value into its place.
    fn read(&self, value: &Value, to: &mut Config) -> Option<()> {
        match self {
            Self::Flag(place) => *place(to) = value.as_bool()?,
            Self::Whole(least, most, place) => *place(to) = whole(value).filter(|n| (least..=most).contains(&n))?,
            Self::Header(place) => *place(to) = header(value)?,
            Self::Headers(most, place) => {
                let names = value.as_array().filter(|names| names.len() <= *most)?;
                *place(to) = names.iter().map(header).collect::<Option<_>>()?;
            }
            Self::Names(place) => *place(to) = value.as_array()?.iter().map(name).collect::<Option<_>>()?,
            Self::Text(most, place) => *place(to) = text(value, *most)?,
            Self::Secret(place) => *place(to) = Some(TenantKey::parse(value.as_str()?)?),
            Self::Paths(place) => *place(to) = paths(value)?,
            Self::Rewrites(place) => *place(to) = rewrite::read(value)?,
            Self::Priorities(most, place) => *place(to) = priorities(value, *most)?,
            Self::OnFailure(place) => *place(to) = OnFailure::by_name(value.as_str()?)?,
            Self::OneOf(names, place) => *place(to) = names.iter().position(|name| value == name)? == 1,
            Self::Profile(place) => *place(to) = profile(value)?,
            Self::Admission(_) => return value.is_object().then_some(()),
        }
        Some(())
    }
}

/// Reads every value of an object by its key; `prefix` stands before the names in errors.
pub(super) fn read_keys(
    object: &Map<String, Value>,
    keys: &[Key],
    prefix: &str,
    to: &mut Config,
) -> Result<(), ConfigError> {
    for (name, value) in object {
        let error = |problem| Err(ConfigError { key: format!("{prefix}{}", short(name)), problem });
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
            return error(format!("there is no such key; expected one of {}", known.join(", ")));
        };
        if key.kind.read(value, to).is_none() {
            let found = if matches!(key.kind, Kind::Secret(_)) { "something else" } else { &value.to_string() };
            return error(format!("expected {}, found {}", key.kind.expected(), short(found)));
        }
    }
    Ok(())
}

/// A whole number, however JSON writes it: what comes through YAML or protobuf may be 100.0.
pub(crate) fn whole(value: &Value) -> Option<u32> {
    let of_double = |number: f64| Some(number as u32).filter(|whole| f64::from(*whole) == number);
    value.as_u64().map_or_else(|| value.as_f64().and_then(of_double), |number| u32::try_from(number).ok())
}

fn name(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_string)
}

fn text(value: &Value, most: usize) -> Option<String> {
    let is_good = |text: &&str| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    value.as_str().filter(is_good).map(str::to_string)
}

fn header(value: &Value) -> Option<String> {
    let name = value.as_str()?.to_ascii_lowercase();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_token)).then_some(name)
}

fn paths(value: &Value) -> Option<Vec<(String, Api)>> {
    let pair = |(ending, api): (&String, &Value)| {
        let api = Api::by_name(api.as_str()?)?;
        ending.starts_with('/').then(|| (ending.clone(), api))
    };
    value.as_object()?.iter().map(pair).collect()
}

fn profile(value: &Value) -> Option<Profile> {
    let mut profile = Profile::default();
    let names = value.as_array().map_or_else(|| core::slice::from_ref(value), Vec::as_slice);
    for name in names {
        match name.as_str()? {
            "llm_d_epp" => profile.llm_d_epp = true,
            "gen_ai" => profile.gen_ai = true,
            _ => return None,
        }
    }
    Some(profile)
}

fn priorities(value: &Value, most: u32) -> Option<Vec<(String, i32)>> {
    let pair = |(name, priority): (&String, &Value)| {
        let of_double = |number: f64| Some(number as i64).filter(|whole| *whole as f64 == number);
        let priority = priority.as_i64().or_else(|| priority.as_f64().and_then(of_double))?;
        let priority = i32::try_from(priority).ok().filter(|priority| priority.unsigned_abs() <= most)?;
        Some((name.clone(), priority))
    };
    value.as_object()?.iter().map(pair).collect()
}

/// A text in a sentence: a part of one line, whatever it holds.
pub(super) fn short(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String =
        text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}
