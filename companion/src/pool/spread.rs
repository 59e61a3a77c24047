//! Mean, least, greatest and standard deviation.
//!
//! In: values. Out: the four, or nothing of nothing. One pass (Welford), so that great values do not cancel out.

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) mean: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// Of the population, not of a sample: the pool is all there is.
    pub(super) stddev: f64,
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut count, mut mean, mut squares) = (0_u32, 0.0, 0.0);
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            count += 1;
            let off = value - mean;
            mean += off / f64::from(count);
            squares += off * (value - mean);
            (min, max) = (min.min(value), max.max(value));
        }
        (count > 0).then(|| Self { mean, min, max, stddev: (squares / f64::from(count)).sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_textbook_example_comes_out() {
        // 2 4 4 4 5 5 7 9: mean 5, population variance 32/8 = 4.
        let spread = Spread::of([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter()).unwrap();
        assert_eq!((spread.min, spread.max), (2.0, 9.0));
        assert!((spread.mean - 5.0).abs() < 1e-12 && (spread.stddev - 2.0).abs() < 1e-12, "{spread:?}");
        assert_eq!(Spread::of(std::iter::empty()), None);
        assert_eq!(Spread::of([3.0].into_iter()).map(|one| one.stddev), Some(0.0));
    }
}
