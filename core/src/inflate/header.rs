//! The header of a gzip member (RFC 1952, 2.3), byte by byte.
//!
//! In: its bytes. Out: whether more follow. It keeps nothing of the names and extra fields in it.

/// A header as far as it was read.
#[derive(Clone, Copy, Default)]
pub(super) struct Header {
    part: Part,
    flags: u8,
}

/// What a byte was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Taken {
    /// Not a gzip header.
    Bad,
    /// The header's last byte.
    Last,
    More,
}

#[derive(Clone, Copy)]
enum Part {
    /// So many of the ten bytes that every header has were read.
    Fixed(u8),
    ExtraLength,
    ExtraLengthHigh(u8),
    Extra(u16),
    Name,
    Comment,
    Crc,
    CrcHigh,
}

impl Default for Part {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

impl Header {
    /// Takes the header's next byte.
    pub(super) fn take(&mut self, byte: u8) -> Taken {
        let next = match self.part {
            Part::Fixed(at) => {
                if !self.fixed(at, byte) {
                    return Taken::Bad;
                }
                if at < LAST_FIXED { Some(Part::Fixed(at + 1)) } else { self.optional(FEXTRA) }
            }
            Part::ExtraLength => Some(Part::ExtraLengthHigh(byte)),
            Part::ExtraLengthHigh(low) => match u16::from_le_bytes([low, byte]) {
                0 => self.optional(FNAME),
                length => Some(Part::Extra(length)),
            },
            Part::Extra(1) => self.optional(FNAME),
            Part::Extra(left) => Some(Part::Extra(left - 1)),
            Part::Name if byte == 0 => self.optional(FCOMMENT),
            Part::Comment if byte == 0 => self.optional(FHCRC),
            Part::Name | Part::Comment => Some(self.part),
            Part::Crc => Some(Part::CrcHigh),
            Part::CrcHigh => None,
        };
        let Some(next) = next else { return Taken::Last };
        self.part = next;
        Taken::More
    }

    fn fixed(&mut self, at: u8, byte: u8) -> bool {
        match at {
            0 => byte == 0x1f,
            1 => byte == 0x8b,
            // The method: deflate is the only one.
            2 => byte == 8,
            3 => {
                self.flags = byte;
                byte & RESERVED == 0
            }
            // Time, extra flags, system.
            _ => true,
        }
    }

    /// The first part from `flag` on that the flags announce, in the order of the standard.
    fn optional(&self, flag: u8) -> Option<Part> {
        let parts = [(FEXTRA, Part::ExtraLength), (FNAME, Part::Name), (FCOMMENT, Part::Comment), (FHCRC, Part::Crc)];
        let mut later = parts.into_iter().skip_while(|(of, _)| *of != flag);
        later.find(|(of, _)| self.flags & of != 0).map(|(_, part)| part)
    }
}

const LAST_FIXED: u8 = 9;
const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;
