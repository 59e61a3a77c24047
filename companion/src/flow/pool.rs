//! What flow control wants to know of the pool: a small view, so that it depends on no scraper.
//!
//! In: nothing. Out: a trait that whoever scrapes the pool implements. It holds no samples.

use std::time::Instant;

use super::saturation::EndpointSample;

/// The pool as it was last seen.
pub trait PoolView {
    /// Its name, a label.
    fn name(&self) -> &str;

    /// Its endpoints; `nanos` turns the moment of a sample into flow control's time.
    fn endpoints(&self, nanos: impl Fn(Instant) -> u64) -> Vec<EndpointSample>;
}
