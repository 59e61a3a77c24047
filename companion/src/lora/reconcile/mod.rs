//! What is remembered between listings: calls under way, failures and when to try again.
//!
//! In: the file's wish, listings, the verdicts of calls, and the time. Out: the calls to make now, and for each
//! adapter whether it is loaded as asked. Pure: time and the seed of the jitter are arguments. It never calls for
//! anything without a listing, never has two calls under way for one adapter, and never lets those that failed
//! take the places of the others.

mod entry;
mod learn;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::config::Desired;
use super::diff::{Action, Loaded, diff, differs};
use super::engine::{Engine, Listing, Reason, Verdict};
use entry::{Entry, pause};

/// The state of one server's adapters.
#[derive(Debug)]
pub(super) struct Reconciler {
    engine: Engine,
    desired: Desired,
    entries: BTreeMap<String, Entry>,
    /// What the server has: the last listing and what calls did since; `None` if the server does not answer.
    listing: Option<Listing>,
    listed_at: Option<Duration>,
    /// Why nothing is known of the server any more.
    blind: Option<Reason>,
    /// Each named adapter has had its turn since the server came. A later wish does not take that back: it would take
    /// every Pod out of service at once.
    is_settled: bool,
    random: u64,
}

impl Reconciler {
    /// Nothing wished yet.
    pub(super) fn new(engine: Engine, seed: u64) -> Self {
        Self {
            engine,
            desired: Desired::default(),
            entries: BTreeMap::new(),
            listing: None,
            listed_at: None,
            blind: None,
            is_settled: false,
            random: seed | 1,
        }
    }

    /// A new good file. Adapters whose wish changed are tried at once.
    pub(super) fn desire(&mut self, desired: Desired, now: Duration) {
        for id in named(&desired) {
            let same = self.desired.exist.get(id) == desired.exist.get(id)
                && self.desired.forbidden.contains(id) == desired.forbidden.contains(id);
            let entry = self.entries.entry(id.to_owned()).or_default();
            entry.unnamed_since = None;
            if !same {
                (entry.failures, entry.not_before, entry.is_tried) = (0, Duration::ZERO, false);
            }
        }
        let names: BTreeSet<&str> = named(&desired).collect();
        for (id, entry) in &mut self.entries {
            if !names.contains(id.as_str()) {
                entry.unnamed_since = entry.unnamed_since.or(Some(now));
            }
        }
        self.desired = desired;
    }

    /// The server could not be asked.
    pub(super) fn lost(&mut self, reason: Reason, now: Duration) {
        self.listing = None;
        let gone = reason == Reason::Unreachable;
        let stale = self.listed_at.is_none_or(|at| now.saturating_sub(at) >= STALE_AFTER);
        if gone || stale {
            (self.blind, self.is_settled) = (Some(reason), false);
        }
        for entry in self.entries.values_mut() {
            if gone || stale {
                (entry.is_loaded, entry.is_tried) = (false, false);
            }
            if gone {
                // It comes back empty: nothing was evicted, and nothing has to wait.
                (entry.since, entry.told_at, entry.failures, entry.not_before) = (None, None, 0, Duration::ZERO);
            }
        }
    }

    /// The calls to make now; each has to be answered by [`Reconciler::finish`].
    pub(super) fn next(&mut self, now: Duration) -> Vec<Action> {
        let Some(listing) = &self.listing else { return Vec::new() };
        let mut wanted = diff(&self.desired, listing, &self.loaded());
        wanted.sort_by_key(|action| self.entries.get(action.id()).is_some_and(|entry| entry.failures > 0));
        let mut busy = self.entries.values().filter(|entry| entry.in_flight).count();
        let mut actions = Vec::new();
        for action in wanted {
            let Some(entry) = self.entries.get_mut(action.id()) else { continue };
            let places = if entry.failures > 0 { MAX_CALLS / 2 } else { MAX_CALLS };
            if busy >= places || entry.in_flight || now < entry.not_before {
                continue;
            }
            let swaps = self.engine.loads_in_place() && !entry.unload_first;
            let action = match action {
                Action::Replace(adapter) if !swaps => Action::Unload(adapter.id),
                Action::Load(adapter) if entry.unload_first => Action::Unload(adapter.id),
                other => other,
            };
            entry.in_flight = true;
            busy += 1;
            actions.push(action);
        }
        actions
    }

