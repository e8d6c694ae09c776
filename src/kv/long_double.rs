//! The arithmetic of INCRBYFLOAT: that of C's `long double` on x86-64, as in Redis. A number has a mantissa of 64 bits
//! and an exponent of 15 bits. Text and sums are rounded to the nearest such number, ties to even. The result is
//! written with 17 digits behind the point, exactly rounded. All arithmetic uses integers, so that every replica comes
//! to the same bytes on any processor.
//!
//! Text is what `strtold` takes in the C locale: decimal or hexadecimal, with or without an exponent, and infinity.
//! What Redis refuses is refused here, too: NaN, spaces, and numbers beyond the largest or nearer to 0 than the
//! smallest.

use super::number::FloatError;
use std::cmp::Ordering;

/// Maximum bytes of a text. Redis gives up on longer ones.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Exponent of the last mantissa bit of the numbers nearest to 0.
const EXPONENT_MIN: i64 = -16_445;
/// Exponent of the last mantissa bit of the largest numbers.
const EXPONENT_MAX: i64 = 16_320;
/// Maximum digits before the point; a decimal with more is too large.
const DIGITS_MAX: i64 = 4_940;
/// Minimum digits before the point, where leading zeros behind the point count as negative digits. A decimal with fewer
/// is too near to 0.
const DIGITS_MIN: i64 = -4_960;
/// Digits that are written behind the point.
const DECIMALS: u32 = 17;

/// A finite number, `mantissa * 2^exponent`. The highest bit of the mantissa is set, unless the exponent is the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Finite {
    negative: bool,
    mantissa: u64,
    exponent: i64,
}

/// The number that a text stands for.
enum Number {
    Finite(Finite),
    Infinite,
}

/// Returns the text of the sum of two numbers given as text.
///
/// # Errors
/// If one of them is not a number, or if one of them or the sum is infinite.
pub(super) fn sum(left: &[u8], right: &[u8]) -> Result<String, FloatError> {
    match (parse(left), parse(right)) {
        (Some(Number::Finite(left)), Some(Number::Finite(right))) => {
            Ok(print(add(left, right).ok_or(FloatError::Infinite)?))
        }
        (Some(_), Some(_)) => Err(FloatError::Infinite),
        _ => Err(FloatError::NotANumber),
    }
}

/// Returns true if a text is a number that INCRBYFLOAT takes.
pub(super) fn is_number(text: &[u8]) -> bool {
    parse(text).is_some()
}

fn parse(text: &[u8]) -> Option<Number> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
        return Some(Number::Infinite);
    }
    let finite = match rest {
        [b'0', b'x' | b'X', hex @ ..] => parse_hexadecimal(hex),
        decimal => parse_decimal(decimal),
    };
    finite.map(|finite| Number::Finite(Finite { negative, ..finite }))
}

/// The digits of a text without the point, and its exponent, which is 0 if the text has none.
struct Digits {
    digits: Vec<u8>,
    /// The number of digits behind the point.
    behind_point: i64,
    exponent: i64,
}

impl Digits {
    fn parse(text: &[u8], mark: u8, value: impl Fn(u8) -> Option<u8>) -> Option<Digits> {
        let at = text.iter().position(|byte| byte.eq_ignore_ascii_case(&mark)).unwrap_or(text.len());
        let (mantissa, exponent) = text.split_at(at);
        let exponent = if exponent.is_empty() { 0 } else { exponent_of(&exponent[1..])? };
        let (mut digits, mut point) = (Vec::with_capacity(mantissa.len()), None);
        for &byte in mantissa {
            match byte {
                b'.' if point.is_none() => point = Some(digits.len()),
                byte => digits.push(value(byte)?),
            }
        }
        let behind_point = point.map_or(0, |point| digits.len() - point) as i64;
        (!digits.is_empty()).then_some(Digits { digits, behind_point, exponent })
    }

