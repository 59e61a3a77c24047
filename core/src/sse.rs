//! Push reader of event streams, by the WHATWG standard (HTML, 9.2.6 "Interpreting an event stream").
//!
//! In: the stream in pieces, cut at any byte. Out: each event's data as it comes, where events end, comments.
//! It never buffers data: what it keeps is the event's name (up to [`MAX_NAME`] bytes) and a few bytes of state.

use memchr::memchr2;

/// An event's name is cut here.
pub const MAX_NAME: usize = 64;

/// What the stream's next bytes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Piece<'a> {
    /// The next bytes of the current event's data, never empty. Lines of data are joined by a `\n`.
    Data(&'a [u8]),
    /// The event is over, and it had data (perhaps of no bytes). Events without a data line are not reported.
    EventEnd,
    /// A comment line has begun.
    Comment,
}

/// Reads one stream; see the module.
pub struct Reader {
    place: Place,
    /// The last byte was a CR: a LF now belongs to it.
    after_cr: bool,
    data: DataLines,
    name: Name,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// A reader before the stream's first byte.
    #[must_use]
    pub const fn new() -> Self {
        Self { place: Place::Bom(0), after_cr: false, data: DataLines::None, name: Name::new() }
    }

    /// Consumes from the front of `input` up to the next piece. `None`: all of `input` is used up, feed more.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        while let Some(&byte) = input.first() {
            let piece = match self.place {
                Place::Bom(seen) => self.bom(seen, byte, input),
                Place::LineStart => self.line_start(byte, input),
                Place::Field(field) => self.field(field, byte, input),
                Place::Space(value) => self.space(value, byte, input),
                Place::Value(value) => self.value(value, input),
            };
            if piece.is_some() {
                return piece;
            }
        }
        None
    }

    /// The current event's name: what its last `event:` line said so far, up to [`MAX_NAME`] bytes; empty without one.
    ///
    /// Whole at [`Piece::EventEnd`], and kept until the next event's first byte is read.
    #[must_use]
    pub fn event_name(&self) -> &[u8] {
        self.name.bytes()
    }

    /// The stream has ended. True if an event with data was left without the blank line that would have ended it.
    ///
    /// A last line that got no further than its field's name is dropped.
    pub fn finish(&mut self) -> bool {
        core::mem::replace(&mut self.data, DataLines::None) == DataLines::Some
    }

    /// A byte order mark may come before the first line.
    fn bom<'a>(&mut self, seen: usize, byte: u8, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        if BOM.get(seen) != Some(&byte) {
            // A part of a mark is the beginning of a field that nobody knows.
            self.place = if seen == 0 { Place::LineStart } else { Place::Value(Line::Ignored) };
            return None;
        }
        *input = input.get(1..).unwrap_or_default();
        self.place = if seen + 1 == BOM.len() { Place::LineStart } else { Place::Bom(seen + 1) };
        None
    }

    fn line_start<'a>(&mut self, byte: u8, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        if core::mem::take(&mut self.after_cr) && byte == b'\n' {
            *input = input.get(1..).unwrap_or_default();
            return None;
        }
        if self.data == DataLines::Over {
            self.data = DataLines::None;
            self.name.clear();
        }
        match byte {
            b'\r' | b'\n' => {
                self.line_end(input);
                if self.data == DataLines::None {
                    self.name.clear();
                    return None;
                }
                self.data = DataLines::Over;
                Some(Piece::EventEnd)
            }
            b':' => {
                self.place = Place::Value(Line::Ignored);
                *input = input.get(1..).unwrap_or_default();
                Some(Piece::Comment)
            }
            _ => {
                // The usual line, at once.
                if let Some(rest) = input.strip_prefix(b"data:") {
                    *input = rest;
                    self.place = Place::Space(Line::Data);
                    return self.data_line();
                }
                self.place = Place::Field(match byte {
                    b'd' => Field::Data(0),
                    b'e' => Field::Event(0),
                    _ => Field::Unknown,
                });
                None
            }
        }
    }

    /// In a field's name.
    fn field<'a>(&mut self, field: Field, byte: u8, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        let (name, seen) = match field {
            Field::Data(seen) => (DATA, seen),
            Field::Event(seen) => (EVENT, seen),
            Field::Unknown => {
                // Whether it has a colon is all the same.
                self.place = Place::Value(Line::Ignored);
                return None;
            }
        };
        let whole = seen == name.len();
        match byte {
            b':' | b'\r' | b'\n' if whole => {
                // Without a colon it is a field with an empty value: the line end is read as the value's.
                self.place = Place::Value(Line::of(field));
                if byte == b':' {
                    *input = input.get(1..).unwrap_or_default();
                    self.place = Place::Space(Line::of(field));
                }
                match field {
                    Field::Data(_) => return self.data_line(),
                    _ => self.name.clear(),
                }
            }
            _ if name.get(seen) == Some(&byte) => {
                *input = input.get(1..).unwrap_or_default();
                self.place = Place::Field(field.further());
            }
            _ => self.place = Place::Field(Field::Unknown),
        }
        None
    }

    /// A line of data begins: not the event's first, then it is joined to the one before.
    fn data_line<'a>(&mut self) -> Option<Piece<'a>> {
        let joined = self.data == DataLines::Some;
        self.data = DataLines::Some;
        joined.then_some(Piece::Data(b"\n"))
    }

    /// Behind a field's colon: one space is not part of the value.
    fn space<'a>(&mut self, value: Line, byte: u8, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        self.place = Place::Value(value);
        if byte == b' ' {
            *input = input.get(1..).unwrap_or_default();
        }
        None
    }

    fn value<'a>(&mut self, value: Line, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        let end = memchr2(b'\r', b'\n', input).unwrap_or(input.len());
        let (text, rest) = input.split_at_checked(end)?;
        *input = rest;
        if !rest.is_empty() {
            self.line_end(input);
        }
        match value {
            Line::Data if !text.is_empty() => return Some(Piece::Data(text)),
            Line::Event => self.name.push(text),
            _ => {}
        }
        None
    }

    /// Takes the line's CR or LF.
    fn line_end(&mut self, input: &mut &[u8]) {
        self.after_cr = input.first() == Some(&b'\r');
        *input = input.get(1..).unwrap_or_default();
        self.place = Place::LineStart;
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";
const DATA: &[u8] = b"data";
const EVENT: &[u8] = b"event";

/// Where the next byte stands.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Place {
    /// At the stream's start, behind so many bytes of a byte order mark.
    Bom(usize),
    Field(Field),
    LineStart,
    /// Behind a colon.
    Space(Line),
    Value(Line),
}

