//! Promises of the queue and the controller, over random schedules, against slow obvious models.

// Helpers of a test may stop it too; clippy only knows the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use tally_core::admission::{Completed, Outcome};
use tallyd::flow::band::{BandPlan, Fairness, Ordering};
use tallyd::flow::controller::{Ask, Controller, Decided, Plan};
use tallyd::flow::queue::{Entry, Queue, QueuePlan, RequestId};
use tallyd::flow::saturation::{EndpointSample, SaturationPlan};

const MS: u64 = 1_000_000;

fn band(fairness: Fairness, ordering: Ordering) -> BandPlan {
    BandPlan { fairness, ordering, max_requests: 0, max_bytes: 0, ceiling: 1.0, weights: Arc::default() }
}

fn queue_plan(other_bands: BandPlan) -> QueuePlan {
    QueuePlan {
        bands: vec![(0, other_bands.clone())],
        other_negative_bands: other_bands.clone(),
        other_bands,
        max_requests: 0,
        max_bytes: 0,
        max_flows: 1_000,
        idle_nanos: 1_000 * MS,
    }
}

fn entry(now_nanos: u64, cost: u64) -> Entry {
    Entry { bytes: 1, cost, entered_nanos: now_nanos, expires_nanos: u64::MAX, wish_nanos: u64::MAX }
}

/// Round robin in a pool that lets nothing go.
fn closed_plan() -> Plan {
    Plan {
        queue: queue_plan(band(Fairness::RoundRobin, Ordering::Fcfs)),
        saturation: SaturationPlan {
            utilization: false,
            concurrency: true,
            queue_depth_threshold: 5.0,
            kv_cache_util_threshold: 0.8,
            staleness_nanos: 200 * MS,
            budget: true,
            budget_max: 256.0,
            max_concurrency: 0.0,
        },
        cost_in_tokens: false,
        concurrency_in_tokens: false,
        ttl_nanos: 0,
        reject_sheddable: false,
        tell_no_endpoints: false,
    }
}

fn controller(max_concurrency: f64, max_requests: u64) -> Controller<u64> {
    let mut queue = queue_plan(band(Fairness::RoundRobin, Ordering::Fcfs));
    queue.max_requests = max_requests;
    let mut plan = Plan { queue, ttl_nanos: 500 * MS, ..closed_plan() };
    plan.saturation.max_concurrency = max_concurrency;
    Controller::new(plan)
}

/// A request enters, with its number as the tag.
fn enter(
    flow_control: &mut Controller<u64>,
    ask: &Ask<'_>,
    now: u64,
    out: &mut Vec<Decided<u64>>,
) -> Option<RequestId> {
    let flow = flow_control.flow(ask, now);
    flow_control.enter(ask, flow, ask.request, now, out)
}

#[derive(Clone, Debug)]
enum Step {
    Enter { flow: u8, priority: i32, bytes: u64, patience_millis: u64 },
    Leave(usize),
    Complete(usize),
    Lose(usize),
    Pass(u64),
    Stop,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6u8, -2..3i32, 0..2_000u64, 0..900u64).prop_map(|(flow, priority, bytes, patience_millis)| Step::Enter {
            flow, priority, bytes, patience_millis
        }),
        2 => any::<usize>().prop_map(Step::Leave),
        4 => any::<usize>().prop_map(Step::Complete),
        1 => any::<usize>().prop_map(Step::Lose),
        3 => (0..400u64).prop_map(Step::Pass),
    ];
    let end = prop_oneof![3 => Just(Step::Close), 1 => Just(Step::Stop), 6 => Just(Step::Pass(0))];
    (prop::collection::vec(step, 1..300), end).prop_map(|(mut steps, end)| {
        let at = steps.len() * 4 / 5;
        steps.insert(at, end);
        steps
    })
}

/// What the test itself knows: who entered, who has an outcome, who runs.
#[derive(Default)]
struct Books {
    waiting: BTreeMap<u64, RequestId>,
    outcomes: HashMap<u64, Outcome>,
    running: Vec<u64>,
    bytes: HashMap<u64, u64>,
}

