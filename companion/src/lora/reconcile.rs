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
            self.blind = Some(reason);
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
            (None, Some(_)) => {}
        }
        let waits = |entry: &Entry| !entry.is_tried && entry.unnamed_since.is_none();
        let mut waiting = self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(id, _)| id.as_str());
        let first = waiting.next()?;
        match waiting.count() {
            0 => Some(format!("not tried yet: {first}")),
            more => Some(format!("not tried yet: {first} and {more} more")),
        }
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

    #[derive(Clone, Debug)]
    enum Step {
        /// For each id: 0 unnamed, 1-2 wanted from that source, 3 forbidden.
        Wish([u8; 4]),
        Cycle,
        /// Answer the oldest call: 0 done, 1 failed before, 2 done but the answer was lost.
        Answer(u8),
        Restart,
        Stranger(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::array::uniform4(0..4_u8).prop_map(Step::Wish),
            Just(Step::Cycle),
            Just(Step::Cycle),
            (0..3_u8).prop_map(Step::Answer),
            (0..3_u8).prop_map(Step::Answer),
            Just(Step::Restart),
            (0..3_usize).prop_map(Step::Stranger),
            (0..100_u64).prop_map(Step::Wait),
        ]
    }

    fn wish(choice: [u8; 4]) -> Desired {
        let mut desired = Desired::default();
        for (id, choice) in IDS.iter().zip(choice) {
            let id = (*id).to_owned();
            match choice {
                0 => {}
                3 => {
                    desired.forbidden.insert(id);
                }
                source => {
                    let adapter = Adapter { id: id.clone(), source: format!("/{source}"), base_model: None };
                    desired.exist.insert(id, adapter);
                }
            }
        }
        desired
    }

    /// A server that does what it is told.
    struct Server {
        engine: Engine,
        hides: bool,
        swaps: bool,
        has: BTreeMap<String, String>,
        calls: Vec<Action>,
    }

    impl Server {
        fn listing(&self) -> Listing {
            let adapters = self.has.iter().map(|(id, source)| (id.clone(), Some(source.clone())));
            Listing {
                adapters: if self.hides { BTreeMap::new() } else { adapters.collect() },
                base_models: ["base".to_owned()].into(),
            }
        }

        fn apply(&mut self, action: &Action) -> Verdict {
            match action {
                Action::Load(adapter) | Action::Replace(adapter) => {
                    let in_place = matches!(action, Action::Replace(_)) && self.swaps;
                    if self.has.contains_key(&adapter.id) && !in_place {
                        return Verdict::AlreadySo;
                    }
                    self.has.insert(adapter.id.clone(), adapter.source.clone());
                    Verdict::Done
                }
                Action::Unload(id) => self.has.remove(id).map_or(Verdict::AlreadySo, |_| Verdict::Done),
            }
        }
    }

    fn cycle(reconciler: &mut Reconciler, server: &mut Server, now: Duration) {
        let plan = reconciler.plan(&server.listing(), now);
        for action in plan.actions {
            if let Action::Load(adapter) | Action::Replace(adapter) = &action {
                assert!(!reconciler.desired.forbidden.contains(&adapter.id), "{action:?} is forbidden");
                assert_ne!(adapter.id, "base");
            }
            assert!(server.calls.iter().all(|call| call.id() != action.id()), "two calls for one adapter");
            server.calls.push(action);
        }
        assert!(server.calls.len() <= MAX_CALLS);
    }

    fn run(engine: Engine, hides: bool, swaps: bool, steps: Vec<Step>, last: [u8; 4]) {
        let mut server = Server { engine, hides, swaps, has: BTreeMap::new(), calls: Vec::new() };
        let mut reconciler = Reconciler::new(server.engine, 7);
        let (mut now, mut strangers) = (Duration::ZERO, 0);
        for step in steps {
            match step {
                Step::Wish(choice) => reconciler.desire(wish(choice), now),
                Step::Cycle => cycle(&mut reconciler, &mut server, now),
                Step::Answer(how) if !server.calls.is_empty() => {
                    let action = server.calls.remove(0);
                    let verdict = if how == 1 { Verdict::Done } else { server.apply(&action) };
                    let verdict = if how == 0 { verdict } else { Verdict::Failed(Reason::Timeout) };
                    reconciler.finish(&action, verdict, now);
                }
                Step::Answer(_) => {}
                Step::Restart => {
                    server.has.clear();
                    reconciler.lost(Reason::Unreachable, now);
                }
                // Who hides adapters cannot be watched for strangers' doings.
                Step::Stranger(which) if !hides => {
                    strangers += 1;
                    server.has.insert(IDS[which].to_owned(), format!("/stranger-{strangers}"));
                }
                Step::Stranger(_) => {}
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
        }
        let desired = wish(last);
        reconciler.desire(desired.clone(), now);
        for _ in 0..20 {
            now += Duration::from_secs(61);
            cycle(&mut reconciler, &mut server, now);
            for action in std::mem::take(&mut server.calls) {
                let verdict = server.apply(&action);
                reconciler.finish(&action, verdict, now);
            }
        }
        cycle(&mut reconciler, &mut server, now);
        for adapter in desired.exist.values().filter(|adapter| adapter.id != "base") {
            assert!(server.has.contains_key(&adapter.id), "{} is missing", adapter.id);
            if !hides {
                assert_eq!(server.has.get(&adapter.id), Some(&adapter.source), "{}", adapter.id);
            }
            assert!(reconciler.statuses().any(|status| status == (adapter.id.as_str(), true)), "{}", adapter.id);
        }
        for id in &desired.forbidden {
            assert!(!server.has.contains_key(id), "{id} is still there");
            assert!(reconciler.statuses().any(|status| status == (id.as_str(), false)), "{id}");
        }
    }

    proptest! {
        #[test]
        fn from_any_state_with_any_failures_it_converges_and_never_loads_what_is_forbidden(
            steps in proptest::collection::vec(step(), 0..60),
            last in proptest::array::uniform4(0..4_u8),
        ) {
            run(Engine::Vllm, false, true, steps.clone(), last);
            run(Engine::Vllm, false, false, steps.clone(), last);
            run(Engine::Sglang, false, false, steps.clone(), last);
            run(Engine::Sglang, true, false, steps, last);
        }
    }

    #[test]
    fn a_failing_adapter_is_tried_ever_more_rarely_and_another_is_not_delayed() {
        let mut reconciler = Reconciler::new(Engine::Vllm, 3);
        reconciler.desire(wish([1, 0, 0, 0]), Duration::ZERO);
        let mut tries = 0;
        for second in 0..600 {
            let now = Duration::from_secs(second);
            for action in reconciler.plan(&Listing::default(), now).actions {
                tries += 1;
                reconciler.finish(&action, Verdict::Failed(Reason::NotFound), now);
            }
        }
        // Doubling from half a second at least to a minute at most: never more than twice that.
        assert!((10..=32).contains(&tries), "{tries}");
        let now = Duration::from_secs(600);
        reconciler.desire(wish([1, 1, 0, 0]), now);
        assert!(reconciler.plan(&Listing::default(), now).actions.iter().any(|action| action.id() == "b"));
    }
}
