//! Inflates a side copy of a compressed body, within bounds.
//!
//! In: a gzip or deflate body in pieces, cut at any byte. Out: the plain bytes, piece by piece.
//! Checksums are not checked: the client does that, and a wrong one changes no count. It never holds more than deflate's
//! window, which is allocated with the first compressed byte, and it stops at [`MAX_PLAIN_BYTES`] and [`MAX_RATIO`].

mod header;

use alloc::boxed::Box;
use alloc::vec;

use header::{Header, Taken};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// A body that grows beyond this many plain bytes is a bomb.
pub const MAX_PLAIN_BYTES: u64 = 64 << 20;
/// So is one that grows beyond so many times its compressed bytes. Event streams of one token's repetition reach 100.
pub const MAX_RATIO: u64 = 400;
/// The ratio is not looked at before so many plain bytes.
pub const RATIO_GRACE_BYTES: u64 = 1 << 20;
/// Deflate's window.
const WINDOW_BYTES: usize = 32 << 10;

/// What became of the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Somewhere inside, or before the first byte.
    Ok,
    /// At the end of a whole body. More gzip members may follow.
    Complete,
    /// These are not compressed bytes; the rest is ignored.
    Broken,
    /// It grew beyond the bounds; the rest is ignored.
    Bomb,
}

/// Inflates one body; see the module.
pub struct Inflater {
    place: Place,
    format: Format,
    compressed_bytes: u64,
    plain_bytes: u64,
    window: Option<Window>,
}

impl Inflater {
    /// For `content-encoding: gzip` and `x-gzip` (RFC 1952), with any number of members.
    #[must_use]
    pub fn gzip() -> Self {
        Self::new(Format::Gzip, Place::Header(Header::default()))
    }

    /// For `content-encoding: deflate`: zlib's format (RFC 1950), or the bare one (RFC 1951) that some servers send.
    #[must_use]
    pub fn deflate() -> Self {
        Self::new(Format::Bare, Place::ZlibFirst)
    }

    const fn new(format: Format, place: Place) -> Self {
        Self { place, format, compressed_bytes: 0, plain_bytes: 0, window: None }
    }

