//! Steps over a value that nobody wants.
//!
//! In: the bytes behind the value's first. Out: where it is over. Containers are counted by their own kind of bracket
//! outside strings, so nesting costs no memory; the inside is not checked.

use memchr::memchr3;

use super::block::{BLOCK, escaped as escaped_in, quotes_and_backslashes};
use super::find::quote;

/// A value that is being skipped.
#[derive(Clone, Copy)]
pub(super) enum Skip {
    /// In an object or array, outside strings.
    Container(Container),
    /// In a string of this container; `escaped`: its last byte was a backslash that takes the next byte with it.
    Text { container: Container, escaped: bool },
    /// In a number or literal.
    Scalar,
}

/// Containers of the same kind around the position; `depth` 0: none, the value is a bare string.
#[derive(Clone, Copy)]
pub(super) struct Container {
    open: u8,
    close: u8,
    depth: u64,
}

impl Skip {
    /// By the value's first byte; `None`: no value begins so.
    pub(super) const fn from(byte: u8) -> Option<Self> {
        Some(match byte {
            b'{' => Self::Container(Container { open: b'{', close: b'}', depth: 1 }),
            b'[' => Self::Container(Container { open: b'[', close: b']', depth: 1 }),
            b'"' => Self::Text { container: Container { open: b'"', close: b'"', depth: 0 }, escaped: false },
            // Python writes NaN and Infinity, as in the log-probabilities of some servers.
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b'N' | b'I' => Self::Scalar,
            _ => return None,
        })
    }

    /// Takes the value's bytes from `input`. True: it is over, the rest is not its. False: `input` is used up.
    pub(super) fn run(&mut self, input: &mut &[u8]) -> bool {
        loop {
            let over = match self {
                Self::Container(_) => self.container(input),
                Self::Text { .. } => self.text(input),
                Self::Scalar => {
                    let end = input.iter().position(|byte| !is_scalar(*byte));
                    *input = end.and_then(|end| input.get(end..)).unwrap_or_default();
                    end.is_some()
                }
            };
            if over || input.is_empty() {
                return over;
            }
        }
    }

    /// Up to the container's end (true), the next string, or the end of the input.
    fn container(&mut self, input: &mut &[u8]) -> bool {
        let Self::Container(container) = self else { return false };
        while let Some(byte) = take_to(memchr3(b'"', container.open, container.close, input), input) {
            if byte == b'"' {
                *self = Self::Text { container: *container, escaped: false };
                return false;
            }
            if byte == container.open {
                container.depth += 1;
                continue;
            }
            container.depth -= 1;
            if container.depth == 0 {
                return true;
            }
        }
        false
    }

    /// Up to the string's end or the end of the input; true if the string was the value.
    ///
    fn text(&mut self, input: &mut &[u8]) -> bool {
        let Self::Text { container, escaped } = self else { return false };
        if !(blocks(escaped, input) || last_bytes(escaped, input)) {
            return false;
        }
        let container = *container;
        *self = Self::Container(container);
        container.depth == 0
    }
}

/// Goes on in a string as far as whole blocks go. True: up to its end.
fn blocks(escaped: &mut bool, input: &mut &[u8]) -> bool {
    while let Some((block, rest)) = input.split_first_chunk::<BLOCK>() {
        let (quotes, backslashes) = quotes_and_backslashes(block);
        let (taken, carry) = escaped_in(backslashes, *escaped);
        let ends = quotes & !taken;
        if ends != 0 {
            *input = input.get(ends.trailing_zeros() as usize + 1..).unwrap_or_default();
            return true;
        }
        *escaped = carry;
        *input = rest;
    }
    false
}

/// Goes on in a string to its end (true) or to the end of the input, by its quotes: one is the string's end unless the
/// backslashes before it are odd in number.
fn last_bytes(escaped: &mut bool, input: &mut &[u8]) -> bool {
    while !input.is_empty() {
        if core::mem::take(escaped) {
            *input = input.get(1..).unwrap_or_default();
        }
        let end = quote(input);
        let Some((text, rest)) = input.split_at_checked(end.unwrap_or(input.len())) else { return false };
        *escaped = is_escaping(text);
        if end.is_some() && !*escaped {
            *input = rest.get(1..).unwrap_or_default();
            return true;
        }
        *input = rest;
    }
    false
}

/// Takes from `input` up to and with the byte at `at`, which is given; all of it if there is none.
fn take_to(at: Option<usize>, input: &mut &[u8]) -> Option<u8> {
    let found = at.and_then(|at| input.get(at..)).and_then(<[u8]>::split_first);
    *input = found.map_or(&[], |(_, rest)| rest);
    found.map(|(byte, _)| *byte)
}

/// Whether the byte behind this is escaped: the backslashes at its end are odd in number.
fn is_escaping(text: &[u8]) -> bool {
    text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

const fn is_scalar(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.')
}