impl Books {
    fn take(&mut self, decided: Vec<Decided<u64>>) {
        for decision in decided {
            let before = self.outcomes.insert(decision.tag, decision.outcome);
            assert_eq!(before, None, "request {} was decided twice", decision.tag);
            self.waiting.remove(&decision.tag);
            if decision.outcome == Outcome::Dispatched {
                self.running.push(decision.tag);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_request_has_one_outcome_and_entered_less_outcomes_is_the_queue_at_every_instant(steps in steps()) {
        let mut flow_control = controller(4.0, 40);
        let mut books = Books::default();
        let (mut entered, mut now) = (0u64, 0u64);
        for step in steps {
            let mut out = Vec::new();
            match step {
                Step::Enter { flow, priority, bytes, patience_millis } => {
                    entered += 1;
                    books.bytes.insert(entered, bytes);
                    let fairness_id = flow.to_string();
                    let ask = Ask {
                        fairness_id: &fairness_id, priority, bytes, patience_nanos: patience_millis * MS,
                        first_token_nanos: 0, reporter: 1, request: entered,
                    };
                    if let Some(id) = enter(&mut flow_control, &ask, now, &mut out) {
                        books.waiting.insert(entered, id);
                    }
                }
                Step::Leave(pick) if !books.waiting.is_empty() => {
                    let (&tag, &id) = books.waiting.iter().nth(pick % books.waiting.len()).unwrap();
                    let decision = flow_control.leave(id, now).expect("a waiting request can leave");
                    assert_eq!((decision.tag, decision.outcome), (tag, Outcome::EvictedContextCancelled));
                    out.push(decision);
                    prop_assert!(flow_control.leave(id, now).is_none(), "gone at once");
                }
                Step::Complete(pick) if !books.running.is_empty() => {
                    let request = books.running.swap_remove(pick % books.running.len());
                    let end = Completed { request, prompt_tokens: 10, output_tokens: 20 };
                    flow_control.completed(1, &[end, end], now, &mut out);
                }
                Step::Lose(pick) if !books.running.is_empty() => {
                    // Its report is lost; the full list makes up for it once it is old enough.
                    books.running.swap_remove(pick % books.running.len());
                    now += 6_000 * MS;
                    flow_control.turn(now, &mut out, |_| ());
                    books.take(std::mem::take(&mut out));
                    flow_control.runs(1, &books.running, now, &mut out);
                }
                Step::Pass(millis) => {
                    now += millis * MS;
                    flow_control.turn(now, &mut out, |_| ());
                }
                Step::Stop => flow_control.stop(),
                Step::Close => flow_control.close(now, &mut out),
                _ => {}
            }
            books.take(out);
            prop_assert_eq!(entered - books.outcomes.len() as u64, flow_control.queue_requests());
            prop_assert_eq!(books.waiting.len() as u64, flow_control.queue_requests());
            let bytes: u64 = books.waiting.keys().map(|tag| books.bytes[tag]).sum();
            prop_assert_eq!(bytes, flow_control.queue_bytes());
            prop_assert_eq!(books.running.len() as u64, flow_control.running_requests());
            prop_assert!(books.running.len() <= 4 || flow_control.queue_requests() == 0 || books.running.len() == 4);
        }
        let mut out = Vec::new();
        flow_control.close(now, &mut out);
        books.take(out);
        prop_assert_eq!(entered, books.outcomes.len() as u64);
        prop_assert_eq!(flow_control.queue_requests(), 0);
    }

    /// The model: of all waiting requests of bands that may send, the highest priority; in it the
    /// smallest key of the ordering, then who came first.
    #[test]
    fn global_strict_lets_go_exactly_what_a_sorted_list_would(
        ordering in prop_oneof![Just(Ordering::Fcfs), Just(Ordering::EarliestDeadline), Just(Ordering::SloDeadline)],
        requests in prop::collection::vec((-2..3i32, 0..5u8, 1..50u64, 1..50u64, any::<bool>()), 1..120),
        closed in -2..4i32,
    ) {
        let mut queue = Queue::new(queue_plan(band(Fairness::GlobalStrict, ordering)));
        let mut model = Vec::new();
        for (arrival, (priority, flow, expires, wish, leaves)) in requests.into_iter().enumerate() {
            let flow = queue.flow(priority, &flow.to_string(), 0);
            let entry = Entry { bytes: 1, cost: 1, entered_nanos: 0, expires_nanos: expires, wish_nanos: wish };
            let id = queue.enter(flow, entry, arrival).unwrap();
            let key = match ordering {
                Ordering::Fcfs => 0,
                Ordering::EarliestDeadline => expires,
                Ordering::SloDeadline => wish,
            };
            if leaves {
                queue.leave(id, 0).unwrap();
            } else {
                model.push((-priority, key, arrival));
            }
        }
        model.sort_unstable();
        let (held, open): (Vec<_>, Vec<_>) = model.into_iter().partition(|(negated, ..)| -negated == closed);
        for (_, _, arrival) in open {
            let next = queue.dispatch(0, |band| band.priority != closed).map(|departure| departure.tag);
            prop_assert_eq!(next, Some(arrival), "a closed band holds up no other");
        }
        prop_assert!(queue.dispatch(0, |band| band.priority != closed).is_none());
        prop_assert_eq!(queue.requests(), held.len() as u64);
    }

    /// Whatever comes, goes and is closed in between, and whichever the policy.
    #[test]
    fn no_request_is_let_go_while_one_of_higher_priority_waits_in_an_open_band(
        fairness in prop_oneof![Just(Fairness::GlobalStrict), Just(Fairness::RoundRobin), Just(Fairness::Weighted)],
        ordering in prop_oneof![Just(Ordering::Fcfs), Just(Ordering::EarliestDeadline), Just(Ordering::SloDeadline)],
        steps in prop::collection::vec((0..4u8, -3..4i32, 0..4u8, 1..90u64), 1..200),
    ) {
        let mut queue = Queue::new(queue_plan(band(fairness, ordering)));
        let mut waiting: BTreeMap<i32, Vec<RequestId>> = BTreeMap::new();
        for (kind, priority, flow, number) in steps {
            if kind < 2 {
                let flow = queue.flow(priority, &flow.to_string(), 0);
                let entry = Entry { expires_nanos: number, wish_nanos: 90 - number, ..entry(0, number) };
                waiting.entry(priority).or_default().push(queue.enter(flow, entry, priority).unwrap());
            } else if kind == 2 {
                let due = waiting.keys().rev().find(|band| **band != priority).copied();
                let got = queue.dispatch(0, |band| band.priority != priority).map(|departure| departure.tag);
                prop_assert_eq!(got, due);
                if let Some(band) = got {
                    let ids = waiting.get_mut(&band).unwrap();
                    ids.retain(|id| queue.holds(*id));
                    if ids.is_empty() {
                        waiting.remove(&band);
                    }
                }
            } else if let Some(ids) = waiting.get_mut(&priority) {
                let id = ids.swap_remove(number as usize % ids.len());
                prop_assert!(queue.leave(id, 0).is_some());
                if ids.is_empty() {
                    waiting.remove(&priority);
                }
            }
        }
    }

    #[test]
    fn equal_flows_get_equal_shares_whatever_they_offer(
        weighted in any::<bool>(),
        offers in prop::collection::vec(1..20u64, 2..12),
    ) {
        let fairness = if weighted { Fairness::Weighted } else { Fairness::RoundRobin };
        let mut queue = Queue::new(queue_plan(band(fairness, Ordering::Fcfs)));
        let served = serve(&mut queue, &offers.iter().map(|offer| (*offer, 1)).collect::<Vec<_>>(), 400);
        prop_assert!(jain(&served) >= 0.99, "{served:?}");
    }

    #[test]
    fn weighted_flows_get_their_shares_of_cost_within_two_percent(
        flows in prop::collection::vec((1..8u32, 1..30u64), 2..8),
    ) {
        let weights: HashMap<String, u32> = (0..).zip(&flows).map(|(at, (weight, _))| (format!("{at}"), *weight)).collect();
        let plan = BandPlan { weights: Arc::new(weights), ..band(Fairness::Weighted, Ordering::Fcfs) };
        let mut queue = Queue::new(queue_plan(plan));
        let offers: Vec<(u64, u64)> = flows.iter().map(|(_, cost)| (1, *cost)).collect();
        let served = serve(&mut queue, &offers, 20_000);
        let all: f64 = served.iter().zip(&offers).map(|(count, (_, cost))| count * *cost as f64).sum();
        let weights: f64 = flows.iter().map(|(weight, _)| f64::from(*weight)).sum();
        for ((count, (_, cost)), (weight, _)) in served.iter().zip(&offers).zip(&flows) {
            let share = count * *cost as f64 / all;
            let due = f64::from(*weight) / weights;
            prop_assert!((share / due - 1.0).abs() < 0.02, "share {share}, due {due}");
        }
    }
}

/// Keeps every flow backlogged (flow `at` enters `burst` at a time) and lets `total` requests go.
fn serve(queue: &mut Queue<usize>, offers: &[(u64, u64)], total: u64) -> Vec<f64> {
    let mut served = vec![0.0; offers.len()];
    let mut backlog = vec![0; offers.len()];
    for _ in 0..total {
        for (at, (burst, cost)) in offers.iter().enumerate() {
            let flow = queue.flow(0, &at.to_string(), 0);
            while backlog[at] < *burst {
                queue.enter(flow, entry(0, *cost), at).unwrap();
                backlog[at] += 1;
            }
        }
        let at = queue.dispatch(0, |_| true).unwrap().tag;
        served[at] += 1.0;
        backlog[at] -= 1;
    }
    served
}

fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

#[test]
fn what_was_charged_too_little_is_made_good_when_the_real_cost_is_known() {
    let mut queue = Queue::new(queue_plan(band(Fairness::Weighted, Ordering::Fcfs)));
    let (cheap, dear) = (queue.flow(0, "cheap", 0), queue.flow(0, "dear", 0));
    for _ in 0..300 {
        queue.enter(cheap, entry(0, 10), "cheap").unwrap();
        queue.enter(dear, entry(0, 10), "dear").unwrap();
    }
    let mut served = HashMap::new();
    for _ in 0..200 {
        let departure = queue.dispatch(0, |_| true).unwrap();
        *served.entry(departure.tag).or_insert(0) += 1;
        if departure.tag == "dear" {
            queue.settle(departure.flow, 30);
        }
    }
    // Each got half of the tokens: 160 × 10 and 40 × 40.
    assert_eq!((served["cheap"], served["dear"]), (160, 40));
}

#[test]
fn a_request_that_leaves_frees_its_place_and_its_bytes_at_once() {
    let mut plan = queue_plan(band(Fairness::RoundRobin, Ordering::Fcfs));
    plan.max_bytes = 10;
    let mut queue = Queue::new(plan);
    let flow = queue.flow(0, "a", 0);
    let full = Entry { bytes: 10, ..entry(0, 1) };
    let id = queue.enter(flow, full, ()).unwrap();
    assert!(queue.enter(flow, entry(0, 1), ()).is_err());
    queue.leave(id, 0).unwrap();
    assert!(queue.enter(flow, full, ()).is_ok());
}

#[test]
fn a_full_queue_gives_up_a_sheddable_request_for_one_of_higher_priority_and_no_other() {
    let mut flow_control = controller(0.0, 2);
    let mut out = Vec::new();
    let ask = |priority, request| Ask {
        fairness_id: "a",
        priority,
        bytes: 0,
        patience_nanos: 0,
        first_token_nanos: 0,
        reporter: 1,
        request,
    };
    for (priority, request) in [(-1, 1), (-1, 2), (0, 3), (-1, 4), (5, 5), (6, 6)] {
        enter(&mut flow_control, &ask(priority, request), 0, &mut out);
    }
    let outcomes: Vec<_> = out.iter().map(|decision| (decision.tag, decision.outcome)).collect();
    assert_eq!(
        outcomes,
        [
            (2, Outcome::EvictedOther),
            (4, Outcome::RejectedCapacity),
            (1, Outcome::EvictedOther),
            (6, Outcome::RejectedCapacity),
        ]
    );
}

/// What gives way must make room: neither a full band of one's own nor a body beyond the limit is a reason.
#[test]
fn nothing_is_given_up_for_a_request_that_cannot_enter_anyway() {
    let mut plan = queue_plan(band(Fairness::RoundRobin, Ordering::Fcfs));
    plan.bands = vec![(0, BandPlan { max_requests: 1, ..band(Fairness::RoundRobin, Ordering::Fcfs) })];
    plan.max_bytes = 100;
    let mut flow_control = Controller::new(Plan { queue: plan, ..closed_plan() });
    let mut out = Vec::new();
    let ask = |priority, request, bytes| Ask {
        fairness_id: "a",
        priority,
        bytes,
        patience_nanos: 0,
        first_token_nanos: 0,
        reporter: 1,
        request,
    };
    for (priority, request, bytes) in [(-1, 1, 30), (-1, 2, 30), (0, 3, 30), (0, 4, 1), (5, 5, 71), (5, 6, 70)] {
        enter(&mut flow_control, &ask(priority, request, bytes), 0, &mut out);
    }
    let outcomes: Vec<_> = out.iter().map(|decision| (decision.tag, decision.outcome)).collect();
    assert_eq!(
        outcomes,
        [
            (4, Outcome::RejectedCapacity),
            (5, Outcome::RejectedCapacity),
            (2, Outcome::EvictedOther),
            (1, Outcome::EvictedOther),
        ]
    );
    assert_eq!((flow_control.queue_requests(), flow_control.queue_bytes()), (2, 100));
}

#[test]
fn a_report_of_absurd_tokens_does_not_hold_its_flow_back_for_ever() {
    let weighted = band(Fairness::Weighted, Ordering::Fcfs);
    let mut plan = Plan { queue: queue_plan(weighted), cost_in_tokens: true, ..closed_plan() };
    plan.saturation.max_concurrency = 1.0;
    let mut flow_control = Controller::new(plan);
    let mut out = Vec::new();
    let ask = |request| Ask {
        fairness_id: "a",
        priority: 0,
        bytes: 0,
        patience_nanos: 0,
        first_token_nanos: 0,
        reporter: 1,
        request,
    };
    enter(&mut flow_control, &ask(1), 0, &mut out);
    let end = Completed { request: 1, prompt_tokens: u64::MAX, output_tokens: u64::MAX };
    flow_control.completed(1, &[end], 0, &mut out);
    let flow = flow_control.flow(&ask(2), 0);
    assert_eq!(flow_control.flow_info(flow).unwrap().usual_tokens, 1 << 24);
}

#[test]
fn an_idle_flow_and_a_band_made_by_requests_are_forgotten_and_others_stay() {
    let mut queue = Queue::new(queue_plan(band(Fairness::RoundRobin, Ordering::Fcfs)));
    let busy = queue.flow(0, "busy", 0);
    queue.enter(busy, entry(0, 1), ()).unwrap();
    let idle = queue.flow(7, "idle", 0);
    let mut gone = Vec::new();
    queue.collect(999 * MS, |_, flow| gone.push(flow.fairness_id.to_string()));
    assert!(gone.is_empty());
    queue.collect(1_000 * MS, |_, flow| gone.push(flow.fairness_id.to_string()));
    assert_eq!((gone, queue.flows()), (vec!["idle".to_string()], 1));
    assert!(queue.flow_info(idle).is_none() && queue.band_of(busy).is_some());
}

#[test]
fn ids_beyond_the_cap_share_one_flow() {
    let mut plan = queue_plan(band(Fairness::RoundRobin, Ordering::Fcfs));
    plan.max_flows = 3;
    let mut queue: Queue<()> = Queue::new(plan);
    for id in 0..1_000 {
        queue.flow(0, &id.to_string(), 0);
    }
    assert_eq!(queue.flows(), 4);
    assert_eq!(queue.flow(0, "998", 0), queue.flow(0, "999", 0));
    assert_ne!(queue.flow(0, "0", 0), queue.flow(0, "1", 0));
}

#[test]
fn a_lower_band_stops_at_its_ceiling_while_a_higher_one_goes_on() {
    let mut flow_control = {
        let mut plan = queue_plan(band(Fairness::RoundRobin, Ordering::Fcfs));
        plan.other_negative_bands.ceiling = 0.5;
        Controller::new(Plan {
            queue: plan,
            saturation: SaturationPlan {
                utilization: true,
                concurrency: false,
                queue_depth_threshold: 5.0,
                kv_cache_util_threshold: 0.8,
                staleness_nanos: 200 * MS,
                budget: false,
                budget_max: 256.0,
                max_concurrency: 1.0,
            },
            cost_in_tokens: false,
            concurrency_in_tokens: false,
            ttl_nanos: 0,
            reject_sheddable: false,
            tell_no_endpoints: false,
        })
    };
    let mut out = Vec::new();
    let ask = |priority, request| Ask {
        fairness_id: "a",
        priority,
        bytes: 0,
        patience_nanos: 0,
        first_token_nanos: 0,
        reporter: 1,
        request,
    };
    flow_control.observe(&[EndpointSample { waiting: 3.0, kv_usage: 0.0, sampled_nanos: Some(0) }], 0, &mut out);
    enter(&mut flow_control, &ask(-1, 1), 0, &mut out);
    assert!(out.is_empty());
    enter(&mut flow_control, &ask(0, 2), 0, &mut out);
    assert_eq!(out.iter().map(|decision| decision.tag).collect::<Vec<_>>(), [2]);
    flow_control.observe(&[EndpointSample { waiting: 2.0, kv_usage: 0.0, sampled_nanos: Some(0) }], 0, &mut out);
    assert_eq!(out.iter().map(|decision| decision.tag).collect::<Vec<_>>(), [2, 1]);
}
