//! The grammar of a wanted series: `name` or `name{label=value,label2=value2}`, as the endpoint picker writes it.
//!
//! In: text. Out: a name and label filters. It never takes a text that the endpoint picker would refuse.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use nom::bytes::complete::take_while1;
use nom::character::complete::{char, space0};
use nom::combinator::{all_consuming, opt, verify};
use nom::multi::separated_list1;
use nom::sequence::{delimited, separated_pair};
use nom::{IResult, Parser};

use super::sample::is_name;

/// A family, and the labels its series must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Name as on the page.
    pub name: String,
    /// Labels with the value that each must have; others may be there too.
    pub labels: Vec<(String, String)>,
}

/// The text is no spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSpec;

impl core::fmt::Display for BadSpec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("expected a metric as name or name{label=value,label2=value2}")
    }
}

impl core::error::Error for BadSpec {}

impl Spec {
    /// A family without filters.
    #[must_use]
    pub fn family(name: &str) -> Self {
        Self { name: name.to_owned(), labels: Vec::new() }
    }
}

impl core::str::FromStr for Spec {
    type Err = BadSpec;

    fn from_str(text: &str) -> Result<Self, BadSpec> {
        all_consuming(spec).parse(text.trim()).map(|(_, spec)| spec).map_err(|_| BadSpec)
    }
}

fn spec(text: &str) -> IResult<&str, Spec> {
    let labels = delimited(
        (space0, char('{'), space0),
        separated_list1((space0, char(','), space0), label),
        (space0, char('}')),
    );
    let name = verify(take_while1(|c: char| c != '{' && !c.is_whitespace()), is_name);
    (name, opt(labels))
        .map(|(name, labels): (&str, _)| Spec { name: name.to_owned(), labels: labels.unwrap_or_default() })
        .parse(text)
}

fn label(text: &str) -> IResult<&str, (String, String)> {
    let key = take_while1(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let bare = take_while1(|c: char| !matches!(c, ',' | '{' | '}' | '"' | '=') && !c.is_whitespace());
    let quoted = delimited(char('"'), take_while1(|c: char| !matches!(c, '"' | '\\')), char('"'));
    separated_pair(key, (space0, char('='), space0), quoted.or(bare))
        .map(|(key, value): (&str, &str)| (key.to_owned(), value.to_owned()))
        .parse(text)
}
