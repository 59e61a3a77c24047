//! An exchange read slowly: whole bodies, all events first, each a tree by serde_json; the rules as docs/METRICS.md has them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use tally_core::api::Api;
use tally_core::exchange::{Exchange, Measured, RequestHead};
use tally_core::outcome::{Cause, End};
use tally_core::response::ResponseHead;
use tally_core::timing::Nanos;

/// A request and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Bodies<'a> {
    pub api: Api,
    pub request: &'a [u8],
    pub status: u16,
    pub content_type: &'a [u8],
    pub content_encoding: &'a [u8],
    pub answer: &'a [u8],
    /// `None`: it came to its proper end.
    pub cause: Option<Cause>,
}

impl Bodies<'_> {
    /// By the code under test, both bodies in pieces of these sizes, over and over.
    pub fn measure(&self, cuts: &[u8]) -> Measured {
        let head = RequestHead { api: self.api, target_model: b"", tenant: b"" };
        let mut exchange = Exchange::begin(&head, Nanos(0));
        for piece in super::pieces(self.request, cuts) {
            let wanted = exchange.wants_request_chunk().then_some(piece);
            exchange.request_chunk(piece.len() as u64, wanted);
        }
        exchange.request_end();
        exchange.response_head(&ResponseHead {
            status: self.status,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
        });
        for (now, piece) in super::pieces(self.answer, cuts).into_iter().enumerate() {
            let wanted = exchange.wants_response_chunk().then_some(piece);
            exchange.response_chunk(piece.len() as u64, wanted, Nanos(now as u64));
        }
        if self.cause.is_none() {
            exchange.response_end(Nanos(1 << 40));
        }
        exchange.end(End { cause: self.cause.unwrap_or_default(), ..End::default() }, false, Nanos(1 << 40))
    }

    /// By whole buffers; `None`: something in it is not JSON to serde_json, or a number is not exact there.
    pub fn read(&self) -> Option<Slow> {
        let mut slow = Slow::default();
        if self.request.first() != Some(&0x1f) {
            slow.request(self.api, self.request)?;
        }
        let kind = self.content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if kind == b"text/event-stream" {
            let stream = super::sse::read(self.answer);
            for (_, data) in stream.events.iter().chain(&stream.unfinished) {
                if data == b"[DONE]" {
                    slow.no_json = true;
                } else {
                    slow.document(data)?;
                }
            }
        } else if kind.ends_with(b"json") || kind.is_empty() {
            slow.document(self.answer)?;
            // Of streams only.
            slow.output_events = None;
        } else {
            slow.no_json = true;
        }
        Some(slow)
    }
}

/// What the slow reader found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slow {
    pub model: Vec<u8>,
    pub answered_model: Vec<u8>,
    /// Counts by the names of the case files, as they are reported.
    pub counts: [Option<u64>; 8],
    pub bad_count: bool,
    pub error: bool,
    pub output_events: Option<u64>,
    /// Something was JSON, something was not.
    json: bool,
    no_json: bool,
    had_timed_usage: bool,
    several_prompts: bool,
}

const INPUT: usize = 0;
const OUTPUT: usize = 1;
const CACHED: usize = 2;
const CACHE_READ: usize = 3;
const CACHE_WRITE: usize = 4;
const CACHE_CREATION: usize = 5;
const REASONING: usize = 6;
const AUDIO: usize = 7;

impl Slow {
    /// Does the code under test say the same?
    pub fn agrees(&self, api: Api, found: &Measured) -> bool {
        let beside = if api == Api::Messages {
            [CACHE_READ, CACHE_CREATION].iter().filter_map(|at| self.counts[*at]).sum()
        } else {
            0
        };
        found.model == self.model
            && found.answered_model == self.answered_model
            && found.usage.input == self.counts[INPUT].map(|input| input + beside)
            && found.usage.output == self.counts[OUTPUT]
            && found.usage.cached == self.counts[CACHE_READ].or(self.counts[CACHED])
            && found.usage.cache_write == self.counts[CACHE_CREATION].or(self.counts[CACHE_WRITE])
            && found.usage.reasoning == self.counts[REASONING]
            && self.output_events.is_none_or(|events| events == found.output_events)
    }

    /// Does the code under test say the same of a good answer that came to its end?
    pub fn agrees_in_quality(&self, api: Api, found: &Measured) -> bool {
        let (input, output) = (self.counts[INPUT].is_some(), self.counts[OUTPUT].is_some());
        let (outcome, quality) = match () {
            () if self.error => ("upstream_error", "not_expected"),
            () if !input && !output && self.no_json && !self.json => ("complete", "unparsed"),
            () if self.bad_count => ("complete", "partial"),
            () if !input && !output => ("complete", "missing"),
            () if input && (output || api == Api::Embeddings) => ("complete", "found"),
            () => ("complete", "partial"),
        };
        (found.outcome.label(), found.usage_quality.label()) == (outcome, quality)
    }

