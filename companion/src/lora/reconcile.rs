//! What is remembered between listings: calls under way, failures and when to try again.
//!
//! In: the file's wish, listings, the verdicts of calls, and the time. Out: the calls to make now, and for each
//! adapter whether it is loaded as asked. Pure: time and the seed of the jitter are arguments. It never calls for
//! anything without a listing, never has two calls under way for one adapter, and never lets those that failed
//! take the places of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::config::Desired;
use super::diff::{Action, Loaded, diff, differs};
use super::engine::{Engine, Listing, Reason, Verdict};

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

/// One adapter.
#[derive(Debug, Default)]
struct Entry {
    /// Is it loaded as asked, as far as known?
    is_loaded: bool,
    /// The last load that succeeded.
    loaded: Option<Loaded>,
    /// What the first listing after a load showed instead of the source.
    doubted: Option<String>,
    /// Since when it has been seen loaded.
    since: Option<Duration>,
    /// When a call last told its state, for servers whose listing hides adapters.
    told_at: Option<Duration>,
    /// Has a call been answered, or was none needed, since the wish or the server changed?
    is_tried: bool,
    in_flight: bool,
    failures: u32,
    not_before: Duration,
    /// The server wants an unload before the load: it does not swap in place, or an earlier unload broke off.
    unload_first: bool,
    /// When the file stopped naming it.
    unnamed_since: Option<Duration>,
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

    /// One listing, asked for while no answer was taken in. Out: adapters that fail without a call.
    pub(super) fn listed(&mut self, mut listing: Listing, now: Duration) -> Vec<(String, Reason)> {
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

    fn loaded(&self) -> BTreeMap<String, Loaded> {
        self.entries.iter().filter_map(|(id, entry)| Some((id.clone(), entry.loaded.clone()?))).collect()
    }
}

impl Entry {
    /// A listing shows it.
    fn present(&mut self, shown: Option<&str>, now: Duration) {
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
    fn absent(&mut self, now: Duration, pause: Duration) -> bool {
        self.loaded = None;
        let Some(since) = self.since.take() else { return false };
        if now.saturating_sub(since) >= STABLE_AFTER {
            self.failures = 0;
            return false;
        }
        self.fail(now, pause);
        true
    }

    fn fail(&mut self, now: Duration, pause: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause;
    }
}

/// How long to wait after so many failures: doubling, capped, and spread so that pods do not march in step.
fn pause(random: &mut u64, failures: u32) -> Duration {
    // xorshift64
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let full = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(MAX_PAUSE);
    let part = u32::try_from(*random % 512).unwrap_or(0);
    full / 2 + full / 1024 * part
}

fn named(desired: &Desired) -> impl Iterator<Item = &str> {
    desired.exist.keys().chain(&desired.forbidden).chain(&desired.contradicted).map(String::as_str)
}

/// Calls under way at once; the others wait for an answer. Adapters that have failed get half of these places.
const MAX_CALLS: usize = 8;
/// Pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause of an adapter that keeps failing.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// An adapter that was loaded this long has earned a fresh start.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Without a listing for this long, nothing is said to be loaded any more.
const STALE_AFTER: Duration = Duration::from_secs(30);
/// Where listings hide adapters, each is asked for again after this.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A series stays this long after the file stopped naming its adapter.
const SERIES_LINGER: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lora::config::Adapter;

    const IDS: [&str; 4] = ["a", "b", "c", "base"];
    const REASONS: [Reason; 4] = [Reason::Unreachable, Reason::Timeout, Reason::ServerError, Reason::Invalid];

