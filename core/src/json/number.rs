//! Numbers, digit by digit.
//!
//! In: the bytes of a JSON number, cut anywhere. Out: its value if that is a whole number from 0 to `u64::MAX`, exactly.
//! It never goes through a float, and a number of any length takes the same few words of memory.

/// What a number is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Number {
    /// The exact value, if the number is a whole one (`12`, `12.0`, `1.2e1`) without a minus sign and fits.
    pub integer: Option<u64>,
}

/// How a token that may be cut goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// The input is used up.
    More,
    /// The token is over.
    Over,
    /// This is not JSON.
    Bad,
}

/// A number as far as it was read: `significant * 10^(zeros - fraction + exponent)`.
#[derive(Clone, Copy)]
pub(super) struct Digits {
    place: Place,
    negative: bool,
    /// The digits up to the last that is not 0; `None`: more than 64 bits.
    significant: Option<u64>,
    /// The zeros behind them: they count only if another digit follows, or no fraction does.
    zeros: i64,
    /// Digits behind the point.
    fraction: i64,
    exponent: i64,
    exponent_negative: bool,
}

/// Where in the number the next byte stands.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Place {
    Exponent,
    ExponentFirst,
    ExponentSign,
    Fraction,
    FractionFirst,
    Integer,
    IntegerFirst,
    /// Behind a leading 0, which no digit may follow.
    Zero,
}

impl Digits {
    /// `byte` is the first: a minus or a digit.
    pub(super) fn start(byte: u8) -> Self {
        let mut digits = Self {
            place: Place::IntegerFirst,
            negative: byte == b'-',
            significant: Some(0),
            zeros: 0,
            fraction: 0,
            exponent: 0,
            exponent_negative: false,
        };
        if byte != b'-' {
            digits.take(byte);
        }
        digits
    }

    /// Takes the number's bytes from `input`, but not the byte behind it.
    pub(super) fn feed(&mut self, input: &mut &[u8]) -> Phase {
        while let Some((&byte, rest)) = input.split_first() {
            if !self.take(byte) {
                return if self.may_end() { Phase::Over } else { Phase::Bad };
            }
            *input = rest;
        }
        Phase::More
    }

    /// Would the number be a whole one in the grammar if it ended here?
    pub(super) const fn may_end(&self) -> bool {
        matches!(self.place, Place::Exponent | Place::Fraction | Place::Integer | Place::Zero)
    }

    /// Its value if it ends here.
    pub(super) fn number(&self) -> Number {
        Number { integer: self.integer() }
    }

    fn integer(&self) -> Option<u64> {
        let significant = self.significant?;
        if self.negative {
            return None;
        }
        if significant == 0 {
            return Some(0);
        }
        let exponent = if self.exponent_negative { -self.exponent } else { self.exponent };
        let shift = u32::try_from(self.zeros - self.fraction + exponent).ok()?;
        significant.checked_mul(10_u64.checked_pow(shift)?)
    }

    /// Is `byte` part of the number?
    fn take(&mut self, byte: u8) -> bool {
        self.place = match (self.place, byte) {
            (Place::IntegerFirst, b'0') => Place::Zero,
            (Place::IntegerFirst | Place::Integer, b'0'..=b'9') => {
                self.digit(byte);
                Place::Integer
            }
            (Place::Zero | Place::Integer, b'.') => Place::FractionFirst,
            (Place::FractionFirst | Place::Fraction, b'0'..=b'9') => {
                self.digit(byte);
                self.fraction += 1;
                Place::Fraction
            }
            (Place::Zero | Place::Integer | Place::Fraction, b'e' | b'E') => Place::ExponentSign,
            (Place::ExponentSign, b'+' | b'-') => {
                self.exponent_negative = byte == b'-';
                Place::ExponentFirst
            }
            (Place::ExponentSign | Place::ExponentFirst | Place::Exponent, b'0'..=b'9') => {
                self.exponent = (self.exponent * 10 + i64::from(byte - b'0')).min(MAX_EXPONENT);
                Place::Exponent
            }
            _ => return false,
        };
        true
    }

    fn digit(&mut self, byte: u8) {
        if byte == b'0' {
            self.zeros += 1;
            return;
        }
        self.significant = match self.significant {
            Some(0) => Some(0),
            Some(digits) => {
                let shift = u32::try_from(self.zeros).ok().and_then(|zeros| 10_u64.checked_pow(zeros + 1));
                shift.and_then(|shift| digits.checked_mul(shift))
            }
            None => None,
        }
        .and_then(|digits| digits.checked_add(u64::from(byte - b'0')));
        self.zeros = 0;
    }
}

/// An exponent counts no further: beyond the digits of any body, and so small that no sum of these overflows.
const MAX_EXPONENT: i64 = 1 << 56;
