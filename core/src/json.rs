//! Push scanner of JSON.
//!
//! In: a document in pieces, cut at any byte. Out: the values under the paths that a [`Schema`] wants, in their order.
//! It keeps no tree: what is not wanted is stepped over by byte search, at any depth in constant memory.
//! It never allocates, but for a wanted string or key that has an escape or was cut ([`MAX_TEXT`] bytes at most).

mod block;
mod find;
mod literal;
mod number;
mod skip;
mod spans;
mod text;

use find::quote_or_backslash;
use literal::Literal;
pub use number::Number;
use number::{Digits, Phase};
use skip::Skip;
pub use spans::{Edge, Spans};
use text::{Carry, cut};

/// Wanted containers may lie this deep in each other; what is deeper is skipped.
pub const MAX_DEPTH: usize = 16;
/// A key with more bytes (without its escapes) is not wanted.
pub const MAX_KEY: usize = 64;
/// A wanted text is cut here, or up to three bytes before, so that no character is split.
pub const MAX_TEXT: usize = 1024;

/// Which paths of a document are wanted: pure functions over small ids.
pub trait Schema {
    /// A position in the wanted tree.
    type Node: Copy + Eq;
    /// The position of the document's top-level value.
    fn root() -> Self::Node;
    /// What stands under `key` of an object at `node`; `None`: not wanted, skip it.
    fn key(node: Self::Node, key: &[u8]) -> Option<Self::Node>;
    /// What the elements of an array at `node` are; `None`: not wanted, skip them.
    fn element(node: Self::Node) -> Option<Self::Node>;
}

/// A value at a wanted position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value<'a> {
    /// `{` was read. What is wanted of its inside follows, then [`Value::End`] with the same node.
    Object,
    /// `[` was read. What is wanted of its inside follows, then [`Value::End`] with the same node.
    Array,
    /// The object or array at this node closes.
    End,
    /// A string without its escapes, cut at [`MAX_TEXT`]. A lone surrogate is U+FFFD; bytes that are not UTF-8 stay.
    Text(&'a [u8]),
    /// A number.
    Number(Number),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found<'a, N> {
    /// The position, as [`Schema`] named it.
    pub node: N,
    /// What stands there.
    pub value: Value<'a>,
}

/// How far the document is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Nothing but white space so far.
    Empty,
    /// Inside the top-level value.
    Open,
    /// One whole top-level value was read, and nothing but white space after it.
    Complete,
    /// This is not JSON; the rest is ignored until [`Scanner::reset`].
    Broken,
}

/// Scans one document after the other; see the module.
pub struct Scanner<S: Schema> {
    mode: Mode<S::Node>,
    /// The wanted containers around the current position, the innermost last; the first `depth` are in use.
    frames: [Frame<S::Node>; MAX_DEPTH],
    depth: usize,
    /// What [`Mode::InNumber`], [`Mode::InLiteral`] and [`Mode::Skip`] are in: beside the mode, which is read at each step.
    digits: Digits,
    literal: Literal,
    skip: Skip,
    carry: Carry,
}

impl<S: Schema> Default for Scanner<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Schema> Scanner<S> {
    /// A scanner before a document's first byte.
    #[must_use]
    pub fn new() -> Self {
        let unused = Frame { node: S::root(), array: false };
        Self {
            mode: Mode::Start,
            frames: [unused; MAX_DEPTH],
            depth: 0,
            digits: Digits::start(b'0'),
            literal: Literal::from(b'n'),
            skip: Skip::Scalar,
            carry: Carry::default(),
        }
    }

    /// Forgets the document; the next byte is another one's first.
    pub fn reset(&mut self) {
        self.mode = Mode::Start;
        self.depth = 0;
    }

    /// How far the document is.
    #[must_use]
    pub fn state(&self) -> State {
        match self.mode {
            Mode::Start => State::Empty,
            Mode::Complete => State::Complete,
            Mode::Broken => State::Broken,
            _ => State::Open,
        }
    }