    #[derive(Clone, Debug)]
    enum Step {
        Wish([u8; 4]),
        /// A look at the server and the calls that follow.
        Cycle,
        /// The oldest call ends: as it should; failed and not done; done, but the answer was lost.
        Answer(usize, u8),
        /// No listing.
        Lost(usize),
        /// The server is killed, with the calls under way, and comes back empty.
        Restart,
        /// Somebody else loads an adapter.
        Stranger(usize),
        /// The server throws an adapter out.
        Evict(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => proptest::array::uniform4(0..5_u8).prop_map(Step::Wish),
            4 => Just(Step::Cycle),
            6 => (0..REASONS.len(), 0..3_u8).prop_map(|(reason, how)| Step::Answer(reason, how)),
            1 => (0..REASONS.len()).prop_map(Step::Lost),
            1 => Just(Step::Restart),
            1 => (0..3_usize).prop_map(Step::Stranger),
            1 => (0..3_usize).prop_map(Step::Evict),
            2 => (0..100_u64).prop_map(Step::Wait),
        ]
    }

    /// For each id: 0 unnamed, 1 and 2 wanted from that source, 3 forbidden, 4 contradicted.
    fn wish(choice: [u8; 4]) -> Desired {
        let mut desired = Desired::default();
        for (id, choice) in IDS.iter().zip(choice) {
            let id = (*id).to_owned();
            match choice {
                0 => {}
                3 => drop(desired.forbidden.insert(id)),
                4 => drop(desired.contradicted.insert(id)),
                source => {
                    let adapter = Adapter { id: id.clone(), source: format!("/{source}"), base_model: None };
                    desired.exist.insert(id, adapter);
                }
            }
        }
        desired
    }

    /// Which server is tested: its engine, does its listing hide adapters, does it swap in place.
    #[derive(Clone, Copy)]
    struct Kind {
        engine: Engine,
        hides: bool,
        swaps: bool,
    }

    const KINDS: [Kind; 4] = [
        Kind { engine: Engine::Vllm, hides: false, swaps: true },
        Kind { engine: Engine::Vllm, hides: false, swaps: false },
        Kind { engine: Engine::Sglang, hides: false, swaps: false },
        Kind { engine: Engine::Sglang, hides: true, swaps: false },
    ];

    /// A server, the reconciler that keeps it, and the calls between them.
    struct World {
        kind: Kind,
        has: BTreeMap<String, String>,
        /// SGLang: unloads that broke off.
        broken: BTreeSet<String>,
        calls: Vec<Action>,
        strangers: u32,
        reconciler: Reconciler,
        wish: Desired,
        now: Duration,
    }

    impl World {
        fn new(kind: Kind, start: [u8; 3]) -> Self {
            let held = IDS.iter().zip(start).filter(|(_, source)| *source > 0);
            Self {
                kind,
                has: held.map(|(id, source)| ((*id).to_owned(), format!("/{source}"))).collect(),
                broken: BTreeSet::new(),
                calls: Vec::new(),
                strangers: 0,
                reconciler: Reconciler::new(kind.engine, 7),
                wish: Desired::default(),
                now: Duration::ZERO,
            }
        }

        fn desire(&mut self, choice: [u8; 4]) {
            self.wish = wish(choice);
            self.reconciler.desire(self.wish.clone(), self.now);
        }

        fn listing(&self) -> Listing {
            let adapters = self.has.iter().map(|(id, source)| (id.clone(), Some(source.clone())));
            Listing {
                adapters: if self.kind.hides { BTreeMap::new() } else { adapters.collect() },
                base_models: ["base".to_owned()].into(),
            }
        }

        fn cycle(&mut self) {
            self.reconciler.listed(self.listing(), self.now);
            self.start();
        }

        fn start(&mut self) {
            for action in self.reconciler.next(self.now) {
                let id = action.id().to_owned();
                match &action {
                    Action::Load(adapter) | Action::Replace(adapter) => {
                        assert_eq!(self.wish.exist.get(&id), Some(adapter), "not wished");
                        assert_ne!(id, "base");
                    }
                    Action::Unload(_) => {
                        assert!(
                            self.wish.forbidden.contains(&id) || self.wish.exist.contains_key(&id),
                            "{id}: unnamed"
                        );
                    }
                }
                assert!(self.calls.iter().all(|call| call.id() != id), "two calls for one adapter");
                self.calls.push(action);
            }
            assert!(self.calls.len() <= MAX_CALLS);
        }

