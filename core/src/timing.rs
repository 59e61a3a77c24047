//! When things happened in one exchange.
//!
//! In: instants in nanoseconds, from whoever has a clock. Out: durations. Several output events in one read share the gap
//! before it: what arrived together was not generated at the same instant, and zero gaps would say so.

use core::time::Duration;

use crate::catalog::buckets::INTER_TOKEN;

/// Nanoseconds; an instant on any clock that does not go back, or a duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The time since `earlier`; 0 if the clock went back.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// The instant so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Gaps between output events, as counts per bucket of [`INTER_TOKEN`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// In each bucket alone; the last is beyond every bound.
    pub counts: [u32; INTER_TOKEN.len() + 1],
    /// Sum of all gaps, in nanoseconds.
    pub sum: u64,
}

/// The instants of one answer.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    /// First byte of the body.
    pub first_byte: Option<Nanos>,
    /// First output event of a stream.
    pub first_token: Option<Nanos>,
    /// Gaps between the output events.
    pub gaps: Gaps,
    /// Output events so far.
    pub output_events: u64,
    last_output: Nanos,
}

impl Timing {
    /// A piece of the body came.
    pub fn bytes(&mut self, now: Nanos) {
        self.first_byte.get_or_insert(now);
    }

    /// `events` output events came in one piece.
    pub fn output(&mut self, events: u64, now: Nanos) {
        if events == 0 {
            return;
        }
        self.output_events += events;
        if self.first_token.is_none() {
            // The events that came with the first have no gap of their own: nothing was waited for.
            self.first_token = Some(now);
        } else {
            let gap = now.since(self.last_output).0;
            let each = gap / events;
            let bucket = INTER_TOKEN.partition_point(|bound| bound.at < each);
            if let Some(count) = self.gaps.counts.get_mut(bucket) {
                *count = count.saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
            }
            self.gaps.sum = self.gaps.sum.saturating_add(gap);
        }
        self.last_output = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn events_of_one_read_share_the_gap_before_it() {
        let mut timing = Timing::default();
        timing.output(2, Nanos(100 * MS));
        timing.output(4, Nanos(140 * MS));
        timing.output(0, Nanos(900 * MS));
        timing.output(1, Nanos(1_440 * MS));
        assert_eq!(timing.first_token, Some(Nanos(100 * MS)));
        assert_eq!(timing.output_events, 7);
        // Four gaps of 10 ms, one of 1.3 s.
        assert_eq!(timing.gaps.counts.iter().sum::<u32>(), 5);
        assert_eq!(timing.gaps.counts[2], 4, "le 0.01");
        assert_eq!(timing.gaps.counts[14], 1, "le 2");
        assert_eq!(timing.gaps.sum, 1_340 * MS);
    }
}
