//! The labels of one sample.
//!
//! In: the text between the braces, checked once. Out: keys and values, one by one.
//! It never allocates but for a value with an escape.

use alloc::borrow::Cow;

use memchr::memchr2;

use super::{BLANKS, unescaped};

/// Labels in the order of the page; the value with its escapes undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels<'a> {
    /// Without the braces; made by [`Labels::read`] only, so every part of it is well formed.
    rest: &'a str,
}

impl<'a> Labels<'a> {
    /// Reads behind an opening brace: the labels and what follows the closing one. Nothing if they are malformed.
    pub(super) fn read(text: &'a str) -> Option<(Self, &'a str)> {
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches(BLANKS);
            if let Some(after) = rest.strip_prefix('}') {
                let inside = text.get(..text.len() - after.len() - 1)?;
                return Some((Self { rest: inside }, after));
            }
            let (_, _, after) = one(rest)?;
            rest = after.trim_start_matches(BLANKS);
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.starts_with('}') => {}
                None => return None,
            }
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn find(mut self, key: &str) -> Option<Cow<'a, str>> {
        self.find_map(|(name, value)| (name == key).then_some(value))
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a str, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, raw, after) = one(self.rest.trim_start_matches(BLANKS))?;
        let after = after.trim_start_matches(BLANKS);
        self.rest = after.strip_prefix(',').unwrap_or(after);
        Some((key, unescaped(raw, true)))
    }
}

/// `key="value"`: the key, the raw value, and what follows its quote.
fn one(text: &str) -> Option<(&str, &str, &str)> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim_end_matches(BLANKS);
    if !is_key(key) {
        return None;
    }
    let value = value.trim_start_matches(BLANKS).strip_prefix('"')?;
    let end = end_of_value(value)?;
    Some((key, value.get(..end)?, value.get(end + 1..)?))
}

/// Where the closing quote is; only the three escapes of the format may stand before it.
fn end_of_value(value: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr2(b'"', b'\\', value.as_bytes().get(from..)?)?;
        if *value.as_bytes().get(at)? == b'"' {
            return Some(at);
        }
        match value.as_bytes().get(at + 1)? {
            b'"' | b'\\' | b'n' => from = at + 2,
            _ => return None,
        }
    }
}

fn is_key(key: &str) -> bool {
    let first = key.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
