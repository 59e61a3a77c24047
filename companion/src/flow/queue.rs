//! The queue of flow control: bands by priority, flows inside a band, order inside a flow.
//!
//! In: requests with priority, fairness id, bytes, cost and expiry; a gate that says which bands may
//! send now. Out: the next request to let go, the ones whose time is over, the ones displaced.
//! It never reads a clock (`now_nanos` is an argument), never wakes anyone and never counts metrics.
//!
//! Entering, letting go, leaving and expiring are O(log n); a request that leaves frees its place,
//! its bytes and its memory at once, wherever it stood.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::band::{Band, BandPlan, Flow};
use super::slots::{Id, Slots};

/// Names a waiting request; stays wrong for ever once the request has left.
pub type RequestId = Id<Request>;
/// Names a flow; stays wrong for ever once the flow was collected.
pub type FlowId = Id<Flow>;

/// Limits and plans of a queue.
#[derive(Clone, Debug)]
pub struct QueuePlan {
    /// Bands that exist from the start and are never collected.
    pub bands: Vec<(i32, BandPlan)>,
    /// Plan of a band that a request with another priority >= 0 creates.
    pub other_bands: BandPlan,
    /// Plan of a band that a request with another priority < 0 creates.
    pub other_negative_bands: BandPlan,
    /// Requests that may wait in all bands together; 0 is no limit.
    pub max_requests: u64,
    /// Bytes that may wait in all bands together; 0 is no limit.
    pub max_bytes: u64,
    /// Flows that may exist at once; beyond it, new ids of a band share the flow [`SHARED_FLOW`].
    pub max_flows: usize,
    /// A flow, or a band that a request created, is forgotten after this time without requests.
    pub idle_nanos: u64,
}

/// What is known of a request when it enters.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Body bytes; 0 where unknown.
    pub bytes: u64,
    /// What letting it go costs its flow under weighted fairness, in the plan's unit.
    pub cost: u64,
    /// When it entered.
    pub entered_nanos: u64,
    /// When its time is over; `u64::MAX` is never.
    pub expires_nanos: u64,
    /// When its client wants the first token; `u64::MAX` is no wish.
    pub wish_nanos: u64,
}

/// A request that has left the queue.
#[derive(Debug)]
pub struct Departure<T> {
    /// What the caller gave with it.
    pub tag: T,
    /// Its flow.
    pub flow: FlowId,
    /// What was known of it.
    pub entry: Entry,
}

/// Why a request could not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Its band is at a limit.
    Band,
    /// All bands together are at a limit.
    Total,
}

/// Marks ids of requests.
#[derive(Debug)]
pub enum Request {}

/// One waiting request.
#[derive(Debug)]
struct Waiting<T> {
    tag: T,
    flow: FlowId,
    entry: Entry,
    /// Place in the order of arrival.
    arrival: u64,
}

/// Bands of flows of waiting requests. See the file's head.
#[derive(Debug)]
pub struct Queue<T> {
    plan: QueuePlan,
    /// Highest priority first.
    bands: Vec<Band>,
    flows: Slots<Flow>,
    waiting: Slots<Waiting<T>, Request>,
    expiries: BTreeSet<(u64, u32)>,
    arrivals: u64,
    requests: u64,
    bytes: u64,
}

/// The flow that ids beyond [`QueuePlan::max_flows`] share.
pub const SHARED_FLOW: &str = "other";
/// Bands that may exist; a request of yet another priority joins the next lower band.
pub const MAX_BANDS: usize = 256;

