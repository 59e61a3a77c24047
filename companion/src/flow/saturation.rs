//! How full the pool is: from what its endpoints say, from what runs, and from what was just sent.
//!
//! In: pool samples, the count of running work, each request let go. Out: one number; 1 and above is full.
//! Formulas are EPP's utilization and concurrency detectors; the dispatch budget on top is Tally's.
//! It never holds a request and never reads a clock.

use std::collections::VecDeque;

/// One endpoint as last scraped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndpointSample {
    /// Requests waiting inside the server.
    pub waiting: f64,
    /// Share of the KV cache in use.
    pub kv_usage: f64,
    /// When the sample was taken; `None` before the first good scrape.
    pub sampled_nanos: Option<u64>,
}

/// What counts as full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaturationPlan {
    /// Ask the endpoints' queues and caches.
    pub utilization: bool,
    /// Count what runs.
    pub concurrency: bool,
    /// EPP's `queueDepthThreshold`: waiting requests of an endpoint that count as full.
    pub queue_depth_threshold: f64,
    /// EPP's `kvCacheUtilThreshold`.
    pub kv_cache_util_threshold: f64,
    /// EPP's `metricsStalenessThreshold`: an older sample counts as a full endpoint.
    pub staleness_nanos: u64,
    /// Whether requests sent since a sample count as if they already waited.
    pub budget: bool,
    /// Most requests that one endpoint is sent between two of its samples.
    pub budget_max: f64,
    /// Running work per endpoint that counts as full, in requests or tokens.
    pub max_concurrency: f64,
}

/// See the file's head.
#[derive(Debug)]
pub struct Saturation {
    plan: SaturationPlan,
    endpoints: Vec<EndpointSample>,
    /// Mean score of the endpoints, and until when it holds: then the next sample gets stale.
    measured: f64,
    measured_until_nanos: u64,
    /// Requests let go so far, and how many before each of the last moments.
    sent: u64,
    history: VecDeque<(u64, u64)>,
    /// Sum over endpoints of the requests that their samples have seen.
    seen: u64,
    /// Requests an endpoint may be sent between two samples.
    window: f64,
    /// Since the last observation a request was held for want of budget alone.
    budget_bound: bool,
    /// Most of the budget that was in use at once since the last observation.
    peak: f64,
}

/// A request needs this long to show up in a server's own queue length (network, tokenizer).
const SETTLE_NANOS: u64 = 10_000_000;
/// Moments kept to find how many requests a sample has not seen; older ones are merged.
const HISTORY_CAP: usize = 256;
/// Moments closer together than this are one.
const MOMENT_NANOS: u64 = 1_000_000;

impl Saturation {
    /// A pool that nobody has described yet.
    #[must_use]
    pub const fn new(plan: SaturationPlan) -> Self {
        Self {
            window: plan.queue_depth_threshold,
            plan,
            endpoints: Vec::new(),
            measured: 1.0,
            measured_until_nanos: u64::MAX,
            sent: 0,
            history: VecDeque::new(),
            seen: 0,
            budget_bound: false,
            peak: 0.0,
        }
    }

    /// Takes what the pool says now.
    pub fn observe(&mut self, endpoints: &[EndpointSample], now_nanos: u64) {
        self.endpoints.clear();
        self.endpoints.extend_from_slice(endpoints);
        self.seen = endpoints.iter().map(|endpoint| self.sent_by(endpoint.sampled_nanos)).sum();
        self.measure(now_nanos);
        self.resize_window();
        self.budget_bound = false;
        self.peak = self.unseen();
    }

    /// Takes note of a request let go.
    pub fn sent(&mut self, now_nanos: u64) {
        let same_moment = self.history.back().is_some_and(|(at, _)| now_nanos.saturating_sub(*at) < MOMENT_NANOS);
        if !same_moment {
            if self.history.len() == HISTORY_CAP {
                self.history.pop_front();
            }
            self.history.push_back((now_nanos, self.sent));
        }
        self.sent += 1;
        self.peak = self.peak.max(self.unseen());
    }

    /// Endpoints known.
    #[must_use]
    pub const fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// How full, with `running` work in flight. 1 and above is full.
    pub fn level(&mut self, running: u64, now_nanos: u64) -> f64 {
        let mut level: f64 = 0.0;
        if self.plan.utilization {
            if now_nanos > self.measured_until_nanos {
                self.measure(now_nanos);
            }
            level = level.max(self.measured + self.unseen());
        }
        if self.plan.concurrency {
            // Without discovery the limit is that of the pool as a whole.
            let endpoints = self.endpoints.len().max(usize::from(!self.plan.utilization)) as f64;
            let capacity = self.plan.max_concurrency * endpoints;
            level = level.max(if capacity > 0.0 { running as f64 / capacity } else { 1.0 });
        }
        level
    }