    /// Returns the digits without zeros at either end, and the number of zeros cut off at the end. Each of these zeros
    /// stands for one factor of the base. Returns `None` if the number is 0.
    fn significant(&self) -> Option<(&[u8], i64)> {
        let first = self.digits.iter().position(|digit| *digit != 0)?;
        let last = self.digits.iter().rposition(|digit| *digit != 0)?;
        Some((&self.digits[first..=last], (self.digits.len() - 1 - last) as i64))
    }
}

/// Parses an exponent, which is always written in decimal. Its magnitude is capped at 2^32, which has the same effect
/// as any larger magnitude.
fn exponent_of(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = digits.iter().fold(0, |number: i64, byte| (number * 10 + i64::from(byte - b'0')).min(1 << 32));
    Some(if negative { -magnitude } else { magnitude })
}

const ZERO: Finite = Finite { negative: false, mantissa: 0, exponent: EXPONENT_MIN };

fn parse_hexadecimal(text: &[u8]) -> Option<Finite> {
    let value = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let digits = Digits::parse(text, b'p', value)?;
    let Some((significant, zeros)) = digits.significant() else { return Some(ZERO) };
    // The first 31 digits hold more than 64 bits; the digits behind them can only tip a tie.
    let head = significant.len().min(31);
    let bits = significant[..head].iter().fold(0_u128, |bits, digit| bits << 4 | u128::from(*digit));
    let behind = (significant.len() - head) as i64;
    let exponent = digits.exponent + 4 * (behind + zeros - digits.behind_point);
    nearest(bits, exponent, behind > 0).filter(|number| number.mantissa > 0)
}

fn parse_decimal(text: &[u8]) -> Option<Finite> {
    let value = |byte: u8| byte.is_ascii_digit().then(|| byte - b'0');
    let digits = Digits::parse(text, b'e', value)?;
    let Some((significant, zeros)) = digits.significant() else { return Some(ZERO) };
    let exponent = digits.exponent + zeros - digits.behind_point;
    let before_point = significant.len() as i64 + exponent;
    if !(DIGITS_MIN..=DIGITS_MAX).contains(&before_point) {
        return None;
    }
    let mut numerator = Natural::of_decimal(significant);
    let mut denominator = Natural::of(1);
    let power = if exponent < 0 { &mut denominator } else { &mut numerator };
    power.multiply_by_ten_to(exponent.unsigned_abs());
    let (bits, exponent, inexact) = numerator.divided_by(denominator);
    nearest(bits, exponent, inexact).filter(|number| number.mantissa > 0)
}

/// Returns the number nearest to `bits * 2^exponent`. If `inexact` is true, the exact value is a little above that
/// product; the caller then passes at least 66 bits, or an exponent far below the lowest. Returns `None` if the number
/// is too large.
fn nearest(bits: u128, exponent: i64, inexact: bool) -> Option<Finite> {
    let length = i64::from(u128::BITS - bits.leading_zeros());
    let shift = (length - 64).max(EXPONENT_MIN - exponent);
    let (mantissa, exponent) = if shift <= 0 {
        // The bits leave room: shift them to the top, as far as the exponent allows.
        let up = (-shift).min(64 - length).max(0);
        ((bits << up) as u64, exponent - up)
    } else {
        let (kept, rest) = if shift < 128 { (bits >> shift, bits & ((1 << shift) - 1)) } else { (0, bits) };
        let half = if shift <= 128 { 1_u128 << (shift - 1) } else { u128::MAX };
        let up = match rest.cmp(&half) {
            Ordering::Greater => true,
            Ordering::Equal => inexact || kept & 1 == 1,
            Ordering::Less => false,
        };
        let rounded = kept + u128::from(up);
        if rounded >> 64 == 1 { (1 << 63, exponent + shift + 1) } else { (rounded as u64, exponent + shift) }
    };
    if mantissa == 0 {
        return Some(ZERO);
    }
    (exponent <= EXPONENT_MAX).then_some(Finite { negative: false, mantissa, exponent })
}

