//! A small random generator, for delays and for the seeds of other generators: SplitMix64 (Steele, Lea, Flood, OOPSLA
//! 2014).

use crate::Ms;

/// A random generator whose whole state is one number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Creates a generator. Equal seeds give equal sequences.
    #[must_use]
    pub fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a random number from 0 up to, but not including, `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// Returns a random span from 0 up to, but not including, `bound`, which must not be 0.
    pub fn below_ms(&mut self, bound: Ms) -> Ms {
        Ms(self.below(bound.0))
    }
}
