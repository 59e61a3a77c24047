//! The recorded exchanges of `testdata/exchanges`, as values.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::tools;

/// One recorded request with its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Name of its folder.
    pub name: String,
    /// Request method.
    pub method: String,
    /// Request path.
    pub path: String,
    /// Request headers as recorded.
    pub headers: BTreeMap<String, String>,
    /// Exact request body.
    pub body: Vec<u8>,
    /// Status line and headers of the answer, exact bytes.
    pub answer_head: Vec<u8>,
    /// The answer's body in the pieces in which it came, each with its time since the request.
    pub pieces: Vec<(Duration, Vec<u8>)>,
    /// What an independent reader found in it.
    pub expect: Expect,
}

/// `expect.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Expect {
    /// Status of the answer.
    pub status: u16,
    /// `complete` or `client_cancelled`.
    pub ended: String,
    /// The model the request names; a request may also hold something else there.
    pub model: serde_json::Value,
    /// The model the answer names.
    pub answered_model: Option<String>,
    /// Was the answer an event stream?
    pub stream_answered: bool,
    /// Body bytes of the answer.
    pub response_bytes: u64,
    /// Body bytes of the request.
    pub request_bytes: u64,
    /// The server's own usage; `None` if it sent none.
    pub usage: Option<Usage>,
    /// llama.cpp: each choice has its own usage.
    #[serde(default)]
    pub usage_per_choice: bool,
    /// llama.cpp: its own counts, where it sent no usage.
    pub timings: Option<serde_json::Value>,
}

/// The token counts of an exchange.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Usage {
    /// Input tokens, cached ones included.
    pub input_tokens: Option<u64>,
    /// Output tokens.
    pub output_tokens: Option<u64>,
    /// Input tokens out of the prefix cache.
    pub cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct RequestFile {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Option<String>,
    body_base64: Option<String>,
}

#[derive(Deserialize)]
struct Piece {
    t_ms: f64,
    n: usize,
}

impl Exchange {
    /// Reads one folder.
    ///
    /// # Errors
    /// If a file is missing or broken.
    pub fn read(name: &str) -> Result<Self> {
        let folder = folder().join(name);
        let read = |file: &str| fs::read(folder.join(file)).with_context(|| format!("{name}/{file}"));
        let request: RequestFile = serde_json::from_slice(&read("request.json")?)?;
        let body = match (request.body, request.body_base64) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(encoded)) => STANDARD.decode(encoded)?,
            (None, None) => Vec::new(),
        };
        let answer = read("response.body")?;
        let mut rest = answer.as_slice();
        let mut pieces = Vec::new();
        for line in read("chunks.jsonl")?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let piece: Piece = serde_json::from_slice(line)?;
            let (now, later) = rest.split_at_checked(piece.n).context("pieces do not add up")?;
            pieces.push((Duration::from_secs_f64(piece.t_ms / 1000.0), now.to_vec()));
            rest = later;
        }
        Ok(Self {
            name: name.to_owned(),
            method: request.method,
            path: request.path,
            headers: request.headers,
            body,
            answer_head: read("response.headers")?,
            pieces,
            expect: serde_json::from_slice(&read("expect.json")?)?,
        })
    }

    /// All of them, in the order of their names.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn all() -> Result<Vec<Self>> {
        let mut names: Vec<String> =
            fs::read_dir(folder())?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }

    /// The whole body of the answer.
    #[must_use]
    pub fn answer_body(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }

    /// The request's headers that a client sets by itself; the others follow from connection and body.
    pub fn client_headers(&self) -> Vec<(&str, &str)> {
        self.headers
            .iter()
            .filter(|(name, _)| !matches!(name.to_ascii_lowercase().as_str(), "host" | "content-length"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}

fn folder() -> PathBuf {
    tools::root().join("testdata/exchanges")
}
