//! Strings that are cut or have escapes: kept, without the escapes, up to a bound.
//!
//! In: the bytes behind the opening quote. Out: the text. It is cut on a character boundary where it is too long; what
//! is beyond is still checked. Bytes that are not UTF-8 stay as they are.

use alloc::vec::Vec;

use super::find::quote_or_backslash;
use super::number::Phase;

/// The kept part of the last such string.
#[derive(Default)]
pub(super) struct Carry {
    bytes: Vec<u8>,
    limit: usize,
    fill: Fill,
    escape: Escape,
    /// A high surrogate that waits for its low one.
    high: Option<u16>,
}

#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum Fill {
    /// More would have come; what is here was cut.
    Cut,
    #[default]
    Room,
}

#[derive(Clone, Copy, Default)]
enum Escape {
    /// Behind a backslash.
    Backslash,
    /// Behind `\u`: this many digits are due.
    Hex { due: u8, unit: u16 },
    #[default]
    None,
}

impl Carry {
    /// Empties it for a string of which at most `limit` bytes are kept.
    pub(super) fn start(&mut self, limit: usize) {
        self.bytes.clear();
        *self = Self { bytes: core::mem::take(&mut self.bytes), limit, ..Self::default() };
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Was the string longer than the limit?
    pub(super) fn is_full(&self) -> bool {
        self.fill == Fill::Cut
    }

    /// Takes the string's bytes and its closing quote from `input`.
    pub(super) fn feed(&mut self, input: &mut &[u8]) -> Phase {
        loop {
            let phase = match self.escape {
                Escape::None => self.plain(input),
                Escape::Backslash => self.backslash(input),
                Escape::Hex { due, unit } => self.hex(input, due, unit),
            };
            if phase != Phase::More || input.is_empty() {
                return phase;
            }
        }
    }

    /// Up to the next escape or the closing quote.
    fn plain(&mut self, input: &mut &[u8]) -> Phase {
        let end = quote_or_backslash(input).unwrap_or(input.len());
        let Some((text, rest)) = input.split_at_checked(end) else { return Phase::Bad };
        if !text.is_empty() {
            self.lone_high();
            self.push(text);
        }
        let Some((stop, rest)) = rest.split_first() else {
            *input = &[];
            return Phase::More;
        };
        *input = rest;
        if *stop == b'"' {
            self.lone_high();
            return Phase::Over;
        }
        self.escape = Escape::Backslash;
        Phase::More
    }

    fn backslash(&mut self, input: &mut &[u8]) -> Phase {
        let Some((byte, rest)) = input.split_first() else { return Phase::More };
        *input = rest;
        let text: &[u8] = match byte {
            b'u' => {
                self.escape = Escape::Hex { due: 4, unit: 0 };
                return Phase::More;
            }
            b'"' => b"\"",
            b'\\' => b"\\",
            b'/' => b"/",
            b'b' => b"\x08",
            b'f' => b"\x0c",
            b'n' => b"\n",
            b'r' => b"\r",
            b't' => b"\t",
            _ => return Phase::Bad,
        };
        self.escape = Escape::None;
        self.lone_high();
        self.push(text);
        Phase::More
    }

    fn hex(&mut self, input: &mut &[u8], due: u8, unit: u16) -> Phase {
        let Some((&byte, rest)) = input.split_first() else { return Phase::More };
        *input = rest;
        let Some(digit) = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
            return Phase::Bad;
        };
        let unit = unit << 4 | digit;
        self.escape = Escape::Hex { due: due - 1, unit };
        if due == 1 {
            self.escape = Escape::None;
            self.unit(unit);
        }
        Phase::More
    }

    /// A UTF-16 unit: a character, or half of one.
    fn unit(&mut self, unit: u16) {
        match (self.high.take(), unit) {
            (Some(high), 0xdc00..=0xdfff) => {
                let character = 0x1_0000 + (u32::from(high & 0x3ff) << 10) + u32::from(unit & 0x3ff);
                self.push_char(char::from_u32(character).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (high, 0xd800..=0xdbff) => {
                self.high = high;
                self.lone_high();
                self.high = Some(unit);
            }
            (high, _) => {
                self.high = high;
                self.lone_high();
                self.push_char(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
    }

    fn lone_high(&mut self) {
        if self.high.take().is_some() {
            self.push_char(char::REPLACEMENT_CHARACTER);
        }
    }

    fn push_char(&mut self, character: char) {
        self.push(character.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn push(&mut self, text: &[u8]) {
        if self.fill == Fill::Cut {
            return;
        }
        let room = self.limit - self.bytes.len();
        let Some((kept, lost)) = text.split_at_checked(room) else {
            // Powers of two, so that the capacity stays within the limit.
            let length = self.bytes.len() + text.len();
            self.bytes.reserve_exact(length.next_power_of_two() - self.bytes.len());
            self.bytes.extend_from_slice(text);
            return;
        };
        self.bytes.reserve_exact(kept.len());
        self.bytes.extend_from_slice(kept);
        if let Some(first_lost) = lost.first() {
            self.fill = Fill::Cut;
            let end = boundary(&self.bytes, *first_lost);
            self.bytes.truncate(end);
        }
    }
}

/// `text` without what is beyond `limit`, and without the character that the limit would split.
pub(super) fn cut(text: &[u8], limit: usize) -> &[u8] {
    match text.split_at_checked(limit) {
        Some((kept, [first_lost, ..])) => kept.get(..boundary(kept, *first_lost)).unwrap_or(kept),
        _ => text,
    }
}

/// Where `kept` has to end so that no character is split, if `first_lost` comes behind it.
fn boundary(kept: &[u8], first_lost: u8) -> usize {
    if !is_continuation(first_lost) {
        return kept.len();
    }
    // A character has at most three continuation bytes, so at most two of them and its first byte are in `kept`.
    let tail = kept.iter().rev().take(2).take_while(|byte| is_continuation(**byte)).count();
    kept.len().saturating_sub(tail + 1)
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}
