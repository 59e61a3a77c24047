//! What a listing says of the adapters that are named.
//!
//! In: a listing, the time. Out: each adapter's state, and those that fail without a call. Where a listing may hide
//! adapters it is completed by what calls have told.

use std::time::Duration;

use super::entry::pause;
use super::{Listing, Reason, Reconciler, differs};

impl Reconciler {
    /// One listing, asked for while no answer was taken in. Out: adapters that fail without a call.
    pub(in crate::lora) fn listed(&mut self, mut listing: Listing, now: Duration) -> Vec<(String, Reason)> {
        (self.listed_at, self.blind) = (Some(now), None);
        let hides = self.engine.may_hide_adapters() && listing.adapters.is_empty();
        if hides {
            self.complete(&mut listing, now);
        }
        let failures = self.learn(&listing, hides, now);
        if hides {
            self.suspect(&mut listing, now);
        }
        self.listing = Some(listing);
        self.settle();
        self.entries.retain(|_, entry| {
            entry.in_flight || entry.unnamed_since.is_none_or(|since| now.saturating_sub(since) < SERIES_LINGER)
        });
        failures
    }

    /// The listing with what older SGLang leaves out.
    fn complete(&self, listing: &mut Listing, now: Duration) {
        for (id, entry) in &self.entries {
            let is_fresh = entry.told_at.is_some_and(|at| now.saturating_sub(at) < TELL_AGAIN_AFTER);
            let wanted = self.desired.exist.get(id);
            let is_other = wanted.is_some_and(|wanted| differs(wanted, None, entry.loaded.as_ref()));
            if entry.since.is_some() && (is_fresh || is_other) {
                listing.adapters.insert(id.clone(), None);
            }
        }
    }

    /// Where adapters hide, what must not be there is unloaded once in a while, to be sure.
    fn suspect(&self, listing: &mut Listing, now: Duration) {
        for id in &self.desired.forbidden {
            let told_at = self.entries.get(id).and_then(|entry| entry.told_at);
            if told_at.is_none_or(|at| now.saturating_sub(at) >= TELL_AGAIN_AFTER) {
                listing.adapters.entry(id.clone()).or_default();
            }
        }
    }

    fn learn(&mut self, listing: &Listing, hides: bool, now: Duration) -> Vec<(String, Reason)> {
        let mut failures = Vec::new();
        let random = &mut self.random;
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| !entry.in_flight) {
            let pause = pause(random, entry.failures);
            let wanted = self.desired.exist.get(id);
            match (listing.adapters.get(id), wanted) {
                (Some(shown), wanted) => {
                    entry.present(shown.as_deref(), now);
                    let is_other = wanted.is_some_and(|w| differs(w, shown.as_deref(), entry.loaded.as_ref()));
                    entry.is_loaded = !is_other;
                    entry.is_tried |= !is_other && !self.desired.forbidden.contains(id);
                }
                (None, Some(_)) if listing.base_models.contains(id) => {
                    entry.is_loaded = false;
                    entry.is_tried = true;
                    if now >= entry.not_before {
                        entry.fail(now, pause);
                        failures.push((id.clone(), Reason::Conflict));
                    }
                }
                (None, wanted) => {
                    let was_evicted = !hides && wanted.is_some() && entry.absent(now, pause);
                    if was_evicted {
                        failures.push((id.clone(), Reason::Evicted));
                    }
                    // An old SGLang is asked again while the adapter goes on serving.
                    entry.is_loaded &= hides && entry.since.is_some();
                    entry.is_tried |= wanted.is_none();
                }
            }
        }
        failures
    }
}

/// Where listings hide adapters, each is asked for again after this.
pub(super) const TELL_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A series stays this long after the file stopped naming its adapter.
pub(super) const SERIES_LINGER: Duration = Duration::from_secs(300);