    /// A call was answered.
    pub(super) fn finish(&mut self, action: &Action, verdict: Verdict, now: Duration) {
        let Some(entry) = self.entries.get_mut(action.id()) else { return };
        let pause = pause(&mut self.random, entry.failures);
        (entry.in_flight, entry.is_tried, entry.told_at) = (false, true, Some(now));
        match (action, verdict) {
            (_, Verdict::Failed(_)) => {
                entry.told_at = None;
                entry.fail(now, pause);
                if !matches!(action, Action::Unload(_)) {
                    entry.is_loaded = false;
                }
            }
            (Action::Load(adapter), Verdict::Done) | (Action::Replace(adapter), Verdict::Done) => {
                let wanted = self.desired.exist.get(&adapter.id);
                entry.loaded = Some(Loaded { source: adapter.source.clone(), shown: None });
                entry.is_loaded = wanted.is_none_or(|wanted| wanted.source == adapter.source);
                (entry.since, entry.unload_first) = (Some(now), false);
            }
            (Action::Load(adapter), Verdict::AlreadySo) => {
                entry.is_loaded = !differs(adapter, None, entry.loaded.as_ref());
                entry.since = entry.since.or(Some(now));
            }
            (Action::Replace(_), Verdict::AlreadySo) => (entry.unload_first, entry.is_loaded) = (true, false),
            (_, Verdict::UnloadFirst) => {
                (entry.unload_first, entry.is_loaded) = (true, false);
                entry.fail(now, pause);
            }
            (Action::Unload(_), Verdict::AlreadySo | Verdict::Done) => {
                (entry.is_loaded, entry.loaded, entry.since) = (false, None, None);
                entry.unload_first = false;
            }
        }
        self.settle();
        let Some(listing) = self.listing.as_mut() else { return };
        match (action, verdict) {
            (_, Verdict::Failed(_) | Verdict::UnloadFirst) | (Action::Replace(_), Verdict::AlreadySo) => {}
            (Action::Load(adapter) | Action::Replace(adapter), _) => {
                listing.adapters.insert(adapter.id.clone(), None);
            }
            (Action::Unload(id), _) => {
                listing.adapters.remove(id);
            }
        }
    }

    /// Adapters the file names or named lately, with "is it loaded as asked?".
    pub(super) fn statuses(&self) -> impl Iterator<Item = (&str, bool)> {
        self.entries.iter().map(|(id, entry)| (id.as_str(), entry.is_loaded))
    }

    /// Is the server exactly as the file asks?
    pub(super) fn is_satisfied(&self) -> bool {
        let is_loaded = |id: &String| self.entries.get(id).is_some_and(|entry| entry.is_loaded);
        self.listing.is_some()
            && self.entries.values().all(|entry| !entry.in_flight)
            && self.desired.exist.keys().all(is_loaded)
            && !self.desired.forbidden.iter().any(is_loaded)
    }

    /// Why the Pod should get no requests yet. A server that only answers late now and then is no reason.
    pub(super) fn waits_for(&self) -> Option<String> {
        match (self.blind, self.listed_at) {
            (Some(reason), _) => return Some(format!("the model server does not answer: {}", reason.class())),
            (None, None) => return Some("the model server has not been asked yet".to_owned()),
            (None, Some(_)) if self.is_settled => return None,
            (None, Some(_)) => {}
        }
        let mut waiting = self.untried();
        let first = waiting.next()?;
        match waiting.count() {
            0 => Some(format!("not tried yet: {first}")),
            more => Some(format!("not tried yet: {first} and {more} more")),
        }
    }

    /// Named adapters that have not had their turn.
    fn untried(&self) -> impl Iterator<Item = &str> {
        let waits = |entry: &Entry| !entry.is_tried && entry.unnamed_since.is_none();
        self.entries.iter().filter(move |(_, entry)| waits(entry)).map(|(id, _)| id.as_str())
    }

    fn settle(&mut self) {
        self.is_settled |= self.listing.is_some() && self.untried().next().is_none();
    }

    fn loaded(&self) -> BTreeMap<String, Loaded> {
        self.entries.iter().filter_map(|(id, entry)| Some((id.clone(), entry.loaded.clone()?))).collect()
    }
}

fn named(desired: &Desired) -> impl Iterator<Item = &str> {
    desired.exist.keys().chain(&desired.forbidden).chain(&desired.contradicted).map(String::as_str)
}

/// Calls under way at once; the others wait for an answer. Adapters that have failed get half of these places.
const MAX_CALLS: usize = 8;
/// Without a listing for this long, nothing is said to be loaded any more.
const STALE_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