    fn request(&mut self, api: Api, body: &[u8]) -> Option<()> {
        if is_blank(body) {
            return Some(());
        }
        let Tree::Object(members) = parse(body)? else { return Some(()) };
        let mut prompt_seen = false;
        for (key, value) in members {
            match (key.as_str(), value) {
                ("model", Tree::Text(name)) if self.model.is_empty() => self.model = cut(name),
                // Which of two prompts counts is nobody's promise.
                ("prompt", _) if core::mem::replace(&mut prompt_seen, true) => return None,
                ("prompt", Tree::Array(items)) if api == Api::Completions => {
                    let apart = |item: &&Tree| matches!(item, Tree::Text(_) | Tree::Array(_));
                    self.several_prompts = items.iter().filter(apart).count() > 1;
                }
                _ => {}
            }
        }
        Some(())
    }

    fn document(&mut self, text: &[u8]) -> Option<()> {
        if is_blank(text) {
            return Some(());
        }
        let tree = parse(text)?;
        // Of a bare number nobody knows whether it is whole.
        if matches!(tree, Tree::Integer(_) | Tree::Float | Tree::Negative) {
            return None;
        }
        self.json = true;
        self.tops(&tree, &mut 0)
    }

    fn tops(&mut self, tree: &Tree, objects: &mut usize) -> Option<()> {
        match tree {
            Tree::Object(members) => {
                self.top(members, *objects > 0)?;
                *objects += 1;
            }
            Tree::Array(items) => {
                for item in items {
                    self.tops(item, objects)?;
                }
                // Arrays in arrays are no server's: which of their objects belong together is nobody's promise.
                if items.iter().any(|item| matches!(item, Tree::Array(_))) {
                    return None;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn top(&mut self, members: &[(String, Tree)], is_batch: bool) -> Option<()> {
        let mut one = One::default();
        for (key, value) in members {
            match (key.as_str(), value) {
                ("model", Tree::Text(name)) => self.answered(name),
                ("usage" | "meta_info", Tree::Object(usage)) => one.usage(usage)?,
                ("message" | "response", Tree::Object(inner)) => {
                    for (key, value) in inner {
                        match (key.as_str(), value) {
                            ("model", Tree::Text(name)) => self.answered(name),
                            ("usage", Tree::Object(usage)) => one.usage(usage)?,
                            ("error", value) => one.error |= is_error(value),
                            _ => {}
                        }
                    }
                }
                ("error", value) => one.error |= is_error(value),
                // The scanner cuts it.
                ("type", Tree::Text(kind)) if kind.len() > 1_000 => return None,
                ("type", Tree::Text(kind)) => {
                    one.is_lifecycle = !(kind.ends_with(".delta") || kind == "content_block_delta");
                    one.error |= kind == "error" || kind == "response.failed";
                }
                ("timings", Tree::Object(_)) => one.has_timings = true,
                ("content" | "text" | "delta", Tree::Text(text)) => one.generated |= !text.is_empty(),
                ("delta", Tree::Object(delta)) => {
                    one.generated |= has_text(delta, &["text", "thinking", "partial_json"])
                }
                ("choices", Tree::Array(choices)) => choices.iter().for_each(|choice| one.choice(choice)),
                ("tokens_evaluated", value) => one.count(INPUT, value)?,
                ("tokens_predicted", value) => one.count(OUTPUT, value)?,
                _ => {}
            }
        }
        self.join(&one, is_batch);
        Some(())
    }

    fn answered(&mut self, name: &str) {
        if self.answered_model.is_empty() {
            self.answered_model = cut(name.to_owned());
        }
    }

    fn join(&mut self, one: &One, is_batch: bool) {
        let is_timed = one.has_usage && one.has_timings;
        let is_choice = is_timed && self.had_timed_usage;
        for (at, later) in one.counts.iter().enumerate() {
            let Some(later) = *later else { continue };
            let earlier = self.counts[at].unwrap_or(0);
            let adds = is_batch || (is_choice && (self.several_prompts || at == OUTPUT || at == REASONING));
            self.counts[at] = Some(match (adds, is_choice) {
                (true, _) => earlier + later,
                (false, true) => earlier.max(later),
                (false, false) => later,
            });
        }
        self.had_timed_usage |= is_timed;
        self.bad_count |= one.bad_count;
        self.error |= one.error;
        *self.output_events.get_or_insert(0) += u64::from(one.generated && !one.is_lifecycle);
    }
}

/// One object at the top of a document.
#[derive(Default)]
struct One {
    counts: [Option<u64>; 8],
    bad_count: bool,
    has_usage: bool,
    has_timings: bool,
    error: bool,
    generated: bool,
    is_lifecycle: bool,
}

impl One {
    fn usage(&mut self, members: &[(String, Tree)]) -> Option<()> {
        self.has_usage = true;
        for (key, value) in members {
            match (key.as_str(), value) {
                ("prompt_tokens" | "input_tokens", value) => self.count(INPUT, value)?,
                ("completion_tokens" | "output_tokens", value) => self.count(OUTPUT, value)?,
                ("cache_read_input_tokens", value) => self.count(CACHE_READ, value)?,
                ("cache_creation_input_tokens", value) => self.count(CACHE_CREATION, value)?,
                ("cached_tokens" | "prompt_cache_hit_tokens", value) => self.count(CACHED, value)?,
                ("cache_write_tokens", value) => self.count(CACHE_WRITE, value)?,
                ("prompt_tokens_details" | "input_tokens_details", Tree::Object(details)) => {
                    for (key, value) in details {
                        match key.as_str() {
                            "cached_tokens" => self.count(CACHED, value)?,
                            "created_cache_tokens" | "cache_write_tokens" => self.count(CACHE_WRITE, value)?,
                            "audio_tokens" => self.count(AUDIO, value)?,
                            _ => {}
                        }
                    }
                }
                ("completion_tokens_details" | "output_tokens_details", Tree::Object(details)) => {
                    for (key, value) in details {
                        match key.as_str() {
                            "reasoning_tokens" => self.count(REASONING, value)?,
                            "audio_tokens" => self.count(AUDIO, value)?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    /// `None`: serde_json's float may have been another number.
    fn count(&mut self, at: usize, value: &Tree) -> Option<()> {
        let count = match value {
            Tree::Null => return Some(()),
            Tree::Integer(count) => Some(*count),
            Tree::Text(digits) => digits.parse().ok(),
            Tree::Float => return None,
            _ => None,
        };
        match count.filter(|count| *count <= 1_000_000_000) {
            Some(count) => self.counts[at] = Some(count),
            None => self.bad_count = true,
        }
        Some(())
    }

    fn choice(&mut self, choice: &Tree) {
        let Tree::Object(members) = choice else { return };
        self.generated |= has_text(members, &["text"]);
        for (key, value) in members {
            if let ("delta", Tree::Object(delta)) = (key.as_str(), value) {
                self.generated |= has_text(delta, &["content", "reasoning_content", "reasoning", "refusal"]);
                let calls = ["tool_calls", "function_call", "audio"];
                self.generated |= delta.iter().any(|(key, call)| calls.contains(&key.as_str()) && has_object(call));
            }
        }
    }
}

fn has_text(members: &[(String, Tree)], keys: &[&str]) -> bool {
    let is_text = |value: &Tree| matches!(value, Tree::Text(text) if !text.is_empty());
    members.iter().any(|(key, value)| keys.contains(&key.as_str()) && is_text(value))
}

fn has_object(tree: &Tree) -> bool {
    match tree {
        Tree::Object(_) => true,
        Tree::Array(items) => items.iter().any(has_object),
        _ => false,
    }
}

fn is_error(value: &Tree) -> bool {
    match value {
        Tree::Object(_) => true,
        Tree::Text(text) => !text.is_empty(),
        _ => false,
    }
}

/// Nothing but JSON's white space.
fn is_blank(text: &[u8]) -> bool {
    text.iter().all(|byte| b" \t\r\n".contains(byte))
}

/// As much of a name as is kept.
fn cut(name: String) -> Vec<u8> {
    let mut bytes = name.into_bytes();
    bytes.truncate(204);
    bytes
}

/// JSON with its keys in order, the same key twice if it stands twice.
enum Tree {
    Array(Vec<Self>),
    Bool,
    Float,
    Integer(u64),
    Negative,
    Null,
    Object(Vec<(String, Self)>),
    Text(String),
}

/// `None` also for what is so deep that the scanner skips it.
fn parse(text: &[u8]) -> Option<Tree> {
    let tree = serde_json::from_slice::<Tree>(text).ok()?;
    tree.is_small(12).then_some(tree)
}

impl Tree {
    fn is_small(&self, depth: usize) -> bool {
        match self {
            Self::Array(items) => depth > 0 && items.iter().all(|item| item.is_small(depth - 1)),
            Self::Object(members) => {
                depth > 0 && members.iter().all(|(key, value)| key.len() < 60 && value.is_small(depth - 1))
            }
            _ => true,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }
    fn visit_bool<E>(self, _truth: bool) -> Result<Tree, E> {
        Ok(Tree::Bool)
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_u64<E>(self, integer: u64) -> Result<Tree, E> {
        Ok(Tree::Integer(integer))
    }
    fn visit_i64<E>(self, _negative: i64) -> Result<Tree, E> {
        Ok(Tree::Negative)
    }
    fn visit_f64<E>(self, _float: f64) -> Result<Tree, E> {
        Ok(Tree::Float)
    }
    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Tree::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Tree::Object(object))
    }
}
