//! A classic histogram in memory, exact: integers in, counts per bucket and a sum out.
//!
//! In: values in the base integer of a family's bounds (nanoseconds, bytes, tokens). Out: cumulative counts.
//! It never rounds and never allocates after it was made.

use alloc::boxed::Box;
use alloc::vec;

use crate::catalog::Bound;

/// Counts per bucket, count and sum of one series.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [Bound],
    /// Values in each bucket alone; the last is beyond every bound.
    counts: Box<[u64]>,
    sum: u128,
}

impl Histogram {
    /// An empty one over a family's bounds.
    #[must_use]
    pub fn new(bounds: &'static [Bound]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1].into_boxed_slice(), sum: 0 }
    }

    /// Adds a value.
    pub fn observe(&mut self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| bound.at < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += u128::from(value);
    }

    /// Values inside each bound, in the order of the bounds; `+Inf` is [`Self::count`].
    pub fn cumulative(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().take(self.bounds.len()).scan(0, |total, count| {
            *total += count;
            Some(*total)
        })
    }

    /// All values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    #[must_use]
    pub const fn sum(&self) -> u128 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::buckets::OUTPUT_TOKENS;
    use alloc::vec::Vec;

    #[test]
    fn a_value_equal_to_a_bound_is_inside_it() {
        let mut histogram = Histogram::new(OUTPUT_TOKENS);
        for value in [0, 1, 2, 8, 9, 8_193] {
            histogram.observe(value);
        }
        let cumulative: Vec<u64> = histogram.cumulative().collect();
        // Bounds 1, 8, 16: two values up to 1, four up to 8, five up to 16; 8193 lies beyond the last.
        assert_eq!(cumulative[..3], [2, 4, 5]);
        assert_eq!((cumulative.last(), histogram.count(), histogram.sum()), (Some(&5), 6, 8_213));
    }
}
