//! Tells the companion what has ended and what still runs, over one stream of the root context.
//!
//! In: starts and ends of requests that the companion let go. Out: messages; an end goes out at once while the stream is
//! open, else with its opening. A stream that breaks is opened again, ever later. Nothing here holds a request back.

use std::collections::BTreeSet;
use std::time::Duration;

use tally_core::admission::{Completed, REPORT, SERVICE, ask};
use tally_core::timing::Nanos;
use tally_core::usage::Usage;

use crate::host::{self, HostError, Method};

/// Time between two full lists; the companion forgets a caller that is silent for half a minute.
const LIST_EVERY: Duration = Duration::from_secs(3);
/// Time between opening a stream that broke and opening the next: from the first to the last, doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// Lists after the last request, when nothing runs any more: the companion may have let a request go after it heard of its
/// end, and believes a list only of requests that it let go some seconds before.
const IDLE_LISTS: u8 = 3;
/// Ends that wait for the stream. What is beyond shows in the next list, without its tokens.
const MAX_UNSENT: usize = 10_000;
/// Requests in a list: what fits into the companion's message limit, and more than a worker can run.
const MAX_LISTED: usize = 100_000;
/// Shared number of callers of this Envoy.
const REPORTERS: &str = "tally.reporters";

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Report {
    upstream: String,
    reporter: u64,
    stream: Option<u32>,
    running: BTreeSet<u64>,
    unsent: Vec<Completed>,
    /// Lists to send while nothing runs.
    idle_lists: u8,
    list_at: Nanos,
    open_at: Nanos,
    opened: Nanos,
    retry: Duration,
}

impl Report {
    /// One that has nothing to tell.
    pub(crate) fn new(upstream: String) -> Self {
        Self {
            upstream,
            reporter: reporter(),
            stream: None,
            running: BTreeSet::new(),
            unsent: Vec::new(),
            idle_lists: 0,
            list_at: Nanos(0),
            open_at: Nanos(0),
            opened: Nanos(0),
            retry: FIRST_RETRY,
        }
    }

    /// The number of this caller.
    pub(crate) const fn reporter(&self) -> u64 {
        self.reporter
    }

    /// The companion let a request go.
    pub(crate) fn started(&mut self, request: u64) {
        self.running.insert(request);
    }

    /// It has ended.
    pub(crate) fn ended(&mut self, request: u64, usage: &Usage) -> Result<(), HostError> {
        self.running.remove(&request);
        let [prompt_tokens, output_tokens] = [usage.input, usage.output].map(Option::unwrap_or_default);
        self.completed(Completed { request, prompt_tokens, output_tokens })
    }

    /// A request waits no longer. If the companion has let it go in this very moment, it will not hear of its end otherwise.
    pub(crate) fn dropped(&mut self, request: u64) -> Result<(), HostError> {
        self.completed(Completed { request, prompt_tokens: 0, output_tokens: 0 })
    }

    fn completed(&mut self, completed: Completed) -> Result<(), HostError> {
        self.idle_lists = IDLE_LISTS;
        if self.unsent.len() < MAX_UNSENT {
            self.unsent.push(completed);
        }
        // At once: the companion may let the next one go.
        self.send(None)
    }

    /// Time has passed; only in the root's callbacks.
    pub(crate) fn tick(&mut self, now: Nanos) -> Result<(), HostError> {
        // Should the clock be set back, no time to wait for is farther away than it ever was.
        self.open_at = self.open_at.min(now.after(self.retry));
        self.list_at = self.list_at.min(now.after(LIST_EVERY));
        let has_news = !self.unsent.is_empty() || !self.running.is_empty() || self.idle_lists > 0;
        if self.stream.is_none() && has_news && self.open_at <= now {
            let to = Method { upstream: &self.upstream, service: SERVICE, method: REPORT };
            match host::open_grpc_stream(&to) {
                Ok(token) => (self.stream, self.opened) = (Some(token), now),
                // No cluster or no host: what the requests meet too, and count.
                Err(_) => self.retry_later(now),
            }
            self.list_at = now;
        }
        if self.stream.is_some() && has_news && self.list_at <= now {
            self.list_at = now.after(LIST_EVERY);
            self.idle_lists = if self.running.is_empty() { self.idle_lists.saturating_sub(1) } else { IDLE_LISTS };
            let requests = self.running.iter().copied().take(MAX_LISTED).collect();
            return self.send(Some(requests));
        }
        Ok(())
    }

    /// A stream has ended.
    pub(crate) fn closed(&mut self, token: u32, now: Nanos) {
        if self.stream == Some(token) {
            self.stream = None;
            if now.since(self.opened) > Nanos::default().after(LIST_EVERY) {
                self.retry = FIRST_RETRY;
            }
            self.retry_later(now);
        }
    }

    fn retry_later(&mut self, now: Nanos) {
        self.open_at = now.after(self.retry);
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }

    /// Sends the ends, and the list if there is one.
    fn send(&mut self, running: Option<Vec<u64>>) -> Result<(), HostError> {
        let Some(token) = self.stream else { return Ok(()) };
        let message = ask::report(self.reporter, std::mem::take(&mut self.unsent), running);
        let sent = host::send_grpc_message(token, &message);
        if sent.is_err() {
            self.stream = None;
        }
        sent
    }
}

/// A number that no other caller of the companion has: made of the time, a count over this Envoy's VMs and its node's id.
fn reporter() -> u64 {
    let node = host::property(&["xds", "node", "id"]).unwrap_or_default();
    let parts = [&host::now().0.to_le_bytes()[..], &count_reporters().to_le_bytes()[..], &node];
    // 64-bit FNV-1a.
    let hash = parts
        .into_iter()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash.max(1)
}

/// Counts this caller.
fn count_reporters() -> u64 {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let (found, version) = host::shared(REPORTERS).unwrap_or_default();
        let count = found.try_into().map_or(0, u64::from_le_bytes) + 1;
        // A version that no value has makes a missing one only if nobody else has made it just before.
        let version = if count == 1 { u32::MAX } else { version };
        if host::set_shared(REPORTERS, &count.to_le_bytes(), Some(version)) == Ok(true) {
            return count;
        }
    }
    0
}
