//! `true`, `false` and `null`, letter by letter.
//!
//! In: the letters behind the first, cut anywhere. Out: whether they are right, and what they mean.

use super::Value;
use super::number::Phase;

/// The letters still due, and what they will have meant.
pub(super) struct Literal {
    due: &'static [u8],
    value: Value<'static>,
}

impl Literal {
    /// By its first letter: `t`, `f` or `n`.
    pub(super) const fn from(byte: u8) -> Self {
        match byte {
            b't' => Self { due: b"rue", value: Value::Bool(true) },
            b'f' => Self { due: b"alse", value: Value::Bool(false) },
            _ => Self { due: b"ull", value: Value::Null },
        }
    }

    pub(super) const fn value(&self) -> Value<'static> {
        self.value
    }

    /// Takes its letters from `input`.
    pub(super) fn feed(&mut self, input: &mut &[u8]) -> Phase {
        while let Some((due, later)) = self.due.split_first() {
            let Some((byte, rest)) = input.split_first() else { return Phase::More };
            if due != byte {
                return Phase::Bad;
            }
            (self.due, *input) = (later, rest);
        }
        Phase::Over
    }
}
