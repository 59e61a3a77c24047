//! Label values: cleaned once, interned, capped.
//!
//! In: bytes that a client or a server chose. Out: a [`Symbol`], which is all that the rest of the filter handles.
//! Free text cannot reach a stat name but through here. At the cap a value becomes `other`, and the overflow is counted.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::hash::Hasher;

use hashbrown::HashMap;
use siphasher::sip::SipHasher24;

/// Bytes of a label value; longer ones are cut at a character.
pub const MAX_VALUE_BYTES: usize = 200;

/// An interned label value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(u16);

impl Symbol {
    /// What lies beyond the cap.
    pub const OTHER: Self = Self(0);
    /// What nobody named.
    pub const UNKNOWN: Self = Self(1);

    /// Its place among the values.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The distinct values of one kind of label.
#[derive(Debug)]
pub struct Names {
    texts: Vec<String>,
    symbols: HashMap<String, Symbol>,
    /// Values from traffic that may still be added.
    room: usize,
    /// Requests whose value was folded, since last asked.
    overflow: u64,
    /// Reused for cleaning: no allocation for a known value.
    scratch: String,
}

impl Names {
    /// Room for `cap` values out of traffic; the pinned ones do not count.
    #[must_use]
    pub fn new(cap: usize, pinned: &[String]) -> Self {
        let mut names =
            Self { texts: Vec::new(), symbols: HashMap::new(), room: 0, overflow: 0, scratch: String::new() };
        names.add("other");
        names.add("unknown");
        for name in pinned {
            clean_into(name.as_bytes(), &mut names.scratch);
            let text = core::mem::take(&mut names.scratch);
            if !names.symbols.contains_key(text.as_str()) {
                names.add(&text);
            }
        }
        names.room = cap.min(usize::from(u16::MAX) - names.texts.len());
        names
    }

    /// The symbol of a value as it came; counts an overflow.
    pub fn of(&mut self, raw: &[u8]) -> Symbol {
        self.find(raw).unwrap_or_else(|| {
            self.overflow += 1;
            Symbol::OTHER
        })
    }

    /// The same for a value that will come again for the same request.
    pub fn of_first(&mut self, raw: &[u8]) -> Symbol {
        self.find(raw).unwrap_or(Symbol::OTHER)
    }

    #[inline(never)]
    fn find(&mut self, raw: &[u8]) -> Option<Symbol> {
        // Most values come clean, and a clean value is its own cleaned form.
        if let Some(symbol) = core::str::from_utf8(raw).ok().and_then(|text| self.symbols.get(text)) {
            return Some(*symbol);
        }
        clean_into(raw, &mut self.scratch);
        if let Some(symbol) = self.symbols.get(self.scratch.as_str()) {
            return Some(*symbol);
        }
        self.room = self.room.checked_sub(1)?;
        let text = core::mem::take(&mut self.scratch);
        Some(self.add(&text))
    }

    /// Its text, clean.
    #[must_use]
    pub fn text(&self, symbol: Symbol) -> &str {
        self.texts.get(symbol.index()).map_or("other", String::as_str)
    }

    /// How many values there are, `other` and `unknown` included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.texts.len()
    }

    /// Never: `other` is always there.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// All symbols, in the order of their places.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> + use<> {
        (0..=u16::MAX).take(self.texts.len()).map(Symbol)
    }

    /// Folded requests since the last call.
    pub const fn take_overflow(&mut self) -> u64 {
        core::mem::replace(&mut self.overflow, 0)
    }

    fn add(&mut self, text: &str) -> Symbol {
        let symbol = Symbol(u16::try_from(self.texts.len()).unwrap_or(0));
        self.texts.push(String::from(text));
        self.symbols.insert(String::from(text), symbol);
        symbol
    }
}

/// The key of the hashes that stand for tenants' names. No message shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TenantKey([u8; 16]);

impl TenantKey {
    /// The key of 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_whole = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16).ok().filter(|_| is_whole).map(|key| Self(key.to_be_bytes()))
    }

    /// The hash of a tenant's name, as 16 hexadecimal digits.
    #[must_use]
    pub fn hash(&self, name: &[u8]) -> String {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(name);
        format!("{:016x}", hasher.finish())
    }
}

impl fmt::Debug for TenantKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("TenantKey(hidden)")
    }
}

