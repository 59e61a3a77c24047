//! One band: the flows of one priority, whose turn it is, and the order inside a flow.
//!
//! In: requests of a flow as they come and go. Out: the request whose turn it is.
//! The turn is a key in an ordered set, and the fairness policy is only the rule for that key, so
//! every policy costs the same O(log flows). It never decides whether the band may send.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::queue::{Entry, FlowId};
use super::slots::Slots;

/// Whose turn it is among the flows of a band.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fairness {
    /// The request that is first in its own flow's order and first of all flows: EPP's default.
    GlobalStrict,
    /// One request of each flow in turn.
    #[default]
    RoundRobin,
    /// Each flow gets a share of the cost let go in proportion to its weight.
    Weighted,
}

/// Who is first inside a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// Who came first.
    #[default]
    Fcfs,
    /// Whose time in the queue is over first; EPP's `edf`.
    EarliestDeadline,
    /// Whose first token is due first, those without a wish last; EPP's `slo-deadline`.
    SloDeadline,
}

/// How a band works.
#[derive(Clone, Debug)]
pub struct BandPlan {
    /// Whose turn.
    pub fairness: Fairness,
    /// Who first.
    pub ordering: Ordering,
    /// Requests that may wait; 0 is no limit.
    pub max_requests: u64,
    /// Bytes that may wait; 0 is no limit.
    pub max_bytes: u64,
    /// The band may send while the pool's saturation is below this.
    pub ceiling: f64,
    /// Shares of flows under [`Fairness::Weighted`]; a flow not named here has 1.
    pub weights: Arc<HashMap<String, u32>>,
}

/// The flows of one priority.
#[derive(Debug)]
pub struct Band {
    /// Higher goes first.
    pub priority: i32,
    /// How it works.
    pub plan: BandPlan,
    /// Requests waiting.
    pub requests: u64,
    /// Bytes waiting.
    pub bytes: u64,
    /// From the configuration, so never forgotten.
    pub(super) fixed: bool,
    flows: HashMap<Arc<str>, FlowId>,
    /// Flows with requests, by turn.
    turns: BTreeSet<(Turn, FlowId)>,
    /// Round robin: the last turn given. Weighted: virtual time, the start of the last one served.
    clock: u64,
}

/// One flow: the requests of one fairness id at one priority.
#[derive(Debug)]
pub struct Flow {
    /// Its fairness id, or the shared flow's name.
    pub fairness_id: Arc<str>,
    /// Its band.
    pub priority: i32,
    /// Requests waiting.
    pub requests: u64,
    /// Bytes waiting.
    pub bytes: u64,
    /// Tokens a request of this flow used, learnt from reports; 0 before the first.
    pub usual_tokens: u64,
    /// Waiting requests in this flow's order: by the policy's number, then by arrival.
    order: BTreeMap<(u64, u64), u32>,
    turn: Turn,
    /// Weighted: virtual time at which all it was let go is paid for.
    paid: u64,
    weight: u32,
    last_used_nanos: u64,
}

/// Key of a flow's turn: the policy's number, then arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn(u64, u64);

/// Fixed point of virtual time: one unit of cost at weight 1.
const COST_UNIT: u64 = 1 << 10;

impl Band {
    pub(super) fn new(priority: i32, plan: BandPlan, fixed: bool) -> Self {
        Self { priority, plan, requests: 0, bytes: 0, fixed, flows: HashMap::new(), turns: BTreeSet::new(), clock: 0 }
    }

