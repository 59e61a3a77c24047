//! What this VM has added to Envoy's gauges, where the other VMs can see it: a VM that fails cannot take it back itself.
//!
//! Each root context holds one slot of Envoy's shared data: when it will flush next and its shares of the gauges, written
//! after each flush. A slot whose time is long over is claimed by whoever sees it first, who takes the shares out of the
//! gauges. A VM that was only slow finds its slot claimed and gives its shares again.

use tally_core::config::MAX_FLUSH_INTERVAL_MS;
use tally_core::timing::Nanos;

use crate::host;

/// Slots that are looked at. A slot is used again, so this is VMs at once and not VMs ever.
const MAX_SLOTS: u32 = 256;
/// A VM whose flush is overdue for so long is taken for failed. Many ticks: a busy worker is not a dead one.
const STALE_NANOS: u64 = 5_000_000_000;
/// Longest time to the next flush.
const LONGEST_NANOS: u64 = MAX_FLUSH_INTERVAL_MS as u64 * 1_000_000;
/// A version that no value has: Envoy counts them from 1.
const NO_VERSION: u32 = u32::MAX;
/// First byte of a slot that nobody holds.
const FREE: u8 = 0;
/// First byte of one that is held; eight bytes follow with the time of its next flush (little endian), then the shares.
const HELD: u8 = 1;

/// The slot that this root context holds.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    place: Option<(String, u32)>,
}

impl Slot {
    /// Whether another VM has claimed it since it was last written; it is lost then.
    pub(crate) fn was_claimed(&mut self) -> bool {
        let claimed = |(key, version): &(String, u32)| host::shared(key).is_some_and(|(_, found)| found != *version);
        let was_claimed = self.place.as_ref().is_some_and(claimed);
        if was_claimed {
            self.place = None;
        }
        was_claimed
    }

    /// Writes the time of the next flush and the shares, taking a slot if there is none. False: it was claimed in this very
    /// moment, and is lost.
    pub(crate) fn write(&mut self, shares: &str, next: Nanos) -> bool {
        let value = held(shares, next);
        let Some((key, version)) = &mut self.place else {
            self.place = take(&value);
            return self.place.is_some();
        };
        let was_written = host::set_shared(key, &value, Some(*version)) == Ok(true);
        if was_written {
            *version = host::shared(key).map_or(NO_VERSION, |(_, version)| version);
        } else {
            self.place = None;
        }
        was_written
    }

    /// Gives it up.
    pub(crate) fn free(&mut self) {
        if let Some((key, version)) = self.place.take() {
            // If it fails, the slot goes stale with no shares in it: nothing is lost.
            let _ = host::set_shared(&key, &[FREE], Some(version));
        }
    }

    /// Claims one slot whose holder has failed, if there is one; its shares.
    pub(crate) fn claim_stale(&self, now: Nanos) -> Option<String> {
        let own = self.place.as_ref().map(|(key, _)| key.as_str());
        for key in (0..MAX_SLOTS).map(key) {
            let (value, version) = host::shared(&key)?;
            let Some((next, shares)) = read(&value) else { continue };
            // Farther ahead than any flush is a time from before the clock was set back.
            let is_stale = now.since(next).0 > STALE_NANOS || next.since(now).0 > LONGEST_NANOS + STALE_NANOS;
            if is_stale && own != Some(key.as_str()) && host::set_shared(&key, &[FREE], Some(version)) == Ok(true) {
                return Some(String::from_utf8_lossy(shares).into_owned());
            }
        }
        None
    }
}

fn key(number: u32) -> String {
    format!("tally.slot.{number}")
}

fn held(shares: &str, next: Nanos) -> Vec<u8> {
    let mut value = vec![HELD];
    value.extend_from_slice(&next.0.to_le_bytes());
    value.extend_from_slice(shares.as_bytes());
    value
}

fn read(value: &[u8]) -> Option<(Nanos, &[u8])> {
    let (kind, rest) = value.split_first()?;
    let (next, shares) = rest.split_first_chunk::<8>()?;
    (*kind == HELD).then_some((Nanos(u64::from_le_bytes(*next)), shares))
}

/// Takes the first slot that is free or was never used.
fn take(value: &[u8]) -> Option<(String, u32)> {
    for key in (0..MAX_SLOTS).map(key) {
        let version = match host::shared(&key) {
            Some((found, _)) if found.first() == Some(&HELD) => continue,
            Some((_, version)) => version,
            // Envoy makes a missing key whatever version is named, and refuses if another VM has made it just before.
            None => NO_VERSION,
        };
        if host::set_shared(&key, value, Some(version)) == Ok(true) {
            let (_, version) = host::shared(&key)?;
            return Some((key, version));
        }
    }
    None
}