    /// Whether a band with this ceiling may send; remembers when only the budget forbids it.
    pub fn open(&mut self, ceiling: f64, running: u64, now_nanos: u64) -> bool {
        let open = self.level(running, now_nanos) < ceiling;
        if !open && self.plan.utilization && self.measured < ceiling {
            self.budget_bound = true;
        }
        open
    }

    /// EPP v1.5's utilization detector: the mean over endpoints of the fuller of queue and cache;
    /// stale and unknown endpoints are full, and so is an empty pool.
    fn measure(&mut self, now_nanos: u64) {
        let mut until = u64::MAX;
        let mut sum = 0.0;
        for endpoint in &self.endpoints {
            let stale_nanos = endpoint.sampled_nanos.map_or(0, |at| at.saturating_add(self.plan.staleness_nanos));
            if now_nanos > stale_nanos {
                sum += 1.0;
                continue;
            }
            until = until.min(stale_nanos);
            let queue = endpoint.waiting / self.plan.queue_depth_threshold;
            let cache = endpoint.kv_usage / self.plan.kv_cache_util_threshold;
            // A server that says "not a number" says nothing.
            sum += if queue.is_finite() && cache.is_finite() { queue.max(cache) } else { 1.0 };
        }
        self.measured = if self.endpoints.is_empty() { 1.0 } else { sum / self.endpoints.len() as f64 };
        self.measured_until_nanos = until;
    }

    /// Share of the budget used by requests that the samples have not seen yet. Where a request
    /// went is Envoy's choice, so each endpoint is taken to have got an equal part.
    fn unseen(&self) -> f64 {
        if !self.plan.budget || self.endpoints.is_empty() {
            return 0.0;
        }
        let count = self.endpoints.len() as u64;
        let unseen = (self.sent * count).saturating_sub(self.seen);
        unseen as f64 / ((count * count) as f64 * self.window)
    }

    /// Requests that a sample taken at this time has seen.
    fn sent_by(&self, sampled_nanos: Option<u64>) -> u64 {
        let Some(seen_nanos) = sampled_nanos.map(|at| at.saturating_sub(SETTLE_NANOS)) else { return self.sent };
        let later = self.history.partition_point(|(at, _)| *at <= seen_nanos);
        self.history.get(later).map_or(self.sent, |(_, before)| *before)
    }

    /// Slow start, as of a TCP window: while requests are held for want of budget, most of it is
    /// used and the servers' queues stay near empty, it doubles; when the pool is full, it halves.
    /// What is not used is lost again, or a burst after a quiet time would be let go at once.
    fn resize_window(&mut self) {
        let least = self.plan.queue_depth_threshold;
        if self.measured >= 1.0 {
            self.window = (self.window / 2.0).max(least);
        } else if self.peak < UNUSED_SHARE {
            self.window = (self.window * UNUSED_DECAY).max(least);
        } else if self.budget_bound && self.peak >= USED_SHARE && self.mean_waiting() < least * CALM_SHARE {
            self.window = (self.window * 2.0).min(self.plan.budget_max.max(least));
        }
    }

    fn mean_waiting(&self) -> f64 {
        let total: f64 = self.endpoints.iter().map(|endpoint| endpoint.waiting).sum();
        total / self.endpoints.len().max(1) as f64
    }
}

