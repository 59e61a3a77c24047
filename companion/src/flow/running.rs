//! What was let go and has not ended: counted by reporter, so that a lost caller cannot leak.
//!
//! In: requests let go, reports of ends, full lists, silence. Out: how many requests and tokens run.
//! It never trusts a single message: what a report missed, the next full list releases, and a
//! reporter that is silent for [`SILENCE_NANOS`] is forgotten with all it had.

use std::collections::HashMap;

use super::queue::FlowId;

/// A request that runs.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Its flow.
    pub flow: FlowId,
    /// Tokens it was estimated to use.
    pub tokens: u64,
    /// Body bytes it came with.
    pub bytes: u64,
    /// When it was let go.
    pub since_nanos: u64,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct RunningRequests {
    reporters: HashMap<u64, Reporter>,
    requests: u64,
    tokens: u64,
}

#[derive(Debug, Default)]
struct Reporter {
    runs: HashMap<u64, Run>,
    heard_nanos: u64,
}

/// A reporter lists what it runs every few seconds; after this silence it is gone.
pub const SILENCE_NANOS: u64 = 30_000_000_000;
/// A full list may have been written before its sender knew of a request let go this recently.
pub const LIST_LAG_NANOS: u64 = 5_000_000_000;
/// Callers that can be told apart; the runs of yet another are not counted.
pub const MAX_REPORTERS: usize = 10_000;
/// Running requests that are counted; what is let go beyond is not, and lists are not taken.
pub const MAX_RUNS: u64 = 1_000_000;

impl RunningRequests {
    /// Requests that run.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Tokens that the running requests were estimated to use.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Counts a request that was let go; a reporter or request 0 is not counted.
    pub fn start(&mut self, reporter: u64, request: u64, run: Run) {
        if !self.has_room(reporter) {
            return;
        }
        let held = self.reporters.entry(reporter).or_default();
        held.heard_nanos = held.heard_nanos.max(run.since_nanos);
        self.requests += 1;
        self.tokens += run.tokens;
        if let Some(old) = held.runs.insert(request, run) {
            self.requests -= 1;
            self.tokens -= old.tokens;
        }
    }

    /// A request has ended; `None` if it was not known.
    pub fn end(&mut self, reporter: u64, request: u64, now_nanos: u64) -> Option<Run> {
        let held = self.reporters.get_mut(&reporter)?;
        held.heard_nanos = now_nanos;
        let run = held.runs.remove(&request)?;
        self.requests -= 1;
        self.tokens -= run.tokens;
        Some(run)
    }

    /// A reporter that is known is still there.
    pub fn heard(&mut self, reporter: u64, now_nanos: u64) {
        if let Some(held) = self.reporters.get_mut(&reporter) {
            held.heard_nanos = now_nanos;
        }
    }

    /// A reporter says what it runs: what it does not name has ended, what is new is counted (a
    /// companion that has just started learns so what already runs).
    pub fn list(&mut self, reporter: u64, named: &[u64], now_nanos: u64) {
        if !self.has_room(reporter) {
            return;
        }
        let held = self.reporters.entry(reporter).or_default();
        held.heard_nanos = now_nanos;
        let named: std::collections::HashSet<u64> = named.iter().copied().collect();
        held.runs.retain(|request, run| {
            let keep = named.contains(request) || now_nanos.saturating_sub(run.since_nanos) < LIST_LAG_NANOS;
            if !keep {
                self.requests -= 1;
                self.tokens -= run.tokens;
            }
            keep
        });
        for request in named {
            if self.requests >= MAX_RUNS {
                return;
            }
            held.runs.entry(request).or_insert_with(|| {
                self.requests += 1;
                Run { flow: FlowId::NONE, tokens: 0, bytes: 0, since_nanos: now_nanos }
            });
        }
    }

    fn has_room(&self, reporter: u64) -> bool {
        reporter != 0
            && self.requests < MAX_RUNS
            && (self.reporters.len() < MAX_REPORTERS || self.reporters.contains_key(&reporter))
    }

    /// Forgets reporters that were silent too long; true if anything was released.
    pub fn forget_silent(&mut self, now_nanos: u64) -> bool {
        let before = self.requests;
        self.reporters.retain(|_, held| {
            let keep = now_nanos.saturating_sub(held.heard_nanos) < SILENCE_NANOS;
            if !keep {
                self.requests -= held.runs.len() as u64;
                self.tokens -= held.runs.values().map(|run| run.tokens).sum::<u64>();
            }
            keep
        });
        self.requests != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn run(tokens: u64, since_nanos: u64) -> Run {
        Run { flow: FlowId::NONE, tokens, bytes: 0, since_nanos }
    }

    #[test]
    fn a_request_that_ends_twice_is_released_once() {
        let mut running = RunningRequests::default();
        running.start(7, 1, run(10, 0));
        running.start(7, 2, run(5, 0));
        assert!(running.end(7, 1, 1).is_some());
        assert!(running.end(7, 1, 1).is_none());
        assert_eq!((running.requests(), running.tokens()), (1, 5));
    }

    #[test]
    fn a_full_list_releases_what_a_lost_report_left_and_spares_what_is_too_young() {
        let mut running = RunningRequests::default();
        running.start(7, 1, run(10, 0));
        running.start(7, 2, run(10, 9 * SECOND));
        running.list(7, &[3], 10 * SECOND);
        assert_eq!((running.requests(), running.tokens()), (2, 10), "1 gone, 2 young, 3 learnt");
    }

    #[test]
    fn a_silent_reporter_is_forgotten_with_all_it_had() {
        let mut running = RunningRequests::default();
        running.start(7, 1, run(10, 0));
        running.start(8, 1, run(4, 20 * SECOND));
        assert!(running.forget_silent(31 * SECOND));
        assert_eq!((running.requests(), running.tokens()), (1, 4));
    }

    #[test]
    fn a_caller_without_a_number_is_not_counted() {
        let mut running = RunningRequests::default();
        running.start(0, 1, run(10, 0));
        assert_eq!(running.requests(), 0);
    }
}
