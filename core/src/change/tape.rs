//! Bytes that pass, with parts held back, dropped or put in.
//!
//! In: pieces, and what is to happen where in them. Out: what goes on instead of each piece; `None` if that is the piece
//! itself. It knows no format, and holds no more than its user lets it.

use alloc::vec::Vec;

/// What is kept from piece to piece.
#[derive(Debug, Default)]
pub(super) struct Tape {
    held: Vec<u8>,
    is_holding: bool,
}

/// One piece on its way.
pub(super) struct Pass<'a> {
    tape: &'a mut Tape,
    piece: &'a [u8],
    out: Vec<u8>,
    /// Up to here the piece was written to `out`, or dropped.
    done: usize,
    /// Where in this piece the hold began; 0 if in an earlier one.
    mark: usize,
    is_changed: bool,
}

impl Tape {
    pub(super) const fn pass<'a>(&'a mut self, piece: &'a [u8]) -> Pass<'a> {
        Pass { tape: self, piece, out: Vec::new(), done: 0, mark: 0, is_changed: false }
    }
}

impl Pass<'_> {
    /// From `at` on bytes are held back.
    pub(super) const fn hold(&mut self, at: usize) {
        self.mark = at;
        self.tape.is_holding = true;
    }

    pub(super) const fn is_holding(&self) -> bool {
        self.tape.is_holding
    }

    /// Held bytes, if the hold went up to `to`.
    pub(super) fn held(&self, to: usize) -> usize {
        self.tape.held.len() + to.saturating_sub(self.mark)
    }

    /// What is held, up to `to`.
    pub(super) fn held_bytes(&self, to: usize) -> Vec<u8> {
        let mut bytes = self.tape.held.clone();
        bytes.extend_from_slice(self.part(self.mark, to));
        bytes
    }

    /// What is held goes on as it is.
    pub(super) fn release(&mut self) {
        self.tape.is_holding = false;
        if !self.tape.held.is_empty() {
            // The hold began in an earlier piece: nothing of this one has been written.
            self.out.append(&mut self.tape.held);
            self.is_changed = true;
        }
    }

    /// What is held, up to `to`, is dropped; `with` goes instead.
    pub(super) fn replace(&mut self, to: usize, with: &[u8]) {
        self.write_to(self.mark);
        self.tape.is_holding = false;
        self.tape.held.clear();
        self.out.extend_from_slice(with);
        self.done = to;
        self.is_changed = true;
    }

    /// Puts `text` in at `at`.
    pub(super) fn insert(&mut self, at: usize, text: &[u8]) {
        self.write_to(at);
        self.out.extend_from_slice(text);
        self.is_changed = true;
    }

    /// The piece is over.
    pub(super) fn end(mut self) -> Option<Vec<u8>> {
        if self.tape.is_holding {
            self.write_to(self.mark);
            let kept = self.piece.get(self.done.max(self.mark)..).unwrap_or_default();
            self.is_changed |= !kept.is_empty();
            self.tape.held.extend_from_slice(kept);
        } else if self.is_changed {
            self.write_to(self.piece.len());
        }
        self.is_changed.then_some(self.out)
    }

    fn write_to(&mut self, at: usize) {
        if let Some(part) = self.piece.get(self.done..at) {
            self.out.extend_from_slice(part);
            self.done = at;
        }
    }

    fn part(&self, from: usize, to: usize) -> &[u8] {
        self.piece.get(from..to).unwrap_or_default()
    }
}
