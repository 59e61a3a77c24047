//! One file of `testdata/conformance`: see docs/CONFORMANCE.md. Also used by the conformance tool of `integration/`.
#![allow(dead_code, unreachable_pub, reason = "each user takes a part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// An exchange, and what has to be measured of it.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// Why it is there.
    pub why: String,
    pub path: String,
    pub request: Vec<Vec<u8>>,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub answer: Vec<Vec<u8>>,
    pub ended: Ended,
    pub expect: Expect,
}

/// How the answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Properly,
    ClientLeft,
    ServerLeft,
}

/// See docs/CONFORMANCE.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    pub outcome: String,
    pub model: Option<String>,
    pub answered_model: Option<String>,
    pub usage: String,
    /// By name; one that is not there must not be counted.
    pub tokens: BTreeMap<String, u64>,
    /// Index of the piece of the answer with which the first output came.
    pub first_token: Option<usize>,
    /// Of streams only.
    pub output_events: Option<u64>,
}

/// The names of `tokens`.
pub const TOKENS: [&str; 7] = ["input", "output", "cached", "cache_write", "reasoning", "audio_input", "audio_output"];

impl Case {
    /// All files of a folder, by name.
    ///
    /// # Errors
    /// A sentence that names the file that is not a case, and why.
    pub fn all(folder: &Path) -> Result<Vec<Self>, String> {
        let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut cases = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some()) {
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            cases.push(Self::parse(&name, &text).map_err(|problem| format!("{}: {problem}", path.display()))?);
        }
        cases.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(cases)
    }

    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let top = Object::of(&value, "the file", &["why", "request", "response", "expect"])?;
        let request = Object::of(top.value("request")?, "request", &["path", "body"])?;
        let response = Object::of(top.value("response")?, "response", &["status", "headers", "body", "ended"])?;
        let headers = response.value("headers")?.as_object().ok_or("headers: expected an object")?;
        Ok(Self {
            name: name.to_owned(),
            why: top.text("why")?,
            path: request.text("path")?,
            request: pieces(request.value("body")?)?,
            status: response.number("status")?.and_then(|status| u16::try_from(status).ok()).ok_or("no status")?,
            headers: headers
                .iter()
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect::<Option<_>>()
                .ok_or("headers: expected texts")?,
            answer: pieces(response.value("body")?)?,
            ended: match response.0.get("ended").map(Value::as_str) {
                None => Ended::Properly,
                Some(Some("client_left")) => Ended::ClientLeft,
                Some(Some("server_left")) => Ended::ServerLeft,
                Some(_) => return Err("ended: expected client_left or server_left".to_owned()),
            },
            expect: Expect::parse(top.value("expect")?)?,
        })
    }

    /// Is the answer an event stream by its type?
    pub fn is_stream(&self) -> bool {
        let kind = self.headers.get("content-type").map(|kind| kind.to_ascii_lowercase());
        kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
    }
}

impl Expect {
    fn parse(value: &Value) -> Result<Self, String> {
        let keys = ["outcome", "model", "answered_model", "usage", "tokens", "first_token", "output_events"];
        let expect = Object::of(value, "expect", &keys)?;
        let name = |key| match expect.value(key)? {
            Value::Null => Ok(None),
            Value::String(name) => Ok(Some(name.clone())),
            _ => Err(format!("{key}: expected a text or null")),
        };
        let mut tokens = BTreeMap::new();
        let written = Object::of(expect.value("tokens")?, "tokens", &TOKENS)?;
        for name in TOKENS {
            if let Some(count) = written.number(name)? {
                tokens.insert(name.to_owned(), count);
            }
        }
        Ok(Self {
            outcome: expect.text("outcome")?,
            model: name("model")?,
            answered_model: name("answered_model")?,
            usage: expect.text("usage")?,
            tokens,
            first_token: expect.number("first_token")?.and_then(|index| usize::try_from(index).ok()),
            output_events: expect.number("output_events")?,
        })
    }
}

/// An object without unknown keys: a misspelt one would be a check that never fails.
struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    fn of(value: &'a Value, what: &str, keys: &[&str]) -> Result<Self, String> {
        let map = value.as_object().ok_or_else(|| format!("{what}: expected an object"))?;
        match map.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(unknown) => Err(format!("{what}: {unknown} is none of {}", keys.join(", "))),
            None => Ok(Self(map)),
        }
    }

    fn value(&self, key: &str) -> Result<&'a Value, String> {
        self.0.get(key).ok_or_else(|| format!("{key} is missing"))
    }

    fn text(&self, key: &str) -> Result<String, String> {
        self.value(key)?.as_str().map(str::to_owned).ok_or_else(|| format!("{key}: expected a text"))
    }

    fn number(&self, key: &str) -> Result<Option<u64>, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| format!("{key}: expected a whole number")),
        }
    }
}

/// Texts, `{"base64": …}` for bytes that are no text, `{"repeat": …, "times": …}` for long ones.
fn pieces(value: &Value) -> Result<Vec<Vec<u8>>, String> {
    value.as_array().ok_or("body: expected a list")?.iter().map(piece).collect()
}

fn piece(value: &Value) -> Result<Vec<u8>, String> {
    if let Some(text) = value.as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let piece = Object::of(value, "a piece", &["base64", "repeat", "times"])?;
    match piece.number("times")? {
        Some(times) => Ok(piece.text("repeat")?.repeat(usize::try_from(times).unwrap_or(0)).into_bytes()),
        None => STANDARD.decode(piece.text("base64")?).map_err(|error| error.to_string()),
    }
}