/// Returns the sum; `None` if it is too large.
fn add(left: Finite, right: Finite) -> Option<Finite> {
    let (high, low) = if left.exponent >= right.exponent { (left, right) } else { (right, left) };
    // Append 62 guard bits to both mantissas. Of the bits of the lower number that are still cut off, it matters only
    // whether one of them is set.
    let (a, b) = (u128::from(high.mantissa) << GUARD_BITS, u128::from(low.mantissa) << GUARD_BITS);
    let distance = high.exponent - low.exponent;
    let (b, inexact) = match u32::try_from(distance) {
        Ok(distance) if distance < 128 => (b >> distance, b & ((1 << distance) - 1) != 0),
        _ => (0, b != 0),
    };
    let (negative, bits) = if high.negative == low.negative {
        (high.negative, a + b)
    } else if a >= b {
        // The bits cut off from `b` are a fraction of one unit. To subtract them too, subtract a whole unit; `inexact`
        // then says that the exact difference is a little larger.
        (high.negative, a - b - u128::from(inexact))
    } else {
        (low.negative, b - a)
    };
    let sum = nearest(bits, high.exponent - i64::from(GUARD_BITS), inexact)?;
    Some(Finite { negative: negative && sum.mantissa > 0, ..sum })
}

const GUARD_BITS: u32 = 62;