    /// What became of the body so far.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.place {
            Place::Bomb => State::Bomb,
            Place::Broken => State::Broken,
            Place::Between | Place::Garbage => State::Complete,
            _ => State::Ok,
        }
    }

    /// Consumes from the front of `input` and gives the next plain bytes, at most a window's worth and never none.
    ///
    /// `None`: all of `input` is used up, feed more.
    pub fn feed<'a>(&'a mut self, input: &mut &[u8]) -> Option<&'a [u8]> {
        let (from, to) = self.run(input)?;
        self.window.as_ref()?.bytes.get(from..to)
    }

    /// Where in the window the next plain bytes lie.
    fn run(&mut self, input: &mut &[u8]) -> Option<(usize, usize)> {
        loop {
            if let Place::Deflate(output) = self.place {
                if input.is_empty() && output == Output::Drained {
                    return None;
                }
                let (from, to) = self.inflate(input);
                if to > from {
                    return Some((from, to));
                }
            } else {
                let (&byte, rest) = input.split_first()?;
                // Zlib's: a bare body that begins so would be a stored block with bits set in its padding.
                if matches!(self.place, Place::ZlibFirst) && byte & 0x0f != ZLIB_DEFLATE {
                    self.place = Place::Deflate(Output::Drained);
                    continue;
                }
                *input = rest;
                self.place = self.framing(byte);
                if matches!(self.place, Place::Bomb | Place::Broken | Place::Garbage) {
                    *input = &[];
                }
            }
        }
    }

    /// One call of the decoder; gives where in the window it wrote.
    fn inflate(&mut self, input: &mut &[u8]) -> (usize, usize) {
        let window = self.window.get_or_insert_with(Window::new);
        if window.at == WINDOW_BYTES {
            window.at = 0;
            // Only here, where the window is full: so the verdict does not depend on how the body was cut.
            if is_bomb(self.plain_bytes, self.compressed_bytes) {
                self.window = None;
                self.place = Place::Bomb;
                return (0, 0);
            }
        }
        let from = window.at;
        let (status, read, written) =
            decompress(&mut window.decoder, input, &mut window.bytes, from, TINFL_FLAG_HAS_MORE_INPUT);
        window.at += written;
        let to = window.at;
        *input = input.get(read..).unwrap_or_default();
        self.compressed_bytes += read as u64;
        self.plain_bytes += written as u64;
        self.place = match status {
            TINFLStatus::HasMoreOutput => Place::Deflate(Output::Pending),
            TINFLStatus::NeedsMoreInput => Place::Deflate(Output::Drained),
            TINFLStatus::Done => {
                window.decoder.init();
                match self.format {
                    Format::Bare => Place::Garbage,
                    Format::Gzip => Place::Trailer(GZIP_TRAILER_BYTES),
                    Format::Zlib => Place::Trailer(ZLIB_TRAILER_BYTES),
                }
            }
            _ => Place::Broken,
        };
        (from, to)
    }

    /// A byte outside the compressed blocks.
    fn framing(&mut self, byte: u8) -> Place {
        match &mut self.place {
            Place::Header(header) => match header.take(byte) {
                Taken::Bad => Place::Broken,
                Taken::Last => Place::Deflate(Output::Drained),
                Taken::More => self.place,
            },
            Place::Trailer(1) if self.format == Format::Gzip => Place::Between,
            Place::Trailer(1) => Place::Garbage,
            Place::Trailer(left) => Place::Trailer(*left - 1),
            Place::Between => {
                let mut header = Header::default();
                match header.take(byte) {
                    Taken::More => Place::Header(header),
                    // Padding behind the last member, as gzip itself takes it.
                    _ => Place::Garbage,
                }
            }
            Place::ZlibFirst => Place::ZlibSecond(byte),
            Place::ZlibSecond(first) => {
                let whole = u16::from_be_bytes([*first, byte]);
                if !whole.is_multiple_of(31) || byte & PRESET_DICTIONARY != 0 {
                    return Place::Broken;
                }
                self.format = Format::Zlib;
                Place::Deflate(Output::Drained)
            }
            other => *other,
        }
    }
}

fn is_bomb(plain_bytes: u64, compressed_bytes: u64) -> bool {
    plain_bytes >= MAX_PLAIN_BYTES || (plain_bytes >= RATIO_GRACE_BYTES && plain_bytes / MAX_RATIO > compressed_bytes)
}

const GZIP_TRAILER_BYTES: u8 = 8;
const ZLIB_TRAILER_BYTES: u8 = 4;
/// The method, in zlib's first byte.
const ZLIB_DEFLATE: u8 = 8;
/// In zlib's second byte.
const PRESET_DICTIONARY: u8 = 0x20;

#[derive(Clone, Copy, Eq, PartialEq)]
enum Format {
    Bare,
    Gzip,
    Zlib,
}

#[derive(Clone, Copy)]
enum Place {
    /// Behind a gzip member.
    Between,
    Bomb,
    Broken,
    /// In the compressed blocks.
    Deflate(Output),
    /// Behind the body's end.
    Garbage,
    Header(Header),
    /// So many bytes of a checksum are due.
    Trailer(u8),
    ZlibFirst,
    ZlibSecond(u8),
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Output {
    /// Nothing more comes without input.
    Drained,
    /// The window was full; there may be more.
    Pending,
}

struct Window {
    decoder: Box<DecompressorOxide>,
    bytes: Box<[u8]>,
    at: usize,
}

impl Window {
    fn new() -> Self {
        Self { decoder: Box::default(), bytes: vec![0; WINDOW_BYTES].into_boxed_slice(), at: 0 }
    }
}