        fn apply(&mut self, action: &Action) -> Verdict {
            match action {
                Action::Load(adapter) | Action::Replace(adapter) => {
                    let in_place = matches!(action, Action::Replace(_)) && self.kind.swaps;
                    if self.broken.contains(&adapter.id) {
                        return Verdict::UnloadFirst;
                    }
                    if self.has.contains_key(&adapter.id) && !in_place {
                        return Verdict::AlreadySo;
                    }
                    self.has.insert(adapter.id.clone(), adapter.source.clone());
                    Verdict::Done
                }
                Action::Unload(id) if self.broken.remove(id) => Verdict::Done,
                Action::Unload(id) => self.has.remove(id).map_or(Verdict::AlreadySo, |_| Verdict::Done),
            }
        }

        fn answer(&mut self, reason: Reason, how: u8) {
            if self.calls.is_empty() {
                return;
            }
            let action = self.calls.remove(0);
            let verdict = match (how, &action) {
                (0, _) => self.apply(&action),
                (1, Action::Unload(id)) if self.kind.engine == Engine::Sglang => {
                    if self.has.remove(id).is_some() {
                        self.broken.insert(id.clone());
                    }
                    Verdict::Failed(reason)
                }
                (1, _) => Verdict::Failed(reason),
                _ => {
                    self.apply(&action);
                    Verdict::Failed(reason)
                }
            };
            self.reconciler.finish(&action, verdict, self.now);
            self.start();
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Wish(choice) => self.desire(choice),
                Step::Cycle => self.cycle(),
                Step::Answer(reason, how) => self.answer(REASONS[reason], how),
                Step::Lost(reason) => self.reconciler.lost(REASONS[reason], self.now),
                Step::Restart => {
                    self.has.clear();
                    self.broken.clear();
                    for action in std::mem::take(&mut self.calls) {
                        self.reconciler.finish(&action, Verdict::Failed(Reason::ServerError), self.now);
                    }
                    self.reconciler.lost(Reason::Unreachable, self.now);
                }
                Step::Stranger(which) => {
                    // Each with another source: twice the same, right after a load, is how a server's own spelling shows.
                    self.strangers += 1;
                    self.has.insert(IDS[which].to_owned(), format!("/stranger-{}", self.strangers));
                }
                Step::Evict(which) => drop(self.has.remove(IDS[which])),
                Step::Wait(seconds) => self.now += Duration::from_secs(seconds),
            }
        }

        /// From here on the server does what it is told.
        fn settle(&mut self) {
            for _ in 0..20 {
                self.now += MAX_PAUSE + Duration::from_secs(1);
                self.cycle();
                while !self.calls.is_empty() {
                    self.answer(Reason::Timeout, 0);
                }
            }
            self.cycle();
            assert_eq!(self.calls, [], "it does not come to rest");
        }

        fn assert_as_wished(&self) {
            let status = |id: &str, is_loaded| self.reconciler.statuses().any(|status| status == (id, is_loaded));
            for adapter in self.wish.exist.values().filter(|adapter| adapter.id != "base") {
                let held = self.has.get(&adapter.id);
                assert!(held.is_some() && status(&adapter.id, true), "{} is missing", adapter.id);
                // Where listings hide adapters, a stranger's source cannot be seen.
                assert!(self.kind.hides || held == Some(&adapter.source), "{}: {held:?}", adapter.id);
            }
            for id in &self.wish.forbidden {
                assert!(!self.has.contains_key(id) && status(id, false), "{id} is still there");
            }
            let has_base = self.wish.exist.contains_key("base");
            assert_eq!(self.reconciler.is_satisfied(), !has_base);
            assert_eq!(self.reconciler.waits_for(), None);
        }
    }

