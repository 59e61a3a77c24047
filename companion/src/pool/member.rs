//! One endpoint of a pool: its last sample, and the task that gets the next.
//!
//! In: the results of scrapes. Out: the endpoint's state. Dropping a member ends its task and closes its connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::snapshot::EndpointState;
use crate::model_server::{Read, Sample};
use crate::scrape::{Observer, Reason};

/// An endpoint being scraped.
pub(super) struct Member {
    pub(super) cell: Arc<Cell>,
    task: AbortHandle,
}

impl Member {
    pub(super) const fn new(cell: Arc<Cell>, task: AbortHandle) -> Self {
        Self { cell, task }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known of an endpoint.
pub(super) struct Cell {
    fixed: EndpointState,
    last: Mutex<Last>,
    pool: Arc<Tally>,
}

#[derive(Default)]
struct Last {
    sample: Option<Arc<Sample>>,
    sampled_at: Option<Instant>,
    failing: Option<Reason>,
}

/// What all endpoints of a pool add to; it outlives them, so that counters never fall.
#[derive(Default)]
pub(super) struct Tally {
    scrapes: AtomicU64,
    errors: [AtomicU64; Reason::ALL.len()],
    /// There is something new to publish.
    pub(super) news: Notify,
}

impl Tally {
    pub(super) fn scrapes(&self) -> u64 {
        self.scrapes.load(Ordering::Relaxed)
    }

    pub(super) fn errors(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(&self.errors).map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    fn failed(&self, reason: Reason) {
        let errors = Reason::ALL.into_iter().zip(&self.errors).find(|(known, _)| *known == reason);
        if let Some((_, count)) = errors {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Cell {
    /// Of an endpoint that was not sampled yet.
    pub(super) fn new(fixed: EndpointState, pool: Arc<Tally>) -> Arc<Self> {
        Arc::new(Self { fixed, last: Mutex::default(), pool })
    }

    pub(super) fn state(&self) -> EndpointState {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        EndpointState {
            sample: last.sample.clone(),
            sampled_at: last.sampled_at,
            failing: last.failing.map(Reason::class),
            ..self.fixed.clone()
        }
    }
}

impl Observer for Arc<Cell> {
    fn scraped(&self, result: Result<Read, Reason>, at: Instant) {
        self.pool.scrapes.fetch_add(1, Ordering::Relaxed);
        let failing = match &result {
            Ok(read) => read.is_incomplete.then_some(Reason::MissingFamily),
            Err(reason) => Some(*reason),
        };
        if let Some(reason) = failing {
            self.pool.failed(reason);
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = failing != last.failing;
        last.failing = failing;
        if let Ok(read) = result {
            last.sampled_at = Some(at);
            if last.sample.as_deref() != Some(&read.sample) {
                last.sample = Some(Arc::new(read.sample));
            }
        }
        drop(last);
        if is_news {
            let (name, address) = (&self.fixed.name, &self.fixed.address);
            match failing {
                Some(reason) => tracing::warn!(endpoint = %name, %address, reason = reason.class(), "scrape failed"),
                None => tracing::info!(endpoint = %name, %address, "scrape succeeds again"),
            }
        }
        self.pool.news.notify_one();
    }
}