/// The field whose name begins like what was read of this one, and how much that was.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Field {
    Data(usize),
    Event(usize),
    Unknown,
}

impl Field {
    const fn further(self) -> Self {
        match self {
            Self::Data(seen) => Self::Data(seen + 1),
            Self::Event(seen) => Self::Event(seen + 1),
            Self::Unknown => Self::Unknown,
        }
    }
}

/// What the rest of a line is good for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Line {
    Data,
    Event,
    /// A comment, or a field that nobody knows; `id` and `retry` are of no use here.
    Ignored,
}

impl Line {
    const fn of(field: Field) -> Self {
        match field {
            Field::Data(_) => Self::Data,
            Field::Event(_) => Self::Event,
            Field::Unknown => Self::Ignored,
        }
    }
}

/// The data lines of the current event.
#[derive(Clone, Copy, Eq, PartialEq)]
enum DataLines {
    None,
    /// The event is over; its name is kept until the next one begins.
    Over,
    Some,
}

struct Name {
    bytes: [u8; MAX_NAME],
    length: usize,
}

impl Name {
    const fn new() -> Self {
        Self { bytes: [0; MAX_NAME], length: 0 }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.length = 0;
    }

    fn push(&mut self, text: &[u8]) {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let taken = room.len().min(text.len());
        for (to, from) in room.iter_mut().zip(text) {
            *to = *from;
        }
        self.length += taken;
    }
}
