//! Where wanted values begin and end in a document: for those who change it.
//!
//! In: a document in pieces, cut at any byte. Out: the edges of the values under the paths that a [`Schema`] wants; the
//! caller knows the place by what is left of the piece. It keeps no value and copies nothing but a key that is cut.

use super::number::Phase;
use super::skip::Skip;
use super::text::Carry;
use super::{MAX_KEY, Schema, State, next_token, whole_string};

/// Wanted containers may lie this deep in each other; deeper ones are wanted values whose inside is not looked at.
const MAX_FRAMES: usize = 4;

/// The beginning or the end of a wanted value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Edge<N> {
    /// Its first byte was read just now.
    Begin {
        /// The position, as the schema named it.
        node: N,
        /// That byte: tells what kind of value it is.
        first: u8,
    },
    /// Its last byte was read: the next byte is not its.
    End {
        /// The position, as the schema named it.
        node: N,
        /// An object or array with nothing in it.
        is_empty: bool,
    },
}

/// Finds the edges of one document after the other; see the file's head.
pub struct Spans<S: Schema> {
    mode: Mode<S::Node>,
    frames: [Option<Frame<S::Node>>; MAX_FRAMES],
    depth: usize,
    carry: Carry,
}

impl<S: Schema> Default for Spans<S> {
    fn default() -> Self {
        Self { mode: Mode::Start, frames: [None; MAX_FRAMES], depth: 0, carry: Carry::default() }
    }
}

impl<S: Schema> Spans<S> {
    /// Forgets the document; the next byte is another one's first.
    pub const fn reset(&mut self) {
        self.mode = Mode::Start;
        self.depth = 0;
    }

    /// How far the document is.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.mode {
            Mode::Start => State::Empty,
            Mode::Complete => State::Complete,
            Mode::Broken => State::Broken,
            _ => State::Open,
        }
    }

    /// Consumes from the front of `input` up to the next edge. `None`: all of `input` is used up, feed more.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Edge<S::Node>> {
        while !input.is_empty() {
            let edge = match &mut self.mode {
                Mode::Skip(skip, node) => {
                    let node = *node;
                    if skip.run(input) {
                        self.value_over();
                        node.map(|node| Edge::End { node, is_empty: false })
                    } else {
                        None
                    }
                }
                Mode::InKey => self.cut_key(input),
                Mode::Broken => {
                    *input = &[];
                    None
                }
                _ => self.token(input),
            };
            if edge.is_some() {
                return edge;
            }
        }
        None
    }

    fn token(&mut self, input: &mut &[u8]) -> Option<Edge<S::Node>> {
        let byte = next_token(input)?;
        match (self.mode, byte) {
            (Mode::Start, _) => return self.value(Some(S::root()), byte),
            (Mode::FirstElement(_), b']') | (Mode::FirstKey, b'}') => return self.close(true),
            (Mode::Value(node) | Mode::FirstElement(node), _) => return self.value(node, byte),
            (Mode::FirstKey | Mode::Key, b'"') => self.key(input),
            (Mode::Colon(node), b':') => self.mode = Mode::Value(node),
            (Mode::AfterValue, _) => return self.after_value(byte),
            _ => self.mode = Mode::Broken,
        }
        None
    }

    fn value(&mut self, node: Option<S::Node>, byte: u8) -> Option<Edge<S::Node>> {
        let begin = node.map(|node| Edge::Begin { node, first: byte });
        if let (Some(node), b'{' | b'[', Some(frame)) = (node, byte, self.frames.get_mut(self.depth)) {
            let is_array = byte == b'[';
            *frame = Some(Frame { node, is_array });
            self.depth += 1;
            self.mode = if is_array { Mode::FirstElement(S::element(node)) } else { Mode::FirstKey };
            return begin;
        }
        let Some(skip) = Skip::from(byte) else {
            self.mode = Mode::Broken;
            return None;
        };
        self.mode = Mode::Skip(skip, node);
        begin
    }

    fn close(&mut self, is_empty: bool) -> Option<Edge<S::Node>> {
        let frame = self.frame()?;
        self.depth -= 1;
        self.value_over();
        Some(Edge::End { node: frame.node, is_empty })
    }

    fn after_value(&mut self, byte: u8) -> Option<Edge<S::Node>> {
        let Frame { node, is_array } = self.frame()?;
        match byte {
            b',' if is_array => self.mode = Mode::Value(S::element(node)),
            b',' => self.mode = Mode::Key,
            b']' if is_array => return self.close(false),
            b'}' if !is_array => return self.close(false),
            _ => self.mode = Mode::Broken,
        }
        None
    }

    fn key(&mut self, input: &mut &[u8]) {
        self.mode = match whole_string(input) {
            Some(key) if key.len() <= MAX_KEY => Mode::Colon(self.wanted(key)),
            Some(_) => Mode::Colon(None),
            None => {
                self.carry.start(MAX_KEY);
                Mode::InKey
            }
        };
    }

    fn cut_key(&mut self, input: &mut &[u8]) -> Option<Edge<S::Node>> {
        self.mode = match self.carry.feed(input) {
            Phase::More => return None,
            Phase::Over if self.carry.is_full() => Mode::Colon(None),
            Phase::Over => Mode::Colon(self.wanted(self.carry.bytes())),
            Phase::Bad => Mode::Broken,
        };
        None
    }

    fn wanted(&self, key: &[u8]) -> Option<S::Node> {
        S::key(self.frame()?.node, key)
    }

    fn frame(&self) -> Option<Frame<S::Node>> {
        self.frames.get(self.depth.checked_sub(1)?).copied().flatten()
    }

    fn value_over(&mut self) {
        self.mode = if self.depth == 0 { Mode::Complete } else { Mode::AfterValue };
    }
}

#[derive(Clone, Copy)]
struct Frame<N> {
    node: N,
    is_array: bool,
}

/// What is due next. A `None` node is a value that is not wanted.
#[derive(Clone, Copy)]
enum Mode<N> {
    Start,
    Value(Option<N>),
    /// A value, or the end of an empty array.
    FirstElement(Option<N>),
    /// A key, or the end of an empty object.
    FirstKey,
    Key,
    Colon(Option<N>),
    AfterValue,
    /// In a key whose beginning lies in the carry.
    InKey,
    Skip(Skip, Option<N>),
    Complete,
    Broken,
}
