//! Takes the usage event out of a stream: the one with `"choices":[]` and a `usage` object.
//!
//! In: an event stream in pieces. Out: what goes on instead of each. An event that is cut is held back until it is known
//! not to be the one, which any choice in it shows; never more than [`MAX_EVENT`] bytes, beyond which it passes.

use alloc::vec::Vec;

use super::lines::{Lines, Part};
use super::tape::{Pass, Tape};
use crate::json::{Edge, Schema, Spans, State};

/// A longer event is none that only tells usage.
pub const MAX_EVENT: usize = 8 * 1024;

/// See the file's head.
pub struct UsageDrop {
    lines: Lines,
    tape: Tape,
    event: Event,
    /// The last line that ended was the end of a dropped event.
    has_dropped: bool,
}

/// The event being read.
#[derive(Default)]
struct Event {
    spans: Spans<Parts>,
    is_open: bool,
    has_no_choices: bool,
    has_usage: bool,
}

impl UsageDrop {
    /// Before the stream's first byte.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: Lines::new(), tape: Tape::default(), event: Event::default(), has_dropped: false }
    }

    /// A piece came; `None`: it goes on as it is.
    pub fn feed(&mut self, piece: &[u8], is_last: bool) -> Option<Vec<u8>> {
        let mut pass = self.tape.pass(piece);
        let mut rest = piece;
        while let Some(part) = self.lines.next(&mut rest) {
            let at = piece.len() - rest.len();
            let mut has_dropped = false;
            match part {
                Part::Line => self.event.line(&mut pass, at),
                Part::Data(data) => self.event.data(&mut pass, data, at),
                Part::Blank => has_dropped = self.event.end(&mut pass, at),
                // The second half of a dropped event's last line end.
                Part::LateLf if self.has_dropped => {
                    pass.hold(at - 1);
                    pass.replace(at, b"");
                }
                Part::LateLf => {}
            }
            self.has_dropped = has_dropped;
        }
        if is_last {
            self.event.end(&mut pass, piece.len());
        } else if pass.is_holding() && pass.held(piece.len()) > MAX_EVENT {
            pass.release();
        }
        pass.end()
    }
}

impl Default for UsageDrop {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    fn line(&mut self, pass: &mut Pass<'_>, at: usize) {
        if !self.is_open {
            self.spans.reset();
            (self.is_open, self.has_no_choices, self.has_usage) = (true, false, false);
            pass.hold(at);
        }
        // Lines of data are joined by a line feed.
        self.spans.next(&mut b"\n".as_slice());
    }

    fn data(&mut self, pass: &mut Pass<'_>, mut data: &[u8], at: usize) {
        while let Some(edge) = self.spans.next(&mut data) {
            match edge {
                Edge::Begin { node: Node::Choice, .. } => self.let_go(pass),
                // An object without keys is no list without choices.
                Edge::Begin { node: Node::Choices, first } if first != b'[' => self.let_go(pass),
                Edge::End { node: Node::Choices, is_empty } => self.has_no_choices = is_empty,
                Edge::Begin { node: Node::Usage, first: b'{' } => self.has_usage = true,
                _ => {}
            }
        }
        if self.spans.state() == State::Broken || pass.held(at) > MAX_EVENT {
            self.let_go(pass);
        }
    }

    /// It is not the one.
    fn let_go(&self, pass: &mut Pass<'_>) {
        if pass.is_holding() {
            pass.release();
        }
    }

    /// It is over at `at`. True: it was dropped.
    fn end(&mut self, pass: &mut Pass<'_>, at: usize) -> bool {
        self.is_open = false;
        if !pass.is_holding() {
            return false;
        }
        let is_the_one = self.has_no_choices && self.has_usage && self.spans.state() == State::Complete;
        if is_the_one {
            pass.replace(at, b"");
        } else {
            pass.release();
        }
        is_the_one
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Top,
    Choices,
    Choice,
    Usage,
}

struct Parts;

impl Schema for Parts {
    type Node = Node;

    fn root() -> Node {
        Node::Top
    }

    fn key(node: Node, key: &[u8]) -> Option<Node> {
        match (node, key) {
            (Node::Top, b"choices") => Some(Node::Choices),
            (Node::Top, b"usage") => Some(Node::Usage),
            _ => None,
        }
    }

    fn element(node: Node) -> Option<Node> {
        (node == Node::Choices).then_some(Node::Choice)
    }
}
