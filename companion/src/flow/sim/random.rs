//! Chance that repeats: the same seed gives the same numbers on every machine.
//!
//! In: a seed. Out: numbers by SplitMix64 (Steele, Lea, Flood 2014) and the shapes made of them. Not for secrets.

/// See the file's head.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, up to 1.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }

    /// Below `count`, which is not 0.
    pub(super) const fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    /// Waiting time for something that happens `rate` times a second, in seconds.
    pub(super) fn exponential(&mut self, rate: f64) -> f64 {
        -self.unit().ln() / rate
    }

    /// Log-normal with this mean; at least 1.
    pub(super) fn length(&mut self, mean: f64, sigma: f64) -> u32 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        (mean * (sigma * normal - sigma * sigma / 2.0).exp()).max(1.0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First outputs for seed 1234567 as published with the reference code.
    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = Random::new(1_234_567);
        assert_eq!(
            [random.next(), random.next(), random.next()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn lengths_and_waits_have_their_means() {
        let mut random = Random::new(1);
        let count = 200_000;
        let lengths: f64 = (0..count).map(|_| f64::from(random.length(400.0, 0.6))).sum();
        let waits: f64 = (0..count).map(|_| random.exponential(4.0)).sum();
        assert!((lengths / f64::from(count) - 400.0).abs() < 4.0);
        assert!((waits / f64::from(count) - 0.25).abs() < 0.005);
    }
}
