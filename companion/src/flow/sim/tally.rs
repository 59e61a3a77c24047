//! What came of a simulated run: by class, by flow, over time.
//!
//! In: each request's moments. Out: waits, first tokens, goodput, fairness, starvation. It never decides anything.

use tally_core::admission::Outcome;

use super::scenario::Scenario;

/// Points of a curve over the whole run.
pub const POINTS: usize = 120;

/// One run.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By class, in the file's order.
    pub classes: Vec<ClassTally>,
    /// Requests waiting inside the servers, at each point.
    pub in_servers: Vec<f64>,
    seconds: f64,
}

/// What came of one class.
#[derive(Clone, Debug)]
pub struct ClassTally {
    /// Requests that came.
    pub asked: u64,
    /// Outcomes in flow control, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Clients that left while their request waited inside a server.
    pub left_server: u64,
    /// Requests whose first token came in time.
    pub good: u64,
    /// Their output tokens.
    pub good_tokens: u64,
    /// Seconds in flow control's queue of those let go.
    pub waits: Vec<f32>,
    /// Seconds to the first token of those that got one.
    pub first_tokens: Vec<f32>,
    /// Longest time in which a flow had requests waiting and none was let go, in seconds.
    pub starved: f64,
    /// By fairness id.
    pub flows: Vec<FlowTally>,
    /// Mean time to first token by when it came, at each point; `None` where none came.
    pub first_token_curve: Vec<Option<f64>>,
    /// Requests waiting in flow control at each point.
    pub waiting_curve: Vec<f64>,
    sums: Vec<(f64, u32)>,
}

/// What came of one fairness id.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowTally {
    /// Tokens asked for.
    pub offered: u64,
    /// Tokens of requests that a server ran.
    pub served: u64,
    waiting: u32,
    hungry_since_nanos: u64,
}

impl Tally {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let class = |flows: usize| ClassTally {
            asked: 0,
            outcomes: [0; Outcome::ALL.len()],
            left_server: 0,
            good: 0,
            good_tokens: 0,
            waits: Vec::new(),
            first_tokens: Vec::new(),
            starved: 0.0,
            flows: vec![FlowTally::default(); flows],
            first_token_curve: Vec::new(),
            waiting_curve: vec![0.0; POINTS],
            sums: vec![(0.0, 0); POINTS],
        };
        Self {
            classes: scenario.classes.iter().map(|of| class(of.fairness_ids)).collect(),
            in_servers: vec![0.0; POINTS],
            seconds: scenario.seconds,
        }
    }

    /// A request comes and waits until [`Self::decided`].
    pub(super) fn asked(&mut self, class: usize, flow: usize, tokens: u64, now_nanos: u64) {
        let Some(class) = self.classes.get_mut(class) else { return };
        class.asked += 1;
        let Some(flow) = class.flows.get_mut(flow) else { return };
        flow.offered += tokens;
        if flow.waiting == 0 {
            flow.hungry_since_nanos = now_nanos;
        }
        flow.waiting += 1;
    }

    /// Flow control has decided on a request.
    pub(super) fn decided(&mut self, class: usize, flow: usize, outcome: Outcome, wait: u64, now: u64) {
        let Some(class) = self.classes.get_mut(class) else { return };
        let at = Outcome::ALL.iter().position(|other| *other == outcome);
        if let Some(count) = at.and_then(|at| class.outcomes.get_mut(at)) {
            *count += 1;
        }
        let Some(flow) = class.flows.get_mut(flow) else { return };
        flow.waiting = flow.waiting.saturating_sub(1);
        let is_sent = outcome == Outcome::Dispatched;
        if is_sent || flow.waiting == 0 {
            class.starved = class.starved.max(seconds(now.saturating_sub(flow.hungry_since_nanos)));
            flow.hungry_since_nanos = now;
        }
        if is_sent {
            class.waits.push(seconds(wait) as f32);
        }
    }

    /// A server runs a request.
    pub(super) fn served(&mut self, class: usize, flow: usize, tokens: u64) {
        if let Some(flow) = self.classes.get_mut(class).and_then(|class| class.flows.get_mut(flow)) {
            flow.served += tokens;
        }
    }

    /// A first token came, so long after the request.
    pub(super) fn first_token(&mut self, class: usize, at_nanos: u64, took_nanos: u64, goal_nanos: u64, output: u64) {
        let point = ((seconds(at_nanos) / self.seconds * POINTS as f64) as usize).min(POINTS - 1);
        let Some(class) = self.classes.get_mut(class) else { return };
        let took = seconds(took_nanos);
        class.first_tokens.push(took as f32);
        if goal_nanos == 0 || took_nanos <= goal_nanos {
            class.good += 1;
            class.good_tokens += output;
        }
        if let Some((sum, count)) = class.sums.get_mut(point) {
            *sum += took;
            *count += 1;
        }
    }

    /// How things stand at a point of the curves.
    pub(super) fn look(&mut self, point: usize, in_servers: usize) {
        if let Some(at) = self.in_servers.get_mut(point) {
            *at = in_servers as f64;
        }
        for class in &mut self.classes {
            let waiting: u32 = class.flows.iter().map(|flow| flow.waiting).sum();
            if let Some(at) = class.waiting_curve.get_mut(point) {
                *at = f64::from(waiting);
            }
        }
    }

    /// The run is over: sorts what percentiles are taken of, closes what is still hungry.
    pub(super) fn close(&mut self, now_nanos: u64) {
        for class in &mut self.classes {
            class.waits.sort_unstable_by(f32::total_cmp);
            class.first_tokens.sort_unstable_by(f32::total_cmp);
            let mean = |(sum, count): &(f64, u32)| (*count > 0).then(|| sum / f64::from(*count));
            class.first_token_curve = class.sums.iter().map(mean).collect();
            for flow in class.flows.iter().filter(|flow| flow.waiting > 0) {
                class.starved = class.starved.max(seconds(now_nanos.saturating_sub(flow.hungry_since_nanos)));
            }
        }
    }
}