    pub(super) fn flow_of(&self, fairness_id: &str) -> Option<FlowId> {
        self.flows.get(fairness_id).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    pub(super) fn new_flow(&self, fairness_id: Arc<str>, now_nanos: u64) -> Flow {
        let weight = self.plan.weights.get(&*fairness_id).copied().unwrap_or(1).max(1);
        Flow {
            fairness_id,
            priority: self.priority,
            requests: 0,
            bytes: 0,
            usual_tokens: 0,
            order: BTreeMap::new(),
            turn: Turn(0, 0),
            paid: 0,
            weight,
            last_used_nanos: now_nanos,
        }
    }

    pub(super) fn adopt(&mut self, fairness_id: Arc<str>, flow: FlowId) {
        self.flows.insert(fairness_id, flow);
    }

    pub(super) fn forget(&mut self, flow: &Flow) {
        self.flows.remove(&flow.fairness_id);
    }

    pub(super) fn add(&mut self, id: FlowId, flow: &mut Flow, entry: &Entry, arrival: u64, index: u32) {
        let was_idle = flow.order.is_empty();
        flow.order.insert((self.place(entry), arrival), index);
        flow.requests += 1;
        flow.bytes += entry.bytes;
        self.requests += 1;
        self.bytes += entry.bytes;
        if was_idle {
            flow.turn = self.first_turn(flow);
            self.turns.insert((flow.turn, id));
        } else if self.plan.fairness == Fairness::GlobalStrict {
            self.move_turn(id, flow, flow.head());
        }
    }

    pub(super) fn remove(&mut self, id: FlowId, flow: &mut Flow, entry: &Entry, arrival: u64, served: bool) {
        flow.order.remove(&(self.place(entry), arrival));
        flow.requests -= 1;
        flow.bytes -= entry.bytes;
        self.requests -= 1;
        self.bytes -= entry.bytes;
        if served {
            self.pay(flow, entry.cost);
        }
        if flow.order.is_empty() {
            self.turns.remove(&(flow.turn, id));
            return;
        }
        let turn = match self.plan.fairness {
            Fairness::GlobalStrict => flow.head(),
            Fairness::RoundRobin if served => {
                self.clock += 1;
                Turn(self.clock, 0)
            }
            Fairness::Weighted if served => Turn(flow.paid, arrival),
            Fairness::RoundRobin | Fairness::Weighted => return,
        };
        self.move_turn(id, flow, turn);
    }

    /// Index of the request whose turn it is.
    pub(super) fn next(&self, flows: &Slots<Flow>) -> Option<u32> {
        let (_, id) = self.turns.first()?;
        flows.get(*id)?.order.first_key_value().map(|(_, index)| *index)
    }

    /// Index of the request whose turn is last.
    pub(super) fn last(&self, flows: &Slots<Flow>) -> Option<u32> {
        let (_, id) = self.turns.last()?;
        flows.get(*id)?.order.last_key_value().map(|(_, index)| *index)
    }

    /// Corrects what a flow has paid by `more` cost.
    pub(super) fn settle(&mut self, id: FlowId, flow: &mut Flow, more: i64) {
        if self.plan.fairness != Fairness::Weighted {
            return;
        }
        let shift = more.unsigned_abs().saturating_mul(COST_UNIT) / u64::from(flow.weight);
        flow.paid = if more < 0 { flow.paid.saturating_sub(shift) } else { flow.paid.saturating_add(shift) };
        if !flow.order.is_empty() {
            self.move_turn(id, flow, Turn(flow.paid, flow.turn.1));
        }
    }

    const fn place(&self, entry: &Entry) -> u64 {
        match self.plan.ordering {
            Ordering::Fcfs => 0,
            Ordering::EarliestDeadline => entry.expires_nanos,
            Ordering::SloDeadline => entry.wish_nanos,
        }
    }

    /// The turn of a flow that had nothing waiting: never before those who waited meanwhile.
    fn first_turn(&mut self, flow: &mut Flow) -> Turn {
        match self.plan.fairness {
            Fairness::GlobalStrict => flow.head(),
            Fairness::RoundRobin => {
                self.clock += 1;
                Turn(self.clock, 0)
            }
            Fairness::Weighted => {
                flow.paid = flow.paid.max(self.clock);
                Turn(flow.paid, flow.head().1)
            }
        }
    }

    /// Start-time fair queueing: virtual time moves to the start of what is served, and the flow
    /// owes its cost by its weight from there.
    fn pay(&mut self, flow: &mut Flow, cost: u64) {
        if self.plan.fairness == Fairness::Weighted {
            self.clock = self.clock.max(flow.turn.0);
            let price = cost.max(1).saturating_mul(COST_UNIT) / u64::from(flow.weight);
            flow.paid = flow.paid.saturating_add(price);
        }
    }

    fn move_turn(&mut self, id: FlowId, flow: &mut Flow, turn: Turn) {
        if flow.turn != turn {
            self.turns.remove(&(flow.turn, id));
            flow.turn = turn;
            self.turns.insert((turn, id));
        }
    }
}

impl Flow {
    /// Time without a request, or `None` while one waits.
    pub(super) fn idle_for(&self, now_nanos: u64) -> Option<u64> {
        self.order.is_empty().then(|| now_nanos.saturating_sub(self.last_used_nanos))
    }

    pub(super) const fn touch(&mut self, now_nanos: u64) {
        self.last_used_nanos = now_nanos;
    }

    fn head(&self) -> Turn {
        self.order.first_key_value().map_or(Turn(u64::MAX, u64::MAX), |((place, arrival), _)| Turn(*place, *arrival))
    }
}
