//! JSON by serde_json's parser: every wanted value of a whole document, in order.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tally_core::json::{MAX_DEPTH, MAX_KEY, MAX_TEXT, Scanner, Schema, State, Value};

/// A finding that owns its text.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Object,
    Array,
    End,
    Text(Vec<u8>),
    Number(Option<u64>),
    /// serde_json's float: see [`agree`].
    Float(f64),
    Bool(bool),
    Null,
}

/// Wants every path; a node is the hash of the path.
pub struct Everything;

impl Schema for Everything {
    type Node = u64;
    fn root() -> u64 {
        1
    }
    fn key(node: u64, key: &[u8]) -> Option<u64> {
        Some(
            key.iter().fold(node.wrapping_mul(31) ^ 7, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3) >> 3
            }),
        )
    }
    fn element(node: u64) -> Option<u64> {
        Some(node.wrapping_mul(31) >> 3 ^ 5)
    }
}

/// Wants about two paths of three.
pub struct Most;

impl Schema for Most {
    type Node = u64;
    fn root() -> u64 {
        1
    }
    fn key(node: u64, key: &[u8]) -> Option<u64> {
        Everything::key(node, key).filter(|node| node % 3 != 0)
    }
    fn element(node: u64) -> Option<u64> {
        Everything::element(node).filter(|node| node % 3 != 0)
    }
}

/// What the scanner finds in the pieces of a document, and how it ends.
pub fn scan<'a, S: Schema>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<(S::Node, Seen)>, State) {
    let (mut scanner, mut seen) = (Scanner::<S>::new(), Vec::new());
    for mut piece in pieces {
        while let Some(found) = scanner.next(&mut piece) {
            seen.push((found.node, own(found.value)));
        }
        assert!(piece.is_empty(), "a reader that wants more has used up what it had");
    }
    if let Some(found) = scanner.finish() {
        seen.push((found.node, own(found.value)));
    }
    (seen, scanner.state())
}

fn own(value: Value<'_>) -> Seen {
    match value {
        Value::Object => Seen::Object,
        Value::Array => Seen::Array,
        Value::End => Seen::End,
        Value::Text(text) => Seen::Text(text.to_vec()),
        Value::Number(number) => Seen::Number(number.integer),
        Value::Bool(truth) => Seen::Bool(truth),
        Value::Null => Seen::Null,
    }
}

/// The same by serde_json; `None`: it does not take this as JSON (or gives up: nesting of 128, floats beyond range).
pub fn read<S: Schema>(document: &[u8]) -> Option<Vec<(S::Node, Seen)>> {
    let mut seen = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    At::<S> { node: S::root(), depth: 0, seen: &mut seen, schema: PhantomData }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(seen)
}

/// Both saw the same; where serde_json made a float of a number, the exact integer has to be near it.
pub fn agree<N: PartialEq>(ours: &[(N, Seen)], theirs: &[(N, Seen)]) -> bool {
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|((node, ours), (at, theirs))| {
            node == at
                && match (ours, theirs) {
                    // Without its `float_roundtrip` feature serde_json may miss by some of the last bits.
                    (Seen::Number(Some(integer)), Seen::Float(float)) => {
                        (*integer as f64 - *float).abs() <= *float * 1e-14
                    }
                    (Seen::Number(None), Seen::Float(float)) => {
                        float.is_sign_negative() || float.fract() != 0.0 || *float > 1e12 || *float == 0.0
                    }
                    (ours, theirs) => ours == theirs,
                }
        })
}

struct At<'s, S: Schema> {
    node: S::Node,
    /// Wanted containers around it.
    depth: usize,
    seen: &'s mut Vec<(S::Node, Seen)>,
    schema: PhantomData<S>,
}

impl<S: Schema> At<'_, S> {
    fn inner(&mut self, node: S::Node) -> At<'_, S> {
        At { node, depth: self.depth + 1, seen: self.seen, schema: PhantomData }
    }

    fn push<E>(self, seen: Seen) -> Result<(), E> {
        self.seen.push((self.node, seen));
        Ok(())
    }
}

impl<'de, S: Schema> DeserializeSeed<'de> for At<'_, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Schema> Visitor<'de> for At<'_, S> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }
    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.push(Seen::Bool(truth))
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        self.push(Seen::Null)
    }
    fn visit_u64<E>(self, integer: u64) -> Result<(), E> {
        self.push(Seen::Number(Some(integer)))
    }
    fn visit_i64<E>(self, _negative: i64) -> Result<(), E> {
        self.push(Seen::Number(None))
    }
    fn visit_f64<E>(self, float: f64) -> Result<(), E> {
        self.push(Seen::Float(float))
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let end = (0..=text.len().min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end)).unwrap();
        self.push(Seen::Text(text.as_bytes()[..end].to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        if self.depth == MAX_DEPTH {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        self.seen.push((self.node, Seen::Array));
        loop {
            let element = match S::element(self.node) {
                Some(node) => elements.next_element_seed(self.inner(node))?,
                None => elements.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if element.is_none() {
                return self.push(Seen::End);
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        if self.depth == MAX_DEPTH {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        self.seen.push((self.node, Seen::Object));
        while let Some(key) = members.next_key::<String>()? {
            match S::key(self.node, key.as_bytes()).filter(|_| key.len() <= MAX_KEY) {
                Some(node) => members.next_value_seed(self.inner(node))?,
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        self.push(Seen::End)
    }
}
