//! Reads only the wanted series of a page, as its pieces come.
//!
//! In: pieces of a page, cut anywhere. Out: each wanted sample, or that a wanted line is broken.
//! It never looks into an unwanted line, never allocates for a line that lies in one piece, and never holds more than one
//! line of [`MAX_LINE_BYTES`].

use alloc::string::String;
use alloc::vec::Vec;

use memchr::memchr;

use super::sample::{self, Sample};
use super::spec::Spec;

/// A line longer than this is broken if it is wanted. A thousand LoRA adapters in one label take half of it.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// Wanted series of one selector; the rest is not read.
pub const MAX_SPECS: usize = 32;

/// Even a line this short is kept, so that a last `# EOF` is seen for what it is.
const SHORTEST_KEPT: usize = 8;

/// What to read, prepared once for many pages.
#[derive(Clone, Debug)]
pub struct Selector {
    specs: Vec<Spec>,
    /// Names in the order of their first spec, with the specs that have them, one bit each.
    names: Vec<(String, u32)>,
    /// What all names begin with.
    common: String,
    /// Length of the longest name: a begun line of more bytes is wanted or not.
    longest: usize,
}

/// A wanted line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found<'a> {
    /// It begins with a wanted name and is not a sample.
    Broken,
    /// A sample of at least one spec.
    Sample(Sample<'a>, Matches),
}

/// The specs that a sample belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matches(u32);

impl Matches {
    /// Indices of the specs, in the order of the selector.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_SPECS).filter(move |index| (self.0 >> index) & 1 == 1)
    }
}

impl Selector {
    /// From the wanted series; those beyond [`MAX_SPECS`] are not read.
    #[must_use]
    pub fn new(specs: impl IntoIterator<Item = Spec>) -> Self {
        let specs: Vec<Spec> = specs.into_iter().take(MAX_SPECS).collect();
        let mut names: Vec<(String, u32)> = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            match names.iter_mut().find(|(name, _)| *name == spec.name) {
                Some((_, bits)) => *bits |= 1 << index,
                None => names.push((spec.name.clone(), 1 << index)),
            }
        }
        let first = names.first().map_or("", |(name, _)| name.as_str());
        let shared = |name: &str| first.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        let common = names.iter().map(|(name, _)| shared(name)).min().unwrap_or_default();
        let common = first.get(..common).unwrap_or_default().into();
        let longest = names.iter().map(|(name, _)| name.len()).max().unwrap_or_default().max(SHORTEST_KEPT);
        Self { specs, names, common, longest }
    }

    /// Specs that the line may belong to by its name; `line` may go on behind the line feed.
    fn by_name(&self, line: &[u8]) -> u32 {
        if !line.starts_with(self.common.as_bytes()) {
            return 0;
        }
        let is_it =
            |name: &str| line.starts_with(name.as_bytes()) && matches!(line.get(name.len()), Some(b'{' | b' ' | b'\t'));
        self.names.iter().find(|(name, _)| is_it(name)).map_or(0, |(_, bits)| *bits)
    }

    /// The line as a sample of the specs in `bits` whose labels fit; nothing if none fits.
    fn read<'a>(&self, line: &'a [u8], bits: u32) -> Option<Found<'a>> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(sample) = core::str::from_utf8(line).ok().and_then(sample::read) else { return Some(Found::Broken) };
        let mut fitting = bits;
        for (index, spec) in self.specs.iter().enumerate() {
            let fits = |(key, value): &(String, String)| sample.labels.find(key).is_some_and(|found| found == *value);
            if (bits >> index) & 1 == 1 && !spec.labels.iter().all(fits) {
                fitting &= !(1 << index);
            }
        }
        (fitting != 0).then_some(Found::Sample(sample, Matches(fitting)))
    }
}

/// Reads one page.
#[derive(Debug)]
pub struct Reader<'s> {
    selector: &'s Selector,
    /// The begun line that was cut by the end of a piece; empty between lines.
    carry: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `carry` was handed out by the last call.
    Handed,
    /// At the begin of a line, or inside the one in `carry`.
    Reading,
    /// Inside a line nobody wants.
    Skipping,
}

impl<'s> Reader<'s> {
    /// At the begin of a page.
    #[must_use]
    pub const fn new(selector: &'s Selector) -> Self {
        Self { selector, carry: Vec::new(), state: State::Reading }
    }

    /// The next wanted line; takes what it read off `piece`. Nothing: the piece is used up, go on with the next one.
    pub fn next<'a, 'p: 'a>(&'a mut self, piece: &mut &'p [u8]) -> Option<Found<'a>> {
        if self.state == State::Handed {
            self.carry.clear();
            self.state = State::Reading;
        }
        loop {
            if self.state == State::Skipping {
                *piece = after_line(piece)?;
                self.state = State::Reading;
            }
            if !self.carry.is_empty() {
                if !self.complete(piece)? {
                    self.carry.clear();
                    self.state = State::Skipping;
                    return Some(Found::Broken);
                }
                let bits = self.selector.by_name(&self.carry);
                // Read twice, once for each piece at most: the borrow checker can't follow a loan that is only
                // sometimes returned.
                if bits != 0 && self.selector.read(&self.carry, bits).is_some() {
                    self.state = State::Handed;
                    return self.selector.read(&self.carry, bits);
                }
                self.carry.clear();
                continue;
            }
            let line = *piece;
            let bits = self.selector.by_name(line);
            let Some(end) = memchr(b'\n', line) else {
                self.carry.extend_from_slice(line.get(..MAX_LINE_BYTES + 1).unwrap_or(line));
                *piece = &[];
                self.skip_if_unwanted();
                return None;
            };
            *piece = line.get(end + 1..).unwrap_or_default();
            if bits != 0
                && let Some(found) = line.get(..end).and_then(|line| self.selector.read(line, bits))
            {
                return Some(found);
            }
        }
    }

    /// The page is over: true if it ended inside a line. Half a number is no number, half a page no page.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        match self.state {
            State::Handed => false,
            // An OpenMetrics page may end in `# EOF` without a line feed.
            State::Reading => !self.carry.is_empty() && !self.carry.starts_with(b"#"),
            State::Skipping => true,
        }
    }

    /// Adds to the begun line up to its end: true once it is whole, false once it is too long; nothing if the piece is
    /// used up before.
    fn complete(&mut self, piece: &mut &[u8]) -> Option<bool> {
        let end = memchr(b'\n', piece);
        let head = piece.get(..end.unwrap_or(piece.len())).unwrap_or_default();
        if self.carry.len() + head.len() > MAX_LINE_BYTES {
            // Only a wanted line is kept for so long. Its line feed is still to come, so it is skipped from here on.
            return Some(false);
        }
        self.carry.extend_from_slice(head);
        *piece = end.and_then(|end| piece.get(end + 1..)).unwrap_or_default();
        if end.is_none() {
            self.skip_if_unwanted();
            return None;
        }
        Some(true)
    }

    /// Once the name is complete, an unwanted line need not be kept.
    fn skip_if_unwanted(&mut self) {
        if self.carry.len() > self.selector.longest && self.selector.by_name(&self.carry) == 0 {
            self.carry.clear();
            self.state = State::Skipping;
        }
    }
}

/// What follows the line feed; takes all if there is none.
fn after_line<'a>(piece: &mut &'a [u8]) -> Option<&'a [u8]> {
    let found = memchr(b'\n', piece).and_then(|end| piece.get(end + 1..));
    if found.is_none() {
        *piece = &[];
    }
    found
}