    proptest! {
        #[test]
        fn from_any_state_with_any_failures_it_converges_and_never_loads_what_is_forbidden(
            start in proptest::array::uniform3(0..3_u8),
            steps in proptest::collection::vec(step(), 0..60),
            last in proptest::array::uniform4(0..5_u8),
        ) {
            for kind in KINDS {
                let mut world = World::new(kind, start);
                steps.iter().cloned().for_each(|step| world.step(step));
                world.desire(last);
                world.settle();
                world.assert_as_wished();
            }
        }
    }

    #[test]
    fn a_failing_adapter_is_tried_ever_more_rarely_and_another_is_not_delayed() {
        let mut reconciler = Reconciler::new(Engine::Vllm, 3);
        reconciler.desire(wish([1, 0, 0, 0]), Duration::ZERO);
        let mut tries = 0;
        for second in 0..600 {
            let now = Duration::from_secs(second);
            reconciler.listed(Listing::default(), now);
            for action in reconciler.next(now) {
                tries += 1;
                reconciler.finish(&action, Verdict::Failed(Reason::NotFound), now);
            }
        }
        // Doubling from half a second at least to a minute at most: never more than twice that.
        assert!((10..=32).contains(&tries), "{tries}");
        let now = Duration::from_secs(600);
        reconciler.desire(wish([1, 1, 0, 0]), now);
        assert!(reconciler.next(now).iter().any(|action| action.id() == "b"));
    }

    /// Adapters `m0`, `m1` and so on from `/1`.
    fn many(range: std::ops::Range<usize>) -> Desired {
        let adapter = |index| Adapter { id: format!("m{index}"), source: "/1".into(), base_model: None };
        Desired {
            exist: range.map(adapter).map(|adapter| (adapter.id.clone(), adapter)).collect(),
            ..Desired::default()
        }
    }

    #[test]
    fn one_listing_is_enough_for_any_number_of_adapters() {
        let mut reconciler = Reconciler::new(Engine::Vllm, 3);
        reconciler.desire(many(0..100), Duration::ZERO);
        reconciler.listed(Listing::default(), Duration::ZERO);
        let (mut calls, mut done) = (reconciler.next(Duration::ZERO), 0);
        while let Some(action) = calls.pop() {
            done += 1;
            reconciler.finish(&action, Verdict::Done, Duration::ZERO);
            calls.extend(reconciler.next(Duration::ZERO));
        }
        assert_eq!(done, 100);
        assert!(reconciler.is_satisfied());
    }

    #[test]
    fn adapters_that_hang_after_a_failure_leave_places_for_the_others() {
        let mut reconciler = Reconciler::new(Engine::Vllm, 3);
        reconciler.desire(many(0..20), Duration::ZERO);
        reconciler.listed(Listing::default(), Duration::ZERO);
        for _ in 0..3 {
            for action in reconciler.next(Duration::ZERO) {
                reconciler.finish(&action, Verdict::Failed(Reason::Timeout), Duration::ZERO);
            }
        }
        let later = Duration::from_secs(100);
        assert_eq!(reconciler.next(later).len(), MAX_CALLS / 2, "all have failed before");
        reconciler.desire(many(0..30), later);
        let ids: Vec<_> = reconciler.next(later).iter().map(|action| action.id().to_owned()).collect();
        assert_eq!(ids, ["m20", "m21", "m22", "m23"]);
    }

    #[test]
    fn the_series_of_an_adapter_goes_a_while_after_the_file_stopped_naming_it() {
        let mut world = World::new(KINDS[0], [1, 1, 0]);
        world.desire([1, 3, 0, 0]);
        world.settle();
        world.desire([0, 0, 0, 0]);
        world.cycle();
        let shown: Vec<_> = world.reconciler.statuses().collect();
        assert_eq!(shown, [("a", true), ("b", false)]);
        world.now += SERIES_LINGER - Duration::from_secs(1);
        world.cycle();
        assert_eq!(world.reconciler.statuses().count(), 2);
        world.now += Duration::from_secs(1);
        world.cycle();
        assert_eq!(world.reconciler.statuses().count(), 0);
        assert!(world.has.contains_key("a"), "what the file does not name is left alone");
    }

