//! The usual event of a stream: most events differ from the one before only in their text.
//!
//! In: events that were scanned whole, to learn from. Out: for an event that begins with the same bytes, where its text and
//! its rest are, and where the scanner would be behind the text. A scanner's place is decided by the bytes before it and by
//! nothing else, so going there at once is the same as reading them again; only faster.

use alloc::vec::Vec;

use wide::u8x16;

use crate::document::Plain;
use crate::json::Mark;
use crate::schema::AnswerNode;

/// Bytes of an event that are kept, without its text.
const MAX_KEPT: usize = 1024;
/// A stream whose events keep changing is not learned any more.
const MAX_LEARNED: u32 = 32;

/// See the file's head.
#[derive(Default)]
pub(crate) struct Usual {
    /// Up to and with the quote before the text; empty: nothing is learned.
    front: Vec<u8>,
    /// Behind the text's closing quote, to the document's end; empty: not known, or it says something of its own.
    back: Vec<u8>,
    mark: Option<Mark<AnswerNode>>,
    /// What the document said before its text.
    before: Plain,
    learned: u32,
}

/// An event that begins as usual.
pub(crate) struct Hit<'u, 'd> {
    /// Where the scanner is behind the text.
    pub mark: &'u Mark<AnswerNode>,
    /// What the document said before its text.
    pub before: Plain,
    /// Its text.
    pub text: &'d [u8],
    /// What stands behind the text.
    pub rest: &'d [u8],
    /// The rest is the usual one, too: it says nothing, and the document is over.
    pub is_over: bool,
}

/// The last text of a document that is being learned.
pub(crate) struct Candidate {
    /// Where the scanner was behind it.
    pub mark: Mark<AnswerNode>,
    /// What the document said before it.
    pub before: Plain,
    /// Bytes of the text.
    pub text_len: usize,
    /// Bytes of the document behind its closing quote.
    pub rest_len: usize,
    /// They say nothing, whatever the text.
    pub is_silent: bool,
}

impl Usual {
    /// Finds the text of a document that begins as usual. A text with an escape is none of these.
    pub(crate) fn find<'u, 'd>(&'u self, document: &'d [u8]) -> Option<Hit<'u, 'd>> {
        let mark = self.mark.as_ref()?;
        let (front, behind) = document.split_at_checked(self.front.len())?;
        if !is_equal(front, &self.front) {
            return None;
        }
        let end = memchr::memchr2(b'"', b'\\', behind)?;
        let (text, rest) = behind.split_at_checked(end)?;
        let rest = rest.strip_prefix(b"\"")?;
        let is_over = !self.back.is_empty() && is_equal(rest, &self.back);
        Some(Hit { mark, before: self.before, text, rest, is_over })
    }

    /// Whether it pays to learn from the next document.
    pub(crate) const fn is_learning(&self) -> bool {
        self.learned < MAX_LEARNED
    }

    /// Learns from a document that was scanned whole.
    pub(crate) fn learn(&mut self, document: &[u8], candidate: Candidate) {
        self.learned += 1;
        let Candidate { mark, before, text_len, rest_len, is_silent } = candidate;
        let Some(front_len) = document.len().checked_sub(rest_len + 1 + text_len) else { return };
        let (Some(front), Some(back)) = (document.get(..front_len), document.get(document.len() - rest_len..)) else {
            return;
        };
        let text = document.get(front_len..front_len + text_len).unwrap_or_default();
        if !is_whole(front, text) || front.len() + back.len() > MAX_KEPT {
            return;
        }
        self.front.clear();
        self.front.extend_from_slice(front);
        self.back.clear();
        if is_silent {
            self.back.extend_from_slice(back);
        }
        self.mark = Some(mark);
        self.before = before;
    }
}

/// Whether both are the same, by vectors: wasm's own comparison goes byte by byte.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let ((vectors, rest), (other_vectors, other_rest)) = (one.as_chunks::<16>(), other.as_chunks::<16>());
    let are_same = |(one, other): (&[u8; 16], &[u8; 16])| u8x16::new(*one) == u8x16::new(*other);
    one.len() == other.len() && vectors.iter().zip(other_vectors).all(are_same) && rest.iter().eq(other_rest)
}

/// Whether this is all of a text: one with escapes, or a cut one, is longer in the document than what was found of it, so
/// `front` ends inside of it, before or in its last escape.
fn is_whole(front: &[u8], text: &[u8]) -> bool {
    front.ends_with(b"\"") && memchr::memchr2(b'"', b'\\', text).is_none()
}