/// Value below which this share of sorted values lies; 0 of none.
#[must_use]
pub fn percentile(sorted: &[f32], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().map_or(0.0, f64::from)
}

/// Jain's index of what each flow got over its max-min fair share of all that was served: 1 is fair.
#[must_use]
pub fn fairness(flows: &[FlowTally]) -> f64 {
    let served: u64 = flows.iter().map(|flow| flow.served).sum();
    let level = fair_level(flows, served as f64);
    let asked = flows.iter().filter(|flow| flow.offered > 0);
    let got: Vec<f64> = asked.map(|flow| flow.served as f64 / level.min(flow.offered as f64).max(1.0)).collect();
    let (sum, squares) = (got.iter().sum::<f64>(), got.iter().map(|got| got * got).sum::<f64>());
    if squares > 0.0 { sum * sum / (got.len() as f64 * squares) } else { 1.0 }
}

/// The height to which every flow can be filled: those that ask for less get all they ask for.
fn fair_level(flows: &[FlowTally], mut left: f64) -> f64 {
    let mut offers: Vec<u64> = flows.iter().map(|flow| flow.offered).filter(|offered| *offered > 0).collect();
    offers.sort_unstable();
    let count = offers.len();
    for (at, offered) in offers.into_iter().enumerate() {
        let level = left / (count - at) as f64;
        if level <= offered as f64 {
            return level;
        }
        left -= offered as f64;
    }
    f64::INFINITY
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(offered: u64, served: u64) -> FlowTally {
        FlowTally { offered, served, ..FlowTally::default() }
    }

    /// By hand: 100 served among demands 10, 80, 80 is fairly 10, 45, 45.
    #[test]
    fn max_min_fair_shares_are_fair_and_a_starved_flow_is_not() {
        assert!((fairness(&[flow(10, 10), flow(80, 45), flow(80, 45)]) - 1.0).abs() < 1e-9);
        // 0 of 50 and 100 of 50: (0 + 2)² / (2 × 4).
        assert!((fairness(&[flow(100, 0), flow(100, 100)]) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_percentile_of_nothing_is_zero_and_the_last_is_the_most() {
        assert!(percentile(&[], 0.99).abs() < 1e-9);
        assert!((percentile(&[1.0, 2.0, 3.0], 1.0) - 3.0).abs() < 1e-9);
    }
}
