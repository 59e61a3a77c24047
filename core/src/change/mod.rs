//! What the filter changes in traffic, if it is told to: see docs/CHANGES.md.
//!
//! In: a request's and an answer's bytes as they pass. Out: what goes on instead of each piece. Whatever is not to be
//! changed passes byte by byte; bodies are never gathered, only a value or an event that is cut is held back, bounded.

mod lines;
pub mod model;
pub mod rewrite;
mod tape;
pub mod usage_ask;
pub mod usage_drop;

use alloc::string::String;
use alloc::vec::Vec;

use crate::api::Api;
use crate::config::Config;
use crate::response::ResponseHead;
use model::{Kind, ModelChange};
use usage_ask::UsageAsk;
use usage_drop::UsageDrop;

/// The changes to one exchange.
pub struct Change {
    draw: u64,
    ask: Option<UsageAsk>,
    rename: Option<ModelChange>,
    /// The model as the client wrote it, with its quotes, and what it became; empty if it was not rewritten.
    asked: Vec<u8>,
    target: String,
    drop: Option<UsageDrop>,
    restore: Option<ModelChange>,
}

impl Change {
    /// What may have to be changed in an exchange of this API; `None`: nothing. `draw`: a random number.
    #[must_use]
    pub fn begin(config: &Config, api: Api, draw: u64) -> Option<Self> {
        let asks = config.inject_usage && matches!(api, Api::Chat | Api::Completions);
        let renames = !config.model_rewrites.is_empty();
        (asks || renames).then(|| Self {
            draw,
            ask: asks.then(UsageAsk::default),
            rename: renames.then(|| ModelChange::new(&Kind::Request)),
            asked: Vec::new(),
            target: String::new(),
            drop: None,
            restore: None,
        })
    }

    /// A piece of the request's body; `None`: it goes on as it is.
    pub fn request_chunk(&mut self, config: &Config, piece: &[u8], is_last: bool) -> Option<Vec<u8>> {
        let Self { draw, asked, target, .. } = self;
        let mut name = |value: &[u8]| {
            let model: String = serde_json::from_slice(value).ok()?;
            let chosen = rewrite::of(&config.model_rewrites, &model)?.choose(*draw);
            if chosen == model {
                return None;
            }
            *asked = value.to_vec();
            *target = String::from(chosen);
            serde_json::to_vec(chosen).ok()
        };
        let renamed = self.rename.as_mut().and_then(|rename| rename.feed(piece, is_last, &mut name));
        let piece = renamed.as_deref().unwrap_or(piece);
        let asked = self.ask.as_mut().and_then(|ask| ask.feed(piece, is_last));
        asked.or(renamed)
    }

    /// The model that the request was rewritten to; empty if it was not (yet).
    #[must_use]
    pub const fn target_model(&self) -> &str {
        self.target.as_str()
    }

    /// The answer's head came. True: its body may have to be changed, so that its length is not known.
    pub fn response_head(&mut self, head: &ResponseHead<'_>) -> bool {
        if !head.is_identity() {
            return false;
        }
        let is_stream = head.is_event_stream();
        if is_stream && self.ask.as_ref().is_some_and(UsageAsk::has_asked) {
            self.drop = Some(UsageDrop::new());
        }
        if !self.target.is_empty() && (is_stream || head.is_json()) {
            self.restore = Some(ModelChange::new(&if is_stream { Kind::AnswerEvents } else { Kind::AnswerJson }));
        }
        self.wants_response()
    }

    /// Whether the answer's bytes are needed.
    #[must_use]
    pub const fn wants_response(&self) -> bool {
        self.drop.is_some() || self.restore.is_some()
    }

    /// A piece of the answer's body; `None`: it goes on as it is.
    pub fn response_chunk(&mut self, piece: &[u8], is_last: bool) -> Option<Vec<u8>> {
        let dropped = self.drop.as_mut().and_then(|drop| drop.feed(piece, is_last));
        let piece = dropped.as_deref().unwrap_or(piece);
        let asked = &self.asked;
        let restored =
            self.restore.as_mut().and_then(|restore| restore.feed(piece, is_last, &mut |_| Some(asked.clone())));
        restored.or(dropped)
    }
}
