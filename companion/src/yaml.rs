//! YAML as a tree that remembers lines, so that an error can say where and which key.
//!
//! In: the text of a file. Out: a [`Tree`], or where the text stops being YAML.
//! It never says what a key means: `config.rs` does, through the typed readers below.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// One value.
#[derive(Debug, PartialEq)]
enum Node {
    Bool(bool),
    Float(f64),
    Integer(i64),
    List(Vec<Spanned<Self>>),
    Map(Vec<(String, Spanned<Self>)>),
    Null,
    Text(String),
}

/// What is wrong with a file, in the words its author needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// 1-based; 0 where the reader could not tell.
    pub(crate) line: u64,
    /// 1-based; 0 where the reader could not tell.
    pub(crate) column: u64,
    /// Path from the top of the file, as `a.b[2].c`; empty for the file itself.
    pub(crate) key: String,
    /// The rest of the sentence.
    pub(crate) problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// A value with its place and its path.
#[derive(Clone, Debug)]
pub(crate) struct Tree<'a> {
    node: &'a Node,
    at: Location,
    path: String,
}

/// Owns what a [`Tree`] looks into.
pub(crate) struct Document(Spanned<Node>);

impl Document {
    /// Reads the text of one file.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        serde_saphyr::from_str(text).map(Self).map_err(|error| {
            let place = error.location();
            let message = error.without_snippet().to_string();
            ConfigError {
                line: place.map_or(0, |at| at.line()),
                column: place.map_or(0, |at| at.column()),
                key: String::new(),
                problem: format!("not valid YAML: {}", message.lines().next().unwrap_or_default()),
            }
        })
    }

    /// The whole file.
    pub(crate) fn root(&self) -> Tree<'_> {
        Tree { node: &self.0.value, at: self.0.referenced, path: String::new() }
    }
}

impl<'a> Tree<'a> {
    /// 1-based line of the value.
    pub(crate) fn line(&self) -> u64 {
        self.at.line()
    }

    /// Path from the top of the file.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// An error at this value.
    pub(crate) fn wrong(&self, expected: &str) -> ConfigError {
        self.problem(format!("expected {expected}, found {}", self.node.described()))
    }

    /// An error at this value in free words.
    pub(crate) fn problem(&self, problem: String) -> ConfigError {
        ConfigError { line: self.at.line(), column: self.at.column(), key: self.path.clone(), problem }
    }

    /// Is anything written here?
    pub(crate) fn is_null(&self) -> bool {
        *self.node == Node::Null
    }

    /// The keys of a map with their values.
    pub(crate) fn map(&self) -> Result<Vec<(&'a str, Self)>, ConfigError> {
        let Node::Map(entries) = self.node else { return Err(self.wrong("a map of keys")) };
        Ok(entries.iter().map(|(key, value)| (key.as_str(), self.child(key, value))).collect())
    }

    /// The value of a key, if it is there and not null.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        let Node::Map(entries) = self.node else { return None };
        let (key, value) = entries.iter().find(|(name, _)| name == key)?;
        Some(self.child(key, value)).filter(|child| !child.is_null())
    }

    /// The value of a key that has to be there; the error stands at the map that lacks it.
    pub(crate) fn required(&self, key: &str, expected: &str) -> Result<Self, ConfigError> {
        self.get(key).ok_or_else(|| {
            let mut error = self.problem(format!("expected {expected}, found nothing"));
            error.key = join(&self.path, key);
            error
        })
    }

    /// The items of a list.
    pub(crate) fn list(&self) -> Result<Vec<Self>, ConfigError> {
        let Node::List(items) = self.node else { return Err(self.wrong("a list")) };
        let item = |(index, item): (usize, &'a Spanned<Node>)| Tree {
            node: &item.value,
            at: item.referenced,
            path: format!("{}[{index}]", self.path),
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// A text that is not empty.
    pub(crate) fn text(&self) -> Result<&'a str, ConfigError> {
        match self.node {
            Node::Text(text) if !text.trim().is_empty() => Ok(text),
            Node::Bool(_) | Node::Float(_) | Node::Integer(_) => Err(self.wrong("a string (put it in quotes)")),
            _ => Err(self.wrong("a non-empty string")),
        }
    }

    /// A whole number within bounds.
    pub(crate) fn integer(&self, min: i64, max: i64) -> Result<i64, ConfigError> {
        match self.node {
            Node::Integer(value) if (min..=max).contains(value) => Ok(*value),
            _ => Err(self.wrong(&format!("a whole number from {min} to {max}"))),
        }
    }

    /// True or false.
    pub(crate) fn boolean(&self) -> Result<bool, ConfigError> {
        let Node::Bool(value) = self.node else { return Err(self.wrong("true or false")) };
        Ok(*value)
    }

    fn child(&self, key: &str, value: &'a Spanned<Node>) -> Self {
        Self { node: &value.value, at: value.referenced, path: join(&self.path, key) }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Node {
    fn described(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
            Self::Null => "nothing".to_owned(),
            Self::Text(text) if text.trim().is_empty() => "an empty string".to_owned(),
            Self::Text(text) => format!("\"{}\"", text.chars().take(SHOWN_CHARS).collect::<String>()),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

/// How much of a wrong value an error repeats.
const SHOWN_CHARS: usize = 60;
