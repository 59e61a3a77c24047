//! When to ask next.
//!
//! In: how the last question went and how long it took. Out: how long to rest. It never reads a clock.
//! A slow endpoint is asked half of the time at most; a failing one ever more rarely, but never more rarely than
//! [`LONGEST_BACKOFF`] or the interval, so that it is back soon after it has healed.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    failures: u32,
}

impl Pace {
    pub(super) const fn new(interval: Duration) -> Self {
        Self { interval, failures: 0 }
    }

    /// Before the first question: somewhere in the interval, so that a pool's endpoints are not asked all at once.
    pub(super) fn first(&self) -> Duration {
        let spread = self.interval.min(LONGEST_BACKOFF);
        spread.mul_f64(f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX))
    }

    /// After a question.
    pub(super) fn rest(&mut self, is_good: bool, took: Duration) -> Duration {
        if is_good {
            self.failures = 0;
            return self.interval.saturating_sub(took).max(took);
        }
        self.failures = self.failures.saturating_add(1).min(MOST_DOUBLINGS);
        let backoff = self.interval.saturating_mul(1 << self.failures).min(LONGEST_BACKOFF.max(self.interval));
        backoff.saturating_sub(took).max(SHORTEST_REST)
    }
}

pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
const SHORTEST_REST: Duration = Duration::from_millis(1);
const MOST_DOUBLINGS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_fast_endpoint_is_asked_every_interval_and_a_slow_one_half_of_the_time() {
        let mut pace = Pace::new(ms(50));
        assert_eq!(pace.rest(true, ms(10)), ms(40));
        assert_eq!(pace.rest(true, ms(30)), ms(30));
        assert_eq!(pace.rest(true, ms(700)), ms(700));
    }

    #[test]
    fn failures_double_the_interval_up_to_a_second_and_one_success_ends_that() {
        let mut pace = Pace::new(ms(50));
        let rests: Vec<_> = (0..7).map(|_| pace.rest(false, ms(0)).as_millis()).collect();
        assert_eq!(rests, [100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(pace.rest(true, ms(0)), ms(50));
        assert_eq!(pace.rest(false, ms(0)), ms(100));
        assert_eq!(Pace::new(ms(5_000)).rest(false, ms(1_000)), ms(4_000));
    }
}