impl<T> Queue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(plan: QueuePlan) -> Self {
        let mut queue = Self {
            bands: Vec::new(),
            flows: Slots::new(),
            waiting: Slots::new(),
            expiries: BTreeSet::new(),
            arrivals: 0,
            requests: 0,
            bytes: 0,
            plan,
        };
        for (priority, band) in queue.plan.bands.clone() {
            let at = queue.bands.partition_point(|other| other.priority > priority);
            queue.bands.insert(at, Band::new(priority, band, true));
        }
        queue
    }

    /// Requests waiting.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Bytes waiting.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Flows that exist, waiting or idle.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// The flow of this id at this priority, made if need be.
    pub fn flow(&mut self, priority: i32, fairness_id: &str, now_nanos: u64) -> FlowId {
        let at = self.band_at(priority);
        let Some(band) = self.bands.get_mut(at) else { return FlowId::NONE };
        let id = if self.flows.len() < self.plan.max_flows { fairness_id } else { SHARED_FLOW };
        if let Some(flow) = band.flow_of(fairness_id).or_else(|| band.flow_of(id)) {
            return flow;
        }
        let name: Arc<str> = id.into();
        let flow = self.flows.insert(band.new_flow(name.clone(), now_nanos));
        band.adopt(name, flow);
        flow
    }

    /// What is known of a flow.
    #[must_use]
    pub fn flow_info(&self, flow: FlowId) -> Option<&Flow> {
        self.flows.get(flow)
    }

    /// The band a flow belongs to.
    #[must_use]
    pub fn band_of(&self, flow: FlowId) -> Option<&Band> {
        let priority = self.flows.get(flow)?.priority;
        self.bands.get(self.bands.partition_point(|band| band.priority > priority))
    }

    /// Whether a request of this size may enter a flow.
    ///
    /// # Errors
    /// When its band or all bands together are at a limit; its band is looked at first.
    pub fn room(&self, flow: FlowId, bytes: u64) -> Result<(), Full> {
        let band = self.band_of(flow).ok_or(Full::Band)?;
        if over(band.plan.max_requests, band.requests, 1) || over(band.plan.max_bytes, band.bytes, bytes) {
            return Err(Full::Band);
        }
        if over(self.plan.max_requests, self.requests, 1) || over(self.plan.max_bytes, self.bytes, bytes) {
            return Err(Full::Total);
        }
        Ok(())
    }

    /// Whether all bands together would have room for a request of `priority` once every request
    /// that has to give way to it were gone.
    #[must_use]
    pub fn room_by_displacing(&self, priority: i32, bytes: u64) -> bool {
        let give_way = self.bands.iter().rev().take_while(|band| gives_way(band.priority, priority));
        let (fewer, less) = give_way.fold((0, 0), |(fewer, less), band| (fewer + band.requests, less + band.bytes));
        !over(self.plan.max_requests, self.requests - fewer, 1) && !over(self.plan.max_bytes, self.bytes - less, bytes)
    }

    /// Puts a request into a flow, or gives it back with the limit that it met.
    ///
    /// # Errors
    /// As [`Self::room`].
    pub fn enter(&mut self, flow: FlowId, entry: Entry, tag: T) -> Result<RequestId, (Full, T)> {
        if let Err(full) = self.room(flow, entry.bytes) {
            return Err((full, tag));
        }
        let Some(line) = self.flows.get_mut(flow) else { return Err((Full::Band, tag)) };
        let at = self.bands.partition_point(|band| band.priority > line.priority);
        let Some(band) = self.bands.get_mut(at) else { return Err((Full::Band, tag)) };
        let arrival = self.arrivals;
        self.arrivals += 1;
        let id = self.waiting.insert(Waiting { tag, flow, entry, arrival });
        band.add(flow, line, &entry, arrival, id.index());
        if entry.expires_nanos != u64::MAX {
            self.expiries.insert((entry.expires_nanos, id.index()));
        }
        self.requests += 1;
        self.bytes += entry.bytes;
        Ok(id)
    }

    /// Takes the next request to let go: from the highest band that has one and that `gate` lets
    /// send. A band that may not send holds up no other.
    pub fn dispatch(&mut self, now_nanos: u64, mut gate: impl FnMut(&Band) -> bool) -> Option<Departure<T>> {
        let mut next = None;
        for band in &self.bands {
            if band.requests == 0 || !gate(band) {
                continue;
            }
            next = band.next(&self.flows);
            if next.is_some() {
                break;
            }
        }
        self.take(next?, now_nanos, true)
    }

    /// Whether this request still waits.
    #[must_use]
    pub fn holds(&self, id: RequestId) -> bool {
        self.waiting.index_of(id).is_some()
    }

    /// Takes a request out of turn: its caller left.
    pub fn leave(&mut self, id: RequestId, now_nanos: u64) -> Option<Departure<T>> {
        let index = self.waiting.index_of(id)?;
        self.take(index, now_nanos, false)
    }

    /// Takes one request whose time is over, if there is one.
    pub fn expire(&mut self, now_nanos: u64) -> Option<Departure<T>> {
        let &(expires_nanos, index) = self.expiries.first()?;
        if expires_nanos > now_nanos {
            return None;
        }
        self.take(index, now_nanos, false)
    }

    /// When the next request's time is over.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiries.first().map(|(expires_nanos, _)| *expires_nanos)
    }

    /// Takes the request that gives way to one of `priority`: of the lowest band, if that is below
    /// zero and below `priority`, from the flow whose turn is last, the one that came last.
    pub fn displace(&mut self, priority: i32, now_nanos: u64) -> Option<Departure<T>> {
        let band = self.bands.iter().rev().find(|band| band.requests > 0)?;
        if !gives_way(band.priority, priority) {
            return None;
        }
        let index = band.last(&self.flows)?;
        self.take(index, now_nanos, false)
    }

    /// Takes any one waiting request, lowest band last: for the end of a drain.
    pub fn take_any(&mut self, now_nanos: u64) -> Option<Departure<T>> {
        self.dispatch(now_nanos, |_| true)
    }

    /// Moves a flow's usual tokens.
    pub fn learn(&mut self, flow: FlowId, toward: impl Fn(u64) -> u64) {
        if let Some(line) = self.flows.get_mut(flow) {
            line.usual_tokens = toward(line.usual_tokens);
        }
    }

    /// Charges a flow for what its request really cost, beyond (or below) what was estimated.
    pub fn settle(&mut self, flow: FlowId, more: i64) {
        let Some(line) = self.flows.get_mut(flow) else { return };
        let at = self.bands.partition_point(|band| band.priority > line.priority);
        if let Some(band) = self.bands.get_mut(at) {
            band.settle(flow, line, more);
        }
    }

    /// Forgets flows, and bands that requests created, that were idle for the plan's time.
    pub fn collect(&mut self, now_nanos: u64, mut gone: impl FnMut(FlowId, &Flow)) {
        let idle_nanos = self.plan.idle_nanos;
        let old: Vec<FlowId> = self.flows.ids(|flow| flow.idle_for(now_nanos).is_some_and(|idle| idle >= idle_nanos));
        for id in old {
            let Some(flow) = self.flows.remove(id) else { continue };
            gone(id, &flow);
            let at = self.bands.partition_point(|band| band.priority > flow.priority);
            if let Some(band) = self.bands.get_mut(at) {
                band.forget(&flow);
            }
        }
        self.bands.retain(|band| band.fixed || !band.is_empty());
    }

    /// Position of the band for a priority, made if need be.
    fn band_at(&mut self, priority: i32) -> usize {
        let at = self.bands.partition_point(|band| band.priority > priority);
        if self.bands.get(at).is_some_and(|band| band.priority == priority) {
            return at;
        }
        if self.bands.len() >= MAX_BANDS {
            return at.min(self.bands.len() - 1);
        }
        let plan = if priority < 0 { &self.plan.other_negative_bands } else { &self.plan.other_bands };
        self.bands.insert(at, Band::new(priority, plan.clone(), false));
        at
    }

    fn take(&mut self, index: u32, now_nanos: u64, served: bool) -> Option<Departure<T>> {
        let Waiting { tag, flow, entry, arrival } = self.waiting.remove_at(index)?;
        if entry.expires_nanos != u64::MAX {
            self.expiries.remove(&(entry.expires_nanos, index));
        }
        self.requests -= 1;
        self.bytes -= entry.bytes;
        let line = self.flows.get_mut(flow)?;
        let at = self.bands.partition_point(|band| band.priority > line.priority);
        let band = self.bands.get_mut(at)?;
        band.remove(flow, line, &entry, arrival, served);
        line.touch(now_nanos);
        Some(Departure { tag, flow, entry })
    }
}

/// Whether a waiting request of one priority is given up for one of another that enters.
const fn gives_way(waiting: i32, enters: i32) -> bool {
    waiting < 0 && waiting < enters
}

const fn over(limit: u64, held: u64, more: u64) -> bool {
    limit > 0 && held.saturating_add(more) > limit
}