/// More of the budget than this in use at once: it may be too small.
const USED_SHARE: f64 = 0.5;
/// Less than this: it is larger than it has to be, and shrinks by this factor at each observation.
const UNUSED_SHARE: f64 = 0.25;
const UNUSED_DECAY: f64 = 0.9;
/// Queues below this share of the threshold are near empty.
const CALM_SHARE: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn plan() -> SaturationPlan {
        SaturationPlan {
            utilization: true,
            concurrency: false,
            queue_depth_threshold: 5.0,
            kv_cache_util_threshold: 0.8,
            staleness_nanos: 200 * MS,
            budget: false,
            budget_max: 256.0,
            max_concurrency: 100.0,
        }
    }

    fn at(waiting: f64, kv_usage: f64, sampled_nanos: u64) -> EndpointSample {
        EndpointSample { waiting, kv_usage, sampled_nanos: Some(sampled_nanos) }
    }

    fn level(endpoints: &[EndpointSample], now_nanos: u64) -> f64 {
        let mut saturation = Saturation::new(plan());
        saturation.observe(endpoints, now_nanos);
        saturation.level(0, now_nanos)
    }

    /// By hand after EPP v1.5's formula, with its thresholds 5 and 0.8.
    #[test]
    fn the_level_is_the_mean_of_the_fuller_of_queue_and_cache() {
        let now = 1_000 * MS;
        assert!((level(&[at(0.0, 0.4, now), at(5.0, 0.1, now)], now) - 0.75).abs() < 1e-9);
        assert!((level(&[at(10.0, 0.0, now)], now) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_stale_a_never_seen_and_a_missing_endpoint_count_as_full() {
        let now = 1_000 * MS;
        assert!((level(&[at(0.0, 0.0, now - 201 * MS)], now) - 1.0).abs() < 1e-9);
        assert!(level(&[at(0.0, 0.0, now - 200 * MS)], now).abs() < 1e-9);
        let never = EndpointSample { waiting: 0.0, kv_usage: 0.0, sampled_nanos: None };
        assert!((level(&[never, at(0.0, 0.0, now)], now) - 0.5).abs() < 1e-9);
        assert!((level(&[], now) - 1.0).abs() < 1e-9);
        assert!((level(&[at(f64::NAN, 0.0, now)], now) - 1.0).abs() < 1e-9);
        assert!((level(&[at(0.0, f64::NAN, now)], now) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn concurrency_is_running_work_over_what_the_endpoints_may_run() {
        let mut saturation = Saturation::new(SaturationPlan { utilization: false, concurrency: true, ..plan() });
        assert!((saturation.level(50, 0) - 0.5).abs() < 1e-9, "no discovery: one limit for the pool");
        saturation.observe(&[at(0.0, 0.0, 0), at(0.0, 0.0, 0)], 0);
        assert!((saturation.level(50, 0) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn between_two_samples_no_more_than_the_threshold_is_sent_to_each_endpoint() {
        let now = 1_000 * MS;
        let mut saturation = Saturation::new(SaturationPlan { budget: true, ..plan() });
        saturation.observe(&[at(0.0, 0.0, now), at(2.0, 0.0, now)], now);
        let mut sent = 0;
        while saturation.open(1.0, 0, now) {
            saturation.sent(now);
            sent += 1;
        }
        // Room for 5 and 3; the level is a mean, so both together take 8.
        assert_eq!(sent, 8);
        // The next samples have seen them: all eight run, nobody waits. The budget has doubled.
        let later = now + 50 * MS;
        saturation.observe(&[at(0.0, 0.0, later), at(0.0, 0.0, later)], later);
        let mut sent = 0;
        while saturation.open(1.0, 0, later) {
            saturation.sent(later);
            sent += 1;
        }
        assert_eq!(sent, 20);
    }

    #[test]
    fn a_budget_that_nobody_used_is_not_there_for_a_burst_after_a_quiet_time() {
        let mut saturation = Saturation::new(SaturationPlan { budget: true, ..plan() });
        let mut now = 1_000 * MS;
        let send_all = |saturation: &mut Saturation, now: u64| {
            saturation.observe(&[at(0.0, 0.0, now)], now);
            let mut sent = 0;
            while saturation.open(1.0, 0, now) {
                saturation.sent(now);
                sent += 1;
            }
            sent
        };
        let bursts: Vec<i32> = (0..7)
            .map(|_| {
                now += 50 * MS;
                send_all(&mut saturation, now)
            })
            .collect();
        assert_eq!(bursts, [5, 10, 20, 40, 80, 160, 256]);
        for _ in 0..60 {
            now += 50 * MS;
            saturation.observe(&[at(0.0, 0.0, now)], now);
        }
        now += 50 * MS;
        assert_eq!(send_all(&mut saturation, now), 5);
    }

    /// A band that may use little of the pool is always short of budget; that says nothing about the servers.
    #[test]
    fn a_band_with_a_low_ceiling_does_not_open_the_budget_by_waiting() {
        let mut saturation = Saturation::new(SaturationPlan { budget: true, ..plan() });
        let mut now = 1_000 * MS;
        for _ in 0..20 {
            now += 50 * MS;
            saturation.observe(&[at(0.0, 0.2, now)], now);
            let mut sent = 0;
            while saturation.open(0.6, 0, now) {
                saturation.sent(now);
                sent += 1;
            }
            // 0.2 of 0.8 is measured; 0.35 is left, of a budget of 5: the second goes beyond.
            assert_eq!(sent, 2);
        }
    }

    #[test]
    fn a_sample_that_could_not_see_the_last_requests_does_not_give_the_budget_back() {
        let now = 1_000 * MS;
        let mut saturation = Saturation::new(SaturationPlan { budget: true, ..plan() });
        saturation.observe(&[at(0.0, 0.0, now)], now);
        while saturation.open(0.999, 0, now) {
            saturation.sent(now);
        }
        let soon = now + 5 * MS;
        saturation.budget_bound = false;
        saturation.observe(&[at(0.0, 0.0, soon)], soon);
        assert!(!saturation.open(0.999, 0, soon));
    }
}
