//! What the readers' benchmarks read, and the ways to read it. Also built for wasm32, see `wasm/`.
//!
//! In: a case's name. Out: its pieces, as Envoy would hand them on, and how many findings each way makes of them.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;

use memchr::memchr2_iter;
use serde::Deserialize;
use tally_core::json::{Scanner, Schema};
use tally_core::schema::{AnswerSchema, RequestSchema};
use tally_core::sse::{Piece, Reader};

/// Bodies come from Envoy in buffers of about this size.
const PIECE_BYTES: usize = 16 << 10;

/// A body in pieces.
pub struct Case {
    pub name: &'static str,
    pub kind: Kind,
    pub pieces: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Answer,
    Request,
    Stream,
}

/// A way to read a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Ours.
    Reader,
    /// `memchr2` for quotes and backslashes (line ends, in streams): about what any reader of JSON has to do.
    Memchr,
    /// serde_json, only the wanted fields, from the whole body.
    SerdeTyped,
    /// serde_json, as a tree, from the whole body.
    SerdeTree,
}

pub const WAYS: [(&str, Way); 4] = [
    ("reader", Way::Reader),
    ("memchr", Way::Memchr),
    ("serde_typed", Way::SerdeTyped),
    ("serde_tree", Way::SerdeTree),
];

impl Case {
    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// Reads it once; the result only keeps the work from being left out.
    pub fn read(&self, way: Way) -> usize {
        match (way, self.kind) {
            (Way::Reader, Kind::Request) => scan::<RequestSchema>(&self.pieces),
            (Way::Reader, Kind::Answer) => scan::<AnswerSchema>(&self.pieces),
            (Way::Reader, Kind::Stream) => stream(&self.pieces),
            (Way::Memchr, Kind::Stream) => {
                self.pieces.iter().map(|piece| memchr2_iter(b'\r', b'\n', piece).count()).sum()
            }
            (Way::Memchr, _) => self.pieces.iter().map(|piece| memchr2_iter(b'"', b'\\', piece).count()).sum(),
            (Way::SerdeTyped | Way::SerdeTree, Kind::Stream) => {
                self.pieces.concat().split(|byte| *byte == b'\n').map(|line| event(line, way)).sum()
            }
            (Way::SerdeTyped | Way::SerdeTree, _) => serde(&self.pieces.concat(), way),
        }
    }
}

/// All cases, each made of a few words over and over.
pub fn cases() -> Vec<Case> {
    let prompt = "Tell me about the sea, its waves and its tides. ".repeat((1 << 20) / 48);
    let code = "    let x = map.get(\\\"key\\\");\\n    if x {\\n\\t\\treturn;\\n    }\\n".repeat(16 << 10);
    let message = |text: &str| format!("{{\"role\": \"user\", \"content\": \"{text}\"}}");
    let request = |messages: &str| {
        format!(
            "{{\"messages\": [{messages}], \"max_tokens\": 24, \"temperature\": 0, \"stream\": true, \"model\": \"m\"}}"
        )
    };
    let turns = vec![message("What is the sea?"); 600].join(", ");
    let logprob = "{\"token\":\" sea\",\"logprob\":-0.0325,\"bytes\":[32,115,101,97],\"top_logprobs\":[]}";
    let logprobs = vec![logprob; 400].join(",");
    let floats = vec!["-0.023193359375"; 4096].join(",");
    let answer = |text: &str, more: &str| {
        format!(
            "{{\"id\":\"chatcmpl-95f3c0\",\"object\":\"chat.completion\",\"created\":1795551239,\"model\":\"m\",\"choices\":[\
             {{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\",\"tool_calls\":[]}},{more}\
             \"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":41,\"total_tokens\":65,\"completion_tokens\":24}}}}"
        )
    };
    let embedding = format!(
        "{{\"object\":\"list\",\"data\":[{{\"object\":\"embedding\",\"index\":0,\"embedding\":[{floats}]}}],\
         \"usage\":{{\"prompt_tokens\":7,\"total_tokens\":7}}}}"
    );
    let whole = |kind, name, body: String| Case {
        name,
        kind,
        pieces: body.as_bytes().chunks(PIECE_BYTES).map(<[u8]>::to_vec).collect(),
    };
    vec![
        whole(Kind::Request, "request_1m", request(&message(&prompt))),
        whole(Kind::Request, "request_1m_code", request(&message(&code))),
        whole(Kind::Request, "request_600_turns", request(&turns)),
        whole(Kind::Answer, "answer_40k", answer(&prompt[..40 << 10], "")),
        whole(
            Kind::Answer,
            "answer_logprobs",
            answer("The sea.", &format!("\"logprobs\":{{\"content\":[{logprobs}]}},")),
        ),
        whole(Kind::Answer, "embedding_4096", embedding),
        Case { name: "stream_64", kind: Kind::Stream, pieces: chunks() },
    ]
}

/// 64 events of a chat, each a piece, and the usage behind them.
fn chunks() -> Vec<Vec<u8>> {
    let head = "data: {\"id\":\"chatcmpl-95f3c0aa8a1f4e0c\",\"object\":\"chat.completion.chunk\",\"created\":1795551239,\
                \"model\":\"gemma-3-270m\",";
    let mut chunks: Vec<Vec<u8>> = (0..64)
        .map(|word| {
            format!(
                "{head}\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{word}\"}},\"logprobs\":null,\
                 \"finish_reason\":null}}]}}\n\n"
            )
            .into_bytes()
        })
        .collect();
    let usage = "\"usage\":{\"prompt_tokens\":41,\"total_tokens\":105,\"completion_tokens\":64}";
    chunks.push(format!("{head}\"choices\":[],{usage}}}\n\ndata: [DONE]\n\n").into_bytes());
    chunks
}

fn scan<S: Schema>(pieces: &[Vec<u8>]) -> usize {
    let (mut scanner, mut found) = (Scanner::<S>::new(), 0);
    for piece in pieces {
        let mut piece = &piece[..];
        while let Some(value) = scanner.next(&mut piece) {
            black_box(value.value);
            found += 1;
        }
    }
    found
}

fn stream(pieces: &[Vec<u8>]) -> usize {
    let (mut reader, mut scanner, mut found) = (Reader::new(), Scanner::<AnswerSchema>::new(), 0);
    for piece in pieces {
        let mut piece = &piece[..];
        while let Some(part) = reader.next(&mut piece) {
            match part {
                Piece::Data(mut data) => {
                    while let Some(value) = scanner.next(&mut data) {
                        black_box(value.value);
                        found += 1;
                    }
                }
                Piece::EventEnd => scanner.reset(),
                Piece::Comment => {}
            }
        }
    }
    found
}

fn event(line: &[u8], way: Way) -> usize {
    line.strip_prefix(b"data: ").filter(|data| *data != b"[DONE]").map_or(0, |data| serde(data, way))
}

fn serde(body: &[u8], way: Way) -> usize {
    if way == Way::SerdeTree {
        return serde_json::from_slice::<serde_json::Value>(body)
            .expect("JSON")
            .as_object()
            .map_or(0, serde_json::Map::len);
    }
    let body: Body = serde_json::from_slice(body).expect("JSON");
    body.model.map_or(0, |model| model.len()) + body.usage.map_or(0, |usage| usage.prompt_tokens)
}

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: usize,
}
