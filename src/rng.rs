//! Random numbers that a seed reproduces for years: SplitMix64 spreads the seed, xoshiro256** generates the numbers.
//!
//! The usual crates may change their streams in a minor release. But a load, a simulation or a back-off that was seen
//! once must be repeatable from its printed seed. The numbers are not fit for secrets.

use groups::SplitMix64;

/// xoshiro256** by Blackman and Vigna.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// Returns the generator of this seed. Every seed is as good as every other, 0 too.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        let mut seed = SplitMix64::new(seed);
        Rng { state: [seed.bits(), seed.bits(), seed.bits(), seed.bits()] }
    }

    /// Returns 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }

    /// Returns a number below `bound`; 0 if `bound` is 0. It is uniform to within `bound` / 2^64, without a loop or a
    /// division.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns a number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_its_published_numbers() {
        let mut seed = SplitMix64::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([seed.bits(), seed.bits(), seed.bits()], expected);
    }

    #[test]
    fn xoshiro256_star_star_gives_its_published_numbers() {
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let expected = [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240, 1_216_172_134_540_287_360];
        assert_eq!(expected.map(|_| rng.next_u64()), expected);
    }

    #[test]
    fn numbers_stay_in_range_and_reach_all_of_it() {
        let mut rng = Rng::new(7);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
            assert!((0.0..1.0).contains(&rng.unit()));
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
