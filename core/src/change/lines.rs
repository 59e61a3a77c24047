//! An event stream as lines, for those who change it: what is data, where events end.
//!
//! In: the stream in pieces, cut at any byte. Out: parts in their order; the caller knows the place by what is left of the
//! piece. The same grammar as `sse.rs`, which does not tell where a line begins. It keeps nothing but its state.

use memchr::memchr2;

/// What comes next in the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part<'a> {
    /// A field's line begins: the next byte is its first. Comments are not reported.
    Line,
    /// The next bytes of a data line's value.
    Data(&'a [u8]),
    /// A blank line was read.
    Blank,
    /// The LF behind the CR of the last line was read.
    LateLf,
}

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    place: Place,
    after_cr: bool,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many bytes of a byte order mark have come.
    Bom(usize),
    Start,
    /// At the first byte of a reported line.
    Begun,
    /// So many bytes of `data` have come.
    Name(usize),
    /// Behind the colon.
    Space,
    Data,
    Other,
}

const BOM: &[u8] = b"\xef\xbb\xbf";
const DATA: &[u8] = b"data";

impl Lines {
    pub(super) const fn new() -> Self {
        Self { place: Place::Bom(0), after_cr: false }
    }

    /// Consumes from the front of `input` up to the next part. `None`: all of `input` is used up.
    pub(super) fn next<'i>(&mut self, input: &mut &'i [u8]) -> Option<Part<'i>> {
        while let Some((&byte, rest)) = input.split_first() {
            match self.place {
                Place::Bom(seen) if BOM.get(seen) == Some(&byte) => {
                    *input = rest;
                    self.place = if seen + 1 == BOM.len() { Place::Start } else { Place::Bom(seen + 1) };
                }
                Place::Bom(seen) => self.place = if seen == 0 { Place::Start } else { Place::Other },
                Place::Start => {
                    if let Some(part) = self.start(byte, rest, input) {
                        return Some(part);
                    }
                }
                Place::Begun => self.place = Place::Name(0),
                Place::Name(seen) if DATA.get(seen) == Some(&byte) => {
                    *input = rest;
                    self.place = Place::Name(seen + 1);
                }
                Place::Name(seen) if seen == DATA.len() && byte == b':' => {
                    *input = rest;
                    self.place = Place::Space;
                }
                Place::Name(_) => self.place = Place::Other,
                Place::Space => {
                    self.place = Place::Data;
                    if byte == b' ' {
                        *input = rest;
                    }
                }
                Place::Data | Place::Other if matches!(byte, b'\r' | b'\n') => {
                    *input = rest;
                    self.after_cr = byte == b'\r';
                    self.place = Place::Start;
                }
                Place::Data => return Some(Part::Data(text(input))),
                Place::Other => {
                    text(input);
                }
            }
        }
        None
    }

    /// The first byte of a line, or a LF that belongs to the line before.
    fn start<'i>(&mut self, byte: u8, rest: &'i [u8], input: &mut &'i [u8]) -> Option<Part<'i>> {
        let after_cr = core::mem::take(&mut self.after_cr);
        match byte {
            b'\n' if after_cr => {
                *input = rest;
                Some(Part::LateLf)
            }
            b'\r' | b'\n' => {
                *input = rest;
                self.after_cr = byte == b'\r';
                Some(Part::Blank)
            }
            b':' => {
                self.place = Place::Other;
                None
            }
            _ => {
                self.place = Place::Begun;
                Some(Part::Line)
            }
        }
    }
}

/// Up to the line's end, which stays.
fn text<'i>(input: &mut &'i [u8]) -> &'i [u8] {
    let end = memchr2(b'\r', b'\n', input).unwrap_or(input.len());
    let (text, rest) = input.split_at_checked(end).unwrap_or_default();
    *input = rest;
    text
}