/// A value as it may stand in a stat name: UTF-8 of at most [`MAX_VALUE_BYTES`]; `;`, `=` and control characters become
/// `_` (they would end the value, or look like another label to Istio's tag expressions); dots at the end go (Envoy
/// drops them, and two values would be one); nothing becomes `unknown`.
#[must_use]
pub fn clean(raw: &[u8]) -> String {
    let mut text = String::new();
    clean_into(raw, &mut text);
    text
}

fn clean_into(raw: &[u8], text: &mut String) {
    text.clear();
    // A longer value is cut anyway; the margin lets a cut character be seen as one.
    let raw = raw.get(..MAX_VALUE_BYTES + 4).unwrap_or(raw);
    'chunks: for chunk in raw.utf8_chunks() {
        let broken = (!chunk.invalid().is_empty()).then_some('\u{fffd}');
        for character in chunk.valid().chars().chain(broken) {
            let character = match character {
                ';' | '=' => '_',
                control if control.is_control() => '_',
                other => other,
            };
            if text.len() + character.len_utf8() > MAX_VALUE_BYTES {
                break 'chunks;
            }
            text.push(character);
        }
    }
    text.truncate(text.trim_end_matches('.').len());
    if text.is_empty() {
        text.push_str("unknown");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_value_can_neither_end_itself_nor_look_like_another_label() {
        for (raw, cleaned) in [
            (&b"meta/llama-3.1:8b"[..], "meta/llama-3.1:8b"),
            (b"x;.;le=.=9;.;y", "x_._le_._9_._y"),
            (b"line\nbreak\x00\x7f", "line_break__"),
            (b"ends...", "ends"),
            (b"...", "unknown"),
            (b"", "unknown"),
            (b"a\xffb", "a\u{fffd}b"),
        ] {
            assert_eq!(clean(raw), cleaned);
            assert_eq!(clean(cleaned.as_bytes()), cleaned, "what is clean stays as it is");
        }
    }

    /// The vectors of the SipHash paper's reference code: key 00 01 … 0f; the message's bytes count up from 0.
    #[test]
    fn a_tenants_hash_is_siphash_2_4_under_the_key() {
        let key = TenantKey::parse("000102030405060708090A0b0c0d0e0f").unwrap();
        assert_eq!(key.hash(&(0..15).collect::<Vec<u8>>()), "a129ca6149be45e5");
        assert_eq!(key.hash(b""), "726fdb47dd0e0e31");
        assert_ne!(TenantKey::parse(&"1".repeat(32)).unwrap().hash(b""), key.hash(b""));
        for text in ["", "00", "+0010203040506070809a0b0c0d0e0f0", &"g".repeat(32), &"0".repeat(33), &"é".repeat(16)] {
            assert_eq!(TenantKey::parse(text), None, "{text}");
        }
        assert!(!format!("{key:?}").contains("01"));
    }

    #[test]
    fn a_long_value_is_cut_at_a_character() {
        let long = "\u{20ac}".repeat(100);
        let cleaned = clean(long.as_bytes());
        assert_eq!(cleaned, "\u{20ac}".repeat(66));
        assert!(cleaned.len() <= MAX_VALUE_BYTES);
        assert_eq!(clean(cleaned.as_bytes()), cleaned, "what is clean stays as it is");
    }

    #[test]
    fn beyond_the_cap_values_are_other_and_pinned_ones_keep_their_place() {
        let mut names = Names::new(2, &["pinned".to_string()]);
        let (a, b) = (names.of(b"a"), names.of(b"b"));
        assert_eq!((names.text(a), names.text(b)), ("a", "b"));
        assert_eq!(names.of(b"c"), Symbol::OTHER);
        assert_eq!(names.text(names.symbols["pinned"]), "pinned");
        let pinned = names.of(b"pinned");
        assert_eq!(names.text(pinned), "pinned");
        assert_eq!(names.of(b"a"), a);
        assert_eq!(names.take_overflow(), 1);
        assert_eq!(names.take_overflow(), 0);
    }

    #[test]
    fn ten_thousand_hostile_values_make_no_more_than_the_cap() {
        let mut names = Names::new(100, &[]);
        for number in 0..10_000 {
            names.of(format!("model-{number}").as_bytes());
        }
        assert_eq!(names.len(), 102);
        assert_eq!(names.take_overflow(), 9_900);
    }
}