    /// Consumes from the front of `input` up to the next wanted value.
    ///
    /// `None`: all of `input` is used up, feed more. A number is found when the byte behind it is seen: a document that
    /// is a bare number needs [`Scanner::finish`].
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Found<'a, S::Node>> {
        while !input.is_empty() {
            match self.step(input) {
                Step::On => {}
                Step::Found(node, value) => return Some(Found { node, value }),
                Step::Carried(node) => return Some(Found { node, value: Value::Text(self.carry.bytes()) }),
            }
        }
        None
    }

    /// The input has ended: a top-level number that only waited for a byte behind it is found now.
    pub fn finish(&mut self) -> Option<Found<'_, S::Node>> {
        let Mode::InNumber(node) = self.mode else { return None };
        if self.depth > 0 {
            return None;
        }
        if !self.digits.may_end() {
            self.mode = Mode::Broken;
            return None;
        }
        self.mode = Mode::Complete;
        Some(Found { node, value: Value::Number(self.digits.number()) })
    }

    /// Where it is, if that is behind a value inside of containers: decided by the document's bytes so far.
    #[must_use]
    pub fn mark(&self) -> Option<Mark<S::Node>> {
        let is_behind = matches!(self.mode, Mode::AfterValue);
        is_behind.then_some(Mark { frames: self.frames, depth: self.depth })
    }

    /// Goes where it was when the mark was made, after the same bytes.
    pub fn go_to(&mut self, mark: &Mark<S::Node>) {
        self.mode = Mode::AfterValue;
        self.frames = mark.frames;
        self.depth = mark.depth;
    }

    /// Goes to the end of a document whose bytes are known to make a whole one.
    pub fn go_to_end(&mut self) {
        self.mode = Mode::Complete;
        self.depth = 0;
    }

    fn step<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        match self.mode {
            Mode::Skip => self.skip(input),
            Mode::InKey | Mode::InText(_) => self.carried_string(input),
            Mode::InNumber(node) => self.number(node, input),
            Mode::InLiteral(node) => self.literal(node, input),
            Mode::Broken => {
                *input = &[];
                Step::On
            }
            _ => self.token(input),
        }
    }

    /// Between strings, numbers and literals every byte that is no white space means something by itself.
    fn token<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        let Some(byte) = next_token(input) else { return Step::On };
        match (self.mode, byte) {
            (Mode::Start, _) => self.value(Some(S::root()), byte, input),
            (Mode::FirstElement(_), b']') | (Mode::FirstKey, b'}') => self.close(),
            (Mode::Value(node) | Mode::FirstElement(node), _) => self.value(node, byte, input),
            (Mode::FirstKey | Mode::Key, b'"') => self.key(input),
            (Mode::Colon(node), b':') => self.value_after(node, input),
            (Mode::AfterValue, _) => self.after_value(byte, input),
            _ => self.go(Mode::Broken),
        }
    }

    fn go<'i>(&mut self, mode: Mode<S::Node>) -> Step<'i, S::Node> {
        self.mode = mode;
        Step::On
    }

    /// Behind a colon or comma: the value, if it has come already.
    fn value_after<'i>(&mut self, node: Option<S::Node>, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        match next_token(input) {
            Some(byte) => self.value(node, byte, input),
            None => self.go(Mode::Value(node)),
        }
    }

    fn value<'i>(&mut self, node: Option<S::Node>, byte: u8, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        let Some(node) = node else { return self.unwanted(byte, input) };
        match byte {
            b'"' => self.text(node, input),
            b'{' => self.open(node, false, input),
            b'[' => self.open(node, true, input),
            b'-' | b'0'..=b'9' => {
                self.digits = Digits::start(byte);
                self.number(node, input)
            }
            b't' | b'f' | b'n' => {
                self.literal = Literal::from(byte);
                self.literal(node, input)
            }
            _ => self.go(Mode::Broken),
        }
    }

    fn unwanted<'i>(&mut self, byte: u8, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        let Some(skip) = Skip::from(byte) else { return self.go(Mode::Broken) };
        self.skip = skip;
        self.skip(input)
    }

    fn skip<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        if self.skip.run(input) {
            self.value_over();
        } else {
            self.mode = Mode::Skip;
        }
        Step::On
    }

    fn open<'i>(&mut self, node: S::Node, array: bool, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        let Some(frame) = self.frames.get_mut(self.depth) else {
            return self.unwanted(if array { b'[' } else { b'{' }, input);
        };
        *frame = Frame { node, array };
        self.depth += 1;
        if array {
            self.mode = Mode::FirstElement(S::element(node));
            return Step::Found(node, Value::Array);
        }
        self.mode = Mode::FirstKey;
        Step::Found(node, Value::Object)
    }

    fn close<'i>(&mut self) -> Step<'i, S::Node> {
        let Some(frame) = self.frame() else { return self.go(Mode::Broken) };
        self.depth -= 1;
        self.value_over();
        Step::Found(frame.node, Value::End)
    }

    fn frame(&self) -> Option<Frame<S::Node>> {
        self.frames.get(self.depth.checked_sub(1)?).copied()
    }

    fn value_over(&mut self) {
        self.mode = if self.depth == 0 { Mode::Complete } else { Mode::AfterValue };
    }

    fn after_value<'i>(&mut self, byte: u8, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        let Some(Frame { node, array }) = self.frame() else { return self.go(Mode::Broken) };
        match byte {
            b',' if array => self.value_after(S::element(node), input),
            b',' => match next_token(input) {
                Some(b'"') => self.key(input),
                Some(_) => self.go(Mode::Broken),
                None => self.go(Mode::Key),
            },
            b']' if array => self.close(),
            b'}' if !array => self.close(),
            _ => self.go(Mode::Broken),
        }
    }

    fn key<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        let Some(key) = whole_string(input) else {
            self.carry.start(MAX_KEY);
            return self.go(Mode::InKey);
        };
        let wanted = if key.len() > MAX_KEY { None } else { self.wanted(key) };
        match next_token(input) {
            Some(b':') => self.value_after(wanted, input),
            Some(_) => self.go(Mode::Broken),
            None => self.go(Mode::Colon(wanted)),
        }
    }

    fn wanted(&self, key: &[u8]) -> Option<S::Node> {
        S::key(self.frame()?.node, key)
    }

    fn text<'i>(&mut self, node: S::Node, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        let Some(text) = whole_string(input) else {
            self.carry.start(MAX_TEXT);
            return self.go(Mode::InText(node));
        };
        self.value_over();
        Step::Found(node, Value::Text(cut(text, MAX_TEXT)))
    }

    fn carried_string<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        match (self.carry.feed(input), self.mode) {
            (Phase::More, _) => Step::On,
            (Phase::Over, Mode::InText(node)) => {
                self.value_over();
                Step::Carried(node)
            }
            (Phase::Over, Mode::InKey) => {
                let wanted = if self.carry.is_full() { None } else { self.wanted(self.carry.bytes()) };
                self.go(Mode::Colon(wanted))
            }
            _ => self.go(Mode::Broken),
        }
    }

    fn number<'i>(&mut self, node: S::Node, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        match self.digits.feed(input) {
            Phase::More => self.go(Mode::InNumber(node)),
            Phase::Bad => self.go(Mode::Broken),
            Phase::Over => {
                self.value_over();
                Step::Found(node, Value::Number(self.digits.number()))
            }
        }
    }

    fn literal<'i>(&mut self, node: S::Node, input: &mut &'i [u8]) -> Step<'i, S::Node> {
        match self.literal.feed(input) {
            Phase::More => self.go(Mode::InLiteral(node)),
            Phase::Bad => self.go(Mode::Broken),
            Phase::Over => {
                self.value_over();
                Step::Found(node, self.literal.value())
            }
        }
    }
}

/// The next byte that is no white space, taken from `input`.
fn next_token(input: &mut &[u8]) -> Option<u8> {
    while let Some((&byte, rest)) = input.split_first() {
        *input = rest;
        if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            return Some(byte);
        }
    }
    None
}

/// The rest of a string and its quote, taken from `input`; `None` and nothing taken if it has an escape or is cut.
fn whole_string<'i>(input: &mut &'i [u8]) -> Option<&'i [u8]> {
    let end = quote_or_backslash(input)?;
    let (text, rest) = input.split_at_checked(end)?;
    *input = rest.strip_prefix(b"\"")?;
    Some(text)
}

enum Step<'i, N> {
    /// Nothing to tell yet.
    On,
    Found(N, Value<'i>),
    /// A text was found; it lies in the carry.
    Carried(N),
}

#[derive(Clone, Copy, Debug)]
struct Frame<N> {
    node: N,
    array: bool,
}

/// A place in a document that a [`Scanner`] can go back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark<N> {
    frames: [Frame<N>; MAX_DEPTH],
    depth: usize,
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
    /// In a key or text whose beginning lies in the carry.
    InKey,
    InText(N),
    InNumber(N),
    InLiteral(N),
    Skip,
    Complete,
    Broken,
}
