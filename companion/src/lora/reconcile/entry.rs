//! One adapter: what is known of it, its failures, and when to try again.
//!
//! In: whether a listing shows it, failures, the time. Out: its state. It never looks at another adapter.

use std::time::Duration;

use super::Loaded;

/// One adapter.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Is it loaded as asked, as far as known?
    pub(super) is_loaded: bool,
    /// The last load that succeeded.
    pub(super) loaded: Option<Loaded>,
    /// What the first listing after a load showed instead of the source.
    pub(super) doubted: Option<String>,
    /// Since when it has been seen loaded.
    pub(super) since: Option<Duration>,
    /// When a call last told its state, for servers whose listing hides adapters.
    pub(super) told_at: Option<Duration>,
    /// Has a call been answered, or was none needed, since the wish or the server changed?
    pub(super) is_tried: bool,
    pub(super) in_flight: bool,
    pub(super) failures: u32,
    pub(super) not_before: Duration,
    /// The server wants an unload before the load: it does not swap in place, or an earlier unload broke off.
    pub(super) unload_first: bool,
    /// When the file stopped naming it.
    pub(super) unnamed_since: Option<Duration>,
}

impl Entry {
    /// A listing shows it.
    pub(super) fn present(&mut self, shown: Option<&str>, now: Duration) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) >= STABLE_AFTER {
            self.failures = 0;
        }
        let Some(loaded) = self.loaded.as_mut().filter(|loaded| loaded.shown.is_none()) else { return };
        let shown = shown.map(str::to_owned);
        // Either the server spells the source in its own way, or somebody loaded over it before we looked:
        // believe the spelling only when a second load shows the same.
        if shown.as_ref().is_none_or(|shown| *shown == loaded.source) || shown == self.doubted {
            loaded.shown = shown;
        } else {
            (self.doubted, self.loaded) = (shown, None);
        }
    }

    /// A listing lacks it. True if it was there a moment ago: the server throws adapters out, so don't hurry.
    pub(super) fn absent(&mut self, now: Duration, pause: Duration) -> bool {
        self.loaded = None;
        let Some(since) = self.since.take() else { return false };
        if now.saturating_sub(since) >= STABLE_AFTER {
            self.failures = 0;
            return false;
        }
        self.fail(now, pause);
        true
    }

    pub(super) fn fail(&mut self, now: Duration, pause: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause;
    }
}

/// How long to wait after so many failures: doubling, capped, and spread so that pods do not march in step.
pub(super) fn pause(random: &mut u64, failures: u32) -> Duration {
    // xorshift64
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let full = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(MAX_PAUSE);
    let part = u32::try_from(*random % 512).unwrap_or(0);
    full / 2 + full / 1024 * part
}

/// Pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause of an adapter that keeps failing.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(60);
/// An adapter that was loaded this long has earned a fresh start.
const STABLE_AFTER: Duration = Duration::from_secs(60);
