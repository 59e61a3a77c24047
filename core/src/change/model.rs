//! Puts another name in the place of a document's `model`, in a body of JSON or in each event of a stream.
//!
//! In: the body in pieces, and what to write for a value. Out: what goes on instead of each piece. A value that is cut is
//! held back, up to [`MAX_MODEL`] bytes, beyond which it passes as it is. Every other byte passes untouched.

use alloc::vec::Vec;

use super::lines::{Lines, Part};
use super::tape::{Pass, Tape};
use crate::json::{Edge, Schema, Spans};

/// A longer value, quotes and escapes included, is not changed.
pub const MAX_MODEL: usize = 1024;

/// Which values are models.
pub(super) enum Kind {
    Request,
    AnswerJson,
    AnswerEvents,
}

/// See the file's head.
pub(super) struct ModelChange {
    tape: Tape,
    reader: Reader,
}

enum Reader {
    Request(Spans<RequestParts>),
    Json(Spans<AnswerParts>),
    Events { lines: Lines, spans: Spans<AnswerParts>, is_open: bool },
}

impl ModelChange {
    pub(super) fn new(kind: &Kind) -> Self {
        let reader = match kind {
            Kind::Request => Reader::Request(Spans::default()),
            Kind::AnswerJson => Reader::Json(Spans::default()),
            Kind::AnswerEvents => Reader::Events { lines: Lines::new(), spans: Spans::default(), is_open: false },
        };
        Self { tape: Tape::default(), reader }
    }

    /// A piece came; `None`: it goes on as it is. `name` gets a value with its quotes, and gives what to write instead.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        is_last: bool,
        name: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let mut pass = self.tape.pass(piece);
        match &mut self.reader {
            Reader::Request(spans) => scan(spans, piece, 0, &mut pass, name),
            Reader::Json(spans) => scan(spans, piece, 0, &mut pass, name),
            Reader::Events { lines, spans, is_open } => {
                let mut rest = piece;
                while let Some(part) = lines.next(&mut rest) {
                    let at = piece.len() - rest.len();
                    if let Part::Data(data) = part {
                        scan(spans, data, at - data.len(), &mut pass, name);
                        continue;
                    }
                    // A value that goes over a line's end is no JSON.
                    if pass.is_holding() {
                        pass.release();
                    }
                    match part {
                        Part::Line if *is_open => {
                            spans.next(&mut b"\n".as_slice());
                        }
                        Part::Line => {
                            spans.reset();
                            *is_open = true;
                        }
                        Part::Blank => *is_open = false,
                        Part::Data(_) | Part::LateLf => {}
                    }
                }
            }
        }
        if pass.is_holding() && (is_last || pass.held(piece.len()) > MAX_MODEL) {
            pass.release();
        }
        pass.end()
    }
}

/// Reads `data`, which stands at `base` in the piece.
fn scan<S: Schema<Node = Node>>(
    spans: &mut Spans<S>,
    data: &[u8],
    base: usize,
    pass: &mut Pass<'_>,
    name: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
) {
    let mut rest = data;
    while let Some(edge) = spans.next(&mut rest) {
        let at = base + data.len() - rest.len();
        match edge {
            Edge::Begin { node: Node::Model, first: b'"' } => pass.hold(at - 1),
            Edge::End { node: Node::Model, .. } if pass.is_holding() => {
                let other = if pass.held(at) > MAX_MODEL { None } else { name(&pass.held_bytes(at)) };
                match other {
                    Some(other) => pass.replace(at, &other),
                    None => pass.release(),
                }
            }
            _ => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Top,
    /// `response` of the responses API, `message` of the messages API.
    Whole,
    Model,
}

struct RequestParts;

impl Schema for RequestParts {
    type Node = Node;

    fn root() -> Node {
        Node::Top
    }

    fn key(node: Node, key: &[u8]) -> Option<Node> {
        (node == Node::Top && key == b"model").then_some(Node::Model)
    }

    fn element(_: Node) -> Option<Node> {
        None
    }
}

struct AnswerParts;

impl Schema for AnswerParts {
    type Node = Node;

    fn root() -> Node {
        Node::Top
    }

    fn key(node: Node, key: &[u8]) -> Option<Node> {
        match (node, key) {
            (Node::Top | Node::Whole, b"model") => Some(Node::Model),
            (Node::Top, b"response" | b"message") => Some(Node::Whole),
            _ => None,
        }
    }

    fn element(_: Node) -> Option<Node> {
        None
    }
}
