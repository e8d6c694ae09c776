//! Units of time: milliseconds and microseconds.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, AddAssign, Div, Mul, Sub};

/// Milliseconds: a span, or a point in time of the clock that the name of the field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ms(pub u64);

/// Microseconds: a span, or a point in time of the clock that the name of the field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Us(pub u64);

impl Ms {
    /// Converts to microseconds.
    #[must_use]
    pub const fn to_us(self) -> Us {
        Us(self.0 * 1_000)
    }
}

impl Us {
    /// Converts to milliseconds, rounded down.
    #[must_use]
    pub const fn to_ms(self) -> Ms {
        Ms(self.0 / 1_000)
    }
}

/// Implements the arithmetic of a unit. Like that of `u64`, it overflows unless the method says that it saturates.
macro_rules! arithmetic {
    ($unit:ident) => {
        impl $unit {
            /// The largest number: a point in time that no clock reaches.
            pub const MAX: $unit = $unit(u64::MAX);

            /// Adds; the result is at most [`MAX`](Self::MAX).
            #[must_use]
            pub const fn saturating_add(self, other: $unit) -> $unit {
                $unit(self.0.saturating_add(other.0))
            }

            /// Subtracts; the result is at least 0.
            #[must_use]
            pub const fn saturating_sub(self, other: $unit) -> $unit {
                $unit(self.0.saturating_sub(other.0))
            }
        }

        impl Add for $unit {
            type Output = $unit;

            fn add(self, other: $unit) -> $unit {
                $unit(self.0 + other.0)
            }
        }

        impl Sub for $unit {
            type Output = $unit;

            fn sub(self, other: $unit) -> $unit {
                $unit(self.0 - other.0)
            }
        }

        impl AddAssign for $unit {
            fn add_assign(&mut self, other: $unit) {
                self.0 += other.0;
            }
        }

        impl Mul<u64> for $unit {
            type Output = $unit;

            fn mul(self, factor: u64) -> $unit {
                $unit(self.0 * factor)
            }
        }

        impl Div<u64> for $unit {
            type Output = $unit;

            fn div(self, divisor: u64) -> $unit {
                $unit(self.0 / divisor)
            }
        }

        impl fmt::Display for $unit {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

arithmetic!(Ms);
arithmetic!(Us);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_encoded_like_their_number() {
        for number in [0, 127, 128, 1_700_000_000_000_000, u64::MAX] {
            let bytes = postcard::to_stdvec(&number).unwrap();
            assert_eq!(postcard::to_stdvec(&Ms(number)).unwrap(), bytes);
            assert_eq!(postcard::to_stdvec(&Us(number)).unwrap(), bytes);
            assert_eq!(postcard::from_bytes::<Ms>(&bytes).unwrap(), Ms(number));
            assert_eq!(postcard::from_bytes::<Us>(&bytes).unwrap(), Us(number));
        }
    }

    #[test]
    fn conversions_round_down() {
        assert_eq!((Ms(7).to_us(), Us(7_999).to_ms()), (Us(7_000), Ms(7)));
    }
}
