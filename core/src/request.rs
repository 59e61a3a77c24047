//! A request's body: how large it is and which model it names.
//!
//! In: the body as it comes, in any pieces. Out: model, size, what could be read. It stops looking as soon as it knows
//! what it wants and goes on counting; it keeps nothing but the model's name.

use alloc::vec::Vec;

use crate::api::Api;
use crate::json::{Scanner, State, Value};
use crate::labels::MAX_VALUE_BYTES;
use crate::schema::{RequestNode, RequestSchema};

/// Bytes of a model name that are kept: a label has fewer.
const MAX_MODEL_BYTES: usize = MAX_VALUE_BYTES + 4;

/// What a request's body said: the `quality` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestQuality {
    /// It names a model.
    Parsed,
    /// It is JSON without a model.
    ModelMissing,
    /// It has no body.
    Empty,
    /// It is no JSON.
    Unparsed,
    /// It is compressed.
    UnsupportedEncoding,
    /// It did not come to its end.
    Cut,
}

impl RequestQuality {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Parsed, Self::ModelMissing, Self::Empty, Self::Unparsed, Self::UnsupportedEncoding, Self::Cut];

    /// Value of the label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Parsed => "parsed",
            Self::ModelMissing => "model_missing",
            Self::Empty => "empty",
            Self::Unparsed => "unparsed",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::Cut => "cut",
        }
    }
}

/// A request's body being read.
pub struct Request {
    scanner: Scanner<RequestSchema>,
    model: Vec<u8>,
    /// What remains to be found; nothing once `is_done`.
    prompt: Prompt,
    is_done: bool,
    is_gzip: bool,
    is_whole: bool,
    bytes: u64,
    scanned: u64,
}

/// The prompt of the completions API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prompt {
    /// No API of the request has one.
    NotWanted,
    /// Not seen yet, or not to its end.
    Awaited { items: u32 },
    /// Seen.
    Known { items: u32 },
}

impl Request {
    /// A body of this API, of which nothing has come.
    #[must_use]
    pub fn new(api: Api) -> Self {
        Self {
            scanner: Scanner::new(),
            model: Vec::new(),
            prompt: if api == Api::Completions { Prompt::Awaited { items: 0 } } else { Prompt::NotWanted },
            is_done: false,
            is_gzip: false,
            is_whole: false,
            bytes: 0,
            scanned: 0,
        }
    }

    /// Bytes came; they need to be read only if [`Self::wants_bytes`].
    pub const fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Whether the next bytes can tell anything new.
    #[must_use]
    pub const fn wants_bytes(&self) -> bool {
        !self.is_done
    }

    /// Reads the next bytes.
    pub fn read(&mut self, mut bytes: &[u8]) {
        if self.scanned == 0 && bytes.first() == Some(&GZIP) {
            self.is_gzip = true;
            self.is_done = true;
        }
        self.scanned += bytes.len() as u64;
        while !self.is_done
            && let Some(found) = self.scanner.next(&mut bytes)
        {
            match (found.node, found.value) {
                // The first counts where it stands twice, whether or not the prompt has been seen.
                (RequestNode::Model, Value::Text(name)) if self.model.is_empty() => {
                    self.model.extend_from_slice(name.get(..MAX_MODEL_BYTES).unwrap_or(name));
                }
                (RequestNode::PromptItem, Value::Text(_) | Value::Array) => {
                    if let Prompt::Awaited { items } = &mut self.prompt {
                        *items = items.saturating_add(1);
                    }
                }
                (RequestNode::Prompt, Value::Text(_) | Value::End) => {
                    if let Prompt::Awaited { items } = self.prompt {
                        self.prompt = Prompt::Known { items };
                    }
                }
                _ => {}
            }
            self.is_done = !self.model.is_empty() && !matches!(self.prompt, Prompt::Awaited { .. });
        }
        self.is_done |= self.scanner.state() == State::Broken;
    }

    /// The body came to its end.
    pub const fn end(&mut self) {
        self.is_whole = true;
        self.is_done = true;
    }