    #[test]
    fn a_failed_load_is_not_loaded_and_a_failed_change_of_source_is_not_a_stale_one() {
        let mut world = World::new(KINDS[0], [1, 0, 0]);
        world.desire([1, 1, 0, 0]);
        world.cycle();
        assert_eq!(world.reconciler.waits_for().as_deref(), Some("not tried yet: b"));
        world.answer(Reason::NotFound, 1);
        assert_eq!(world.reconciler.statuses().collect::<Vec<_>>(), [("a", true), ("b", false)]);
        assert_eq!(world.reconciler.waits_for(), None, "it had its turn");
        world.desire([2, 1, 0, 0]);
        world.cycle();
        world.answer(Reason::NotFound, 1);
        assert_eq!(world.reconciler.statuses().collect::<Vec<_>>(), [("a", false), ("b", false)]);
    }

    #[test]
    fn a_new_wish_does_not_take_a_serving_pod_out_of_service() {
        let mut world = World::new(KINDS[0], [1, 0, 0]);
        world.desire([1, 0, 0, 0]);
        world.cycle();
        assert_eq!(world.reconciler.waits_for(), None);
        world.desire([2, 1, 0, 0]);
        assert_eq!(world.reconciler.waits_for(), None);
        world.step(Step::Restart);
        world.cycle();
        assert_eq!(world.reconciler.waits_for().as_deref(), Some("not tried yet: a and 1 more"));
        world.answer(Reason::Timeout, 0);
        world.answer(Reason::Timeout, 0);
        assert_eq!(world.reconciler.waits_for(), None);
    }

    #[test]
    fn a_mended_source_is_tried_at_once() {
        let mut world = World::new(KINDS[0], [0, 0, 0]);
        world.desire([1, 0, 0, 0]);
        for _ in 0..10 {
            world.now += MAX_PAUSE;
            world.cycle();
            world.answer(Reason::NotFound, 1);
        }
        world.cycle();
        assert_eq!(world.calls, [], "it pauses");
        world.desire([2, 0, 0, 0]);
        world.cycle();
        assert_eq!(world.calls.len(), 1);
    }

    #[test]
    fn where_a_listing_hides_adapters_each_is_asked_for_again_and_a_failure_then_shows() {
        let mut world = World::new(KINDS[3], [0, 0, 0]);
        world.desire([1, 0, 0, 0]);
        world.cycle();
        world.answer(Reason::Timeout, 0);
        world.now += TELL_AGAIN_AFTER;
        world.cycle();
        assert_eq!(world.reconciler.statuses().next(), Some(("a", true)), "it serves while it is asked again");
        world.answer(Reason::Timeout, 1);
        assert_eq!(world.reconciler.statuses().next(), Some(("a", false)));
    }

    #[test]
    fn a_late_answer_is_forgiven_for_half_a_minute_and_a_refused_connection_never() {
        let mut world = World::new(KINDS[0], [1, 0, 0]);
        world.desire([1, 0, 0, 0]);
        world.cycle();
        world.reconciler.lost(Reason::Timeout, world.now + Duration::from_secs(29));
        assert_eq!(world.reconciler.waits_for(), None);
        assert_eq!(world.reconciler.statuses().next(), Some(("a", true)));
        world.desire([1, 1, 0, 0]);
        assert_eq!(world.reconciler.next(world.now), [], "nothing without a listing");
        world.desire([1, 0, 0, 0]);
        world.reconciler.lost(Reason::Timeout, world.now + Duration::from_secs(30));
        assert_eq!(world.reconciler.statuses().next(), Some(("a", false)));
        world.cycle();
        assert_eq!(world.reconciler.waits_for(), None);
        world.reconciler.lost(Reason::Unreachable, world.now);
        assert_eq!(world.reconciler.waits_for().as_deref(), Some("the model server does not answer: unreachable"));
        assert_eq!(world.reconciler.statuses().next(), Some(("a", false)));
    }
}
