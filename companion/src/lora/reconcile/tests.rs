use proptest::prelude::*;

use super::entry::MAX_PAUSE;
use super::learn::{SERIES_LINGER, TELL_AGAIN_AFTER};
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
                    assert!(self.wish.forbidden.contains(&id) || self.wish.exist.contains_key(&id), "{id}: unnamed");
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
    Desired { exist: range.map(adapter).map(|adapter| (adapter.id.clone(), adapter)).collect(), ..Desired::default() }
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