/// Returns the number with 17 digits behind the point, as `%.17Lf`, without the zeros at the end.
fn print(number: Finite) -> String {
    let sign = if number.negative { "-" } else { "" };
    if number.exponent >= 0 {
        let mut whole = Natural::of(number.mantissa);
        whole.shift_left(number.exponent as u64);
        return format!("{sign}{}", whole.decimal());
    }
    let unit = 10_u128.pow(DECIMALS);
    let (scaled, shift) = (u128::from(number.mantissa) * unit, -number.exponent); // below 2^121
    let (kept, rest, half) =
        if shift < 128 { (scaled >> shift, scaled & ((1 << shift) - 1), 1 << (shift - 1)) } else { (0, 0, 1) };
    let up = rest > half || rest == half && kept & 1 == 1;
    let rounded = kept + u128::from(up);
    let text = format!("{sign}{}.{:017}", rounded / unit, rounded % unit);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A natural number, its lowest limb first.
struct Natural(Vec<u32>);

impl Natural {
    fn of(number: u64) -> Natural {
        let mut natural = Natural(vec![number as u32, (number >> 32) as u32]);
        natural.trim();
        natural
    }

    fn of_decimal(digits: &[u8]) -> Natural {
        let mut number = Natural(Vec::new());
        for chunk in digits.chunks(9) {
            let value = chunk.iter().fold(0, |value, digit| value * 10 + u32::from(*digit));
            number.multiply_add(10_u32.pow(chunk.len() as u32), value);
        }
        number
    }

    fn multiply_add(&mut self, factor: u32, add: u32) {
        let mut carry = u64::from(add);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn multiply_by_ten_to(&mut self, mut power: u64) {
        while power > 0 {
            let step = power.min(9);
            self.multiply_add(10_u32.pow(step as u32), 0);
            power -= step;
        }
    }

    fn bits(&self) -> u64 {
        self.0.last().map_or(0, |top| self.0.len() as u64 * 32 - u64::from(top.leading_zeros()))
    }

    fn shift_left(&mut self, bits: u64) {
        let (limbs, bits) = ((bits / 32) as usize, (bits % 32) as u32);
        let mut carry = 0_u64;
        for limb in &mut self.0 {
            carry |= u64::from(*limb) << bits;
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
        self.0.splice(0..0, std::iter::repeat_n(0, limbs));
    }

    fn double(&mut self) {
        self.multiply_add(2, 0);
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_below(&self, other: &Natural) -> bool {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev())) == Ordering::Less
    }

    /// Subtracts another number, which is not greater.
    fn subtract(&mut self, other: &Natural) {
        let mut borrow = false;
        for (at, limb) in self.0.iter_mut().enumerate() {
            let (less, first) = limb.overflowing_sub(other.0.get(at).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            (*limb, borrow) = (less, first || second);
        }
        self.trim();
    }

    /// Returns the first bits of the quotient ([`QUOTIENT_BITS`] of them, or one more), the exponent of the last of
    /// these bits, and whether there is a remainder.
    fn divided_by(mut self, mut by: Natural) -> (u128, i64, bool) {
        // Make both equally long, so that the first set bit of the quotient is one of the first two.
        let exponent = self.bits() as i64 - by.bits() as i64;
        let shorter = if exponent < 0 { &mut self } else { &mut by };
        shorter.shift_left(exponent.unsigned_abs());
        let mut quotient = 0_u128;
        for _ in 0..=QUOTIENT_BITS {
            quotient <<= 1;
            if !self.is_below(&by) {
                self.subtract(&by);
                quotient |= 1;
            }
            self.double();
        }
        (quotient, exponent - i64::from(QUOTIENT_BITS), !self.0.is_empty())
    }

    fn decimal(mut self) -> String {
        let mut chunks = Vec::new();
        while !self.0.is_empty() {
            let mut rest = 0_u64;
            for limb in self.0.iter_mut().rev() {
                rest = rest << 32 | u64::from(*limb);
                *limb = (rest / 1_000_000_000) as u32;
                rest %= 1_000_000_000;
            }
            chunks.push(rest);
            self.trim();
        }
        let Some(first) = chunks.pop() else { return "0".to_owned() };
        chunks.iter().rev().fold(first.to_string(), |text, chunk| text + &format!("{chunk:09}"))
    }
}

/// Bits of a quotient: more than the 64 of a mantissa, with room for the bits that tip a tie.
const QUOTIENT_BITS: u32 = 66;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(left: &str, right: &str) -> String {
        sum(left.as_bytes(), right.as_bytes()).unwrap()
    }

    /// Replies of a redis-server 7.0.15 on x86-64.
    #[test]
    fn sums_are_those_of_redis() {
        for (left, right, expected) in [
            ("0.1", "0.2", "0.3"),
            ("0", "12345678901234567890.123456789", "12345678901234567890"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551616", "1", "18446744073709551616"),
            ("3", "1e-17", "3.00000000000000001"),
            ("0.5", "1e-17", "0.50000000000000001"),
            ("0", "0x10", "16"),
            ("0x1F", "1", "32"),
            ("0x.8p1", "1", "2"),
            ("0", "0x1p-3", "0.125"),
            ("1e-20", "0", "0"),
            ("-1e-30", "0", "0"),
            ("-0", "0", "0"),
            ("5.", ".5", "5.5"),
            ("+5", "+3", "8"),
            ("3.0e3", "-0", "3000"),
        ] {
            assert_eq!(told(left, right), expected, "{left} + {right}");
        }
        let large = concat!(
            "9999999999999999999863494245812564547663077632499060486997229336644073637421164316354271666004182454",
            "0939870238230415274997195732840242317234112648403237037577274697478865721462569365144498401273913311",
            "3268869496442311034817571120406763557498021655642425941543468850939783228659030453659621446207643423",
            "114002432",
        );
        assert_eq!(told("0", "1e309"), large);
        let largest = told("1.18973149535723176502e4932", "0");
        assert!(largest.len() == 4_933 && largest.starts_with("118973149535723176502126385303097"), "{largest}");
    }

    #[test]
    fn what_redis_refuses_is_refused() {
        for text in [
            "",
            "x",
            "nan",
            "-nan",
            "nan(1)",
            " 5",
            "5 ",
            "1e",
            "1e+",
            "1d",
            "0x",
            "0xg",
            "0x1p",
            "0x1p-",
            ".",
            "e5",
            "--1",
            "1.2.3",
            "1e-5000",
            "1e5000",
            "1e-4951",
            "1.2e4932",
            "0x1p16384",
            "0x1p-16446",
            "1e99999999999999999999",
            "infinit",
            "5\0",
        ] {
            assert_eq!(sum(text.as_bytes(), b"1"), Err(FloatError::NotANumber), "{text}");
        }
        for (left, right) in [("1", "inf"), ("Infinity", "-INF"), ("1e4932", "1e4932"), ("-1e4932", "-0x1p16383")] {
            assert_eq!(sum(left.as_bytes(), right.as_bytes()), Err(FloatError::Infinite), "{left} + {right}");
        }
        let long = "0".repeat(TEXT_BYTES_MAX);
        assert!(is_number(long.as_bytes()) && !is_number(format!("{long}0").as_bytes()));
        assert!(
            is_number(b"0e999999999") && is_number(b"-0x0p99999") && is_number(b"4e-4951") && is_number(b"0x1p-16445")
        );
    }

    #[test]
    fn rounding_is_to_the_nearest_and_to_even() {
        let bits = |text: &str| match parse(text.as_bytes()) {
            Some(Number::Finite(number)) => (number.mantissa, number.exponent),
            _ => panic!("{text} is not finite"),
        };
        assert_eq!(bits("1"), (1 << 63, -63));
        assert_eq!(bits("0x1.00000000000000010"), (1 << 63, -63), "a tie goes to even");
        assert_eq!(bits("0x1.00000000000000030"), ((1 << 63) + 2, -63));
        assert_eq!(bits("0x1.000000000000000100000000000000000000000000000000000001"), ((1 << 63) + 1, -63));
        assert_eq!(bits("36893488147419103233"), (1 << 63, 2), "2^65 + 1");
        assert_eq!(bits("18446744073709551617.0000000000000000000000000000000000000000001"), ((1 << 63) + 1, 1));
        assert_eq!(bits("0xffffffffffffffff8"), (1 << 63, 5));
        assert_eq!(bits("0x1p-16445"), (1, EXPONENT_MIN));
        assert_eq!(bits("0x1.8p-16445"), (2, EXPONENT_MIN));
        assert_eq!(bits("0x1.8p-16446"), (1, EXPONENT_MIN));
        assert_eq!(bits("3.6451995318824746025e-4951"), (1, EXPONENT_MIN));
        // Bits cut off from the smaller number are never lost, even in a subtraction.
        assert_eq!(told("0x1p64", "-0x.8p0"), "18446744073709551616", "a tie in the upper binade goes to even");
        assert_eq!(told("0x1p64", "-0x.800001p0"), "18446744073709551615");
        assert_eq!(told("0x1p64", "-0x1p-200"), "18446744073709551616");
        assert_eq!(told("0x8000000000000001", "-0x8000000000000000"), "1");
    }

    const NUMBERS: &str =
        "[-+]?(0[xX][0-9a-f]{0,40}[.]?[0-9a-f]{0,40}(p[-+]?[0-9]{1,5})?|[0-9]{0,40}[.]?[0-9]{0,40}(e[-+]?[0-9]{1,4})?)";

    proptest::proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text: Vec<u8>, left in NUMBERS, right in NUMBERS) {
            let _ = sum(&text, left.as_bytes());
            let forth = sum(left.as_bytes(), right.as_bytes());
            assert_eq!(forth, sum(right.as_bytes(), left.as_bytes()));
            // The text that was written is a number again.
            if let Ok(text) = forth {
                assert!(is_number(text.as_bytes()), "{text}");
            }
        }

        #[test]
        fn sums_of_integers_are_exact(a: i32, b: i64) {
            let exact = i128::from(a) + i128::from(b >> 1);
            assert_eq!(told(&a.to_string(), &(b >> 1).to_string()), exact.to_string());
        }
    }
}
