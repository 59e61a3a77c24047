//! Recorded exchanges, driven through the core with any cuts. Used natively and on wasm32, where there are no files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, unreachable_pub, dead_code, reason = "a part of tests")]

use serde_json::Value;
use tally_core::api::Api;
use tally_core::exchange::{Exchange, Measured, RequestHead};
use tally_core::outcome::End;
use tally_core::response::ResponseHead;
use tally_core::timing::Nanos;

/// One folder of `testdata/exchanges`.
pub struct Recorded {
    /// Its name.
    pub name: String,
    /// Request path.
    pub path: String,
    /// Request body.
    pub request: Vec<u8>,
    /// Status, content type, content encoding.
    pub head: (u16, String, String),
    /// Answer's body.
    pub answer: Vec<u8>,
    /// What an independent reader found in it.
    pub expect: Value,
}

impl Recorded {
    /// From the contents of its files; `None` if its request body is no UTF-8.
    pub fn parse(name: &str, request: &str, head: &str, answer: &[u8], expect: &str) -> Option<Self> {
        let request: Value = serde_json::from_str(request).unwrap();
        let header = |wanted: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{wanted}:")));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        Some(Self {
            name: name.to_owned(),
            path: request["path"].as_str().unwrap().to_owned(),
            request: request.get("body")?.as_str()?.as_bytes().to_vec(),
            head: (
                head.split(' ').nth(1).unwrap().parse().unwrap(),
                header("content-type"),
                header("content-encoding"),
            ),
            answer: answer.to_vec(),
            expect: serde_json::from_str(expect).unwrap(),
        })
    }

    /// Its API, if it is a call of one.
    pub fn api(&self) -> Option<Api> {
        Api::of_path(self.path.as_bytes())
    }

    /// Runs it through an exchange, both bodies in these pieces.
    pub fn measure(&self, request: &[&[u8]], answer: &[&[u8]]) -> Measured {
        let api = self.api().unwrap();
        let mut exchange = Exchange::begin(&RequestHead { api, target_model: b"", tenant: b"" }, Nanos(1));
        for piece in request {
            let wanted = exchange.wants_request_chunk().then_some(*piece);
            exchange.request_chunk(piece.len() as u64, wanted);
        }
        exchange.request_end();
        let (status, content_type, content_encoding) = &self.head;
        exchange.response_head(&ResponseHead {
            status: *status,
            content_type: content_type.as_bytes(),
            content_encoding: content_encoding.as_bytes(),
        });
        for piece in answer {
            let wanted = exchange.wants_response_chunk().then_some(*piece);
            exchange.response_chunk(piece.len() as u64, wanted, Nanos(2));
        }
        exchange.response_end(Nanos(3));
        exchange.end(End::default(), false, Nanos(3))
    }

    /// Checks a measurement against the independent reading.
    pub fn check(&self, measured: &Measured) {
        let expect = &self.expect;
        let name = &self.name;
        assert_eq!(measured.request_bytes, expect["request_bytes"].as_u64().unwrap(), "{name}: request bytes");
        assert_eq!(measured.response_bytes, expect["response_bytes"].as_u64().unwrap(), "{name}: response bytes");
        // A body that breaks off after its model still names it, which no reader of whole values sees.
        if let Some(model) = expect["model"].as_str() {
            assert_eq!(text(&measured.model), model, "{name}: model");
        }
        assert_eq!(
            text(&measured.answered_model),
            expect["answered_model"].as_str().unwrap_or_default(),
            "{name}: answered model"
        );
        if !expect["timings"].is_null() {
            // The server's private fields stand for usage: another test's matter.
            return;
        }
        let usage = &expect["usage"];
        let counts = [
            ("input_tokens", measured.usage.input),
            ("output_tokens", measured.usage.output),
            ("cached_tokens", measured.usage.cached),
            ("reasoning_tokens", measured.usage.reasoning),
        ];
        for (key, found) in counts {
            assert_eq!(found, usage[key].as_u64(), "{name}: {key}");
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap()
}

/// The parts of a measurement that no cut may change.
pub fn essence(measured: &Measured) -> impl PartialEq + core::fmt::Debug + use<> {
    (
        (measured.model.clone(), measured.answered_model.clone(), measured.usage, measured.output_events),
        (measured.usage_quality, measured.request_quality, measured.outcome),
        (measured.request_bytes, measured.response_bytes, measured.first_token.is_some()),
    )
}
