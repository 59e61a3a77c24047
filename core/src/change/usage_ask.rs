//! Asks for the usage of a stream on behalf of a client that was silent: `stream_options.include_usage`.
//!
//! In: the request's body in pieces. Out: what goes on instead of each. Text is only put in: before the `}` of a
//! `stream_options` without the key, instead of a `null`, or before the last `}`. It holds back four bytes at most.

use alloc::vec::Vec;

use super::tape::Tape;
use crate::json::{Edge, Schema, Spans};

/// See the file's head.
#[derive(Default)]
pub struct UsageAsk {
    spans: Spans<Parts>,
    tape: Tape,
    stream: Stream,
    options: Options,
    /// Text was put in.
    is_added: bool,
    /// The client has set `include_usage` itself somewhere.
    is_clients: bool,
}

/// `stream`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stream {
    /// Not seen.
    #[default]
    Unknown,
    On,
    Off,
}

/// `stream_options`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Options {
    #[default]
    Missing,
    /// It has none of the keys that matter.
    Silent,
    /// It has one: nothing is put in. With `continuous_usage_stats` the whole stream would look different.
    Explicit,
}

const MEMBER: &[u8] = br#""include_usage":true"#;
const OBJECT: &[u8] = br#"{"include_usage":true}"#;
const NULL: &[u8] = b"null";
const KEY: &[u8] = br#","stream_options":"#;

impl UsageAsk {
    /// A piece came; `None`: it goes on as it is.
    pub fn feed(&mut self, piece: &[u8], is_last: bool) -> Option<Vec<u8>> {
        let mut pass = self.tape.pass(piece);
        let mut rest = piece;
        while let Some(edge) = self.spans.next(&mut rest) {
            let at = piece.len() - rest.len();
            match edge {
                Edge::Begin { node: Node::Stream, first } => {
                    self.stream = if first == b't' { Stream::On } else { Stream::Off };
                }
                Edge::Begin { node: Node::Options, first } => {
                    self.options = if first == b'{' { Options::Silent } else { Options::Explicit };
                    if first == b'n' && self.stream == Stream::On {
                        pass.hold(at - 1);
                    }
                }
                Edge::Begin { node: Node::Setting { is_usage }, .. } => {
                    self.options = Options::Explicit;
                    self.is_clients |= is_usage;
                }
                Edge::End { node: Node::Options, .. } if pass.is_holding() => {
                    if pass.held_bytes(at) == NULL {
                        pass.replace(at, OBJECT);
                        self.is_added = true;
                    } else {
                        pass.release();
                    }
                }
                // `stream` may still come. Options of a request that does not stream are an error to servers anyway.
                Edge::End { node: Node::Options, is_empty }
                    if self.options == Options::Silent && self.stream != Stream::Off =>
                {
                    if !is_empty {
                        pass.insert(at - 1, b",");
                    }
                    pass.insert(at - 1, MEMBER);
                    self.is_added = true;
                }
                Edge::End { node: Node::Top, .. } if self.stream == Stream::On && self.options == Options::Missing => {
                    pass.insert(at - 1, KEY);
                    pass.insert(at - 1, OBJECT);
                    self.is_added = true;
                }
                _ => {}
            }
        }
        if pass.is_holding() && (is_last || pass.held(piece.len()) > NULL.len()) {
            pass.release();
        }
        pass.end()
    }

    /// Whether the answer has usage that nobody but this asked for.
    #[must_use]
    pub const fn has_asked(&self) -> bool {
        self.is_added && !self.is_clients
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Top,
    Stream,
    Options,
    Setting { is_usage: bool },
}

struct Parts;

impl Schema for Parts {
    type Node = Node;

    fn root() -> Node {
        Node::Top
    }

    fn key(node: Node, key: &[u8]) -> Option<Node> {
        match (node, key) {
            (Node::Top, b"stream") => Some(Node::Stream),
            (Node::Top, b"stream_options") => Some(Node::Options),
            (Node::Options, b"include_usage") => Some(Node::Setting { is_usage: true }),
            (Node::Options, b"continuous_usage_stats") => Some(Node::Setting { is_usage: false }),
            _ => None,
        }
    }

    fn element(_: Node) -> Option<Node> {
        None
    }
}