    /// The model as the client wrote it; empty if none is known (yet).
    #[must_use]
    pub fn model(&self) -> &[u8] {
        &self.model
    }

    /// Whether it asks for the completion of several prompts, whose tokens a server may report apart.
    #[must_use]
    pub const fn has_several_prompts(&self) -> bool {
        matches!(self.prompt, Prompt::Awaited { items } | Prompt::Known { items } if items > 1)
    }

    /// Bytes of the body on the wire.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that were read.
    #[must_use]
    pub const fn scanned(&self) -> u64 {
        self.scanned
    }

    /// What the body said.
    #[must_use]
    pub fn quality(&self) -> RequestQuality {
        if self.is_gzip {
            RequestQuality::UnsupportedEncoding
        } else if !self.model.is_empty() {
            RequestQuality::Parsed
        } else if !self.is_whole {
            RequestQuality::Cut
        } else {
            match self.scanner.state() {
                State::Empty => RequestQuality::Empty,
                State::Complete => RequestQuality::ModelMissing,
                State::Open | State::Broken => RequestQuality::Unparsed,
            }
        }
    }
}

/// First byte of a gzip body; no JSON starts so.
const GZIP: u8 = 0x1f;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(api: Api, body: &str) -> Request {
        let mut request = Request::new(api);
        for byte in body.as_bytes() {
            request.count(1);
            if request.wants_bytes() {
                request.read(&[*byte]);
            }
        }
        request.end();
        request
    }

    #[test]
    fn reading_stops_at_the_model_and_counting_goes_on() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
        let request = read(Api::Chat, body);
        assert_eq!((request.model(), request.bytes()), (&b"m"[..], body.len() as u64));
        assert!(request.scanned() < 14, "{}", request.scanned());
    }

    #[test]
    fn a_model_in_a_message_is_not_the_model() {
        let request =
            read(Api::Chat, r#"{"messages":[{"model":"inner","content":"{\"model\":\"text\"}"}],"model":"outer"}"#);
        assert_eq!(request.model(), b"outer");
    }

    #[test]
    fn of_two_models_the_first_counts_in_every_api() {
        for api in [Api::Chat, Api::Completions] {
            assert_eq!(read(api, r#"{"model":"first","model":"second","prompt":"p"}"#).model(), b"first");
        }
    }

    #[test]
    fn several_prompts_are_told_from_one_prompt_of_tokens() {
        for (prompt, several) in
            [("\"a\"", false), ("[\"a\"]", false), ("[\"a\",\"b\"]", true), ("[1,2,3]", false), ("[[1,2],[3]]", true)]
        {
            for body in [
                alloc::format!(r#"{{"model":"m","prompt":{prompt},"n":1}}"#),
                alloc::format!(r#"{{"prompt":{prompt},"model":"m"}}"#),
            ] {
                let request = read(Api::Completions, &body);
                assert_eq!((request.model(), request.has_several_prompts()), (&b"m"[..], several), "{body}");
            }
        }
    }

    #[test]
    fn what_was_wrong_with_a_body_is_told_apart() {
        for (body, quality) in [
            ("", RequestQuality::Empty),
            (" \n", RequestQuality::Empty),
            ("nonsense", RequestQuality::Unparsed),
            (r#"{"messages":["#, RequestQuality::Unparsed),
            (r#"{"messages":[]}"#, RequestQuality::ModelMissing),
            (r#"{"model":7}"#, RequestQuality::ModelMissing),
            (r#"{"model":"m""#, RequestQuality::Parsed),
        ] {
            assert_eq!(read(Api::Chat, body).quality(), quality, "{body}");
        }
        let mut zipped = Request::new(Api::Chat);
        zipped.read(&[0x1f, 0x8b, 8, 0]);
        assert_eq!(zipped.quality(), RequestQuality::UnsupportedEncoding);
        assert!(!zipped.wants_bytes());
        assert_eq!(Request::new(Api::Chat).quality(), RequestQuality::Cut);
    }
}
