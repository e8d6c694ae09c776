//! Numbers as Redis reads and writes them in values and arguments: strict 64-bit integers, and decimal fractions.
//!
//! Before version 3 of values, INCRBYFLOAT computed numbers below 2^64 exactly, in decimal with 17 digits after the
//! point, and larger numbers in binary floating point. Old logs hold such commands, and all replicas must compute the
//! same result for them. Now INCRBYFLOAT computes as Redis does: see `long_double`.

/// Parses a 64-bit integer in canonical form: no spaces, no `+`, no leading zeros, no `-0`.
#[must_use]
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [] | [b'0', ..] => return None,
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut magnitude: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit); // 19 digits fit
    }
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// An unsigned 64-bit integer, digits only.
#[must_use]
pub(super) fn unsigned(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { number.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

/// Parses a SCAN cursor as Redis does, by C's `strtoul`: a sign and leading zeros may come first, a negative number
/// counts down from 2^64, and an empty text is 0.
#[must_use]
pub(super) fn cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    let magnitude = if zeros > 0 && zeros == digits.len() { 0 } else { unsigned(&digits[zeros..])? };
    Some(if negative { magnitude.wrapping_neg() } else { magnitude })
}

/// Why two numbers have no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FloatError {
    /// One of them is not a number.
    NotANumber,
    /// The sum is infinite.
    Infinite,
}

/// The text of the sum of two numbers given as text.
pub(super) fn float_sum(left: &[u8], right: &[u8]) -> Result<String, FloatError> {
    match (Float::parse(left)?, Float::parse(right)?) {
        (Float { exact: Some(left), .. }, Float { exact: Some(right), .. }) => Ok(print_exact(left + right)),
        (left, right) => print_wide(left.near + right.near),
    }
}

/// Returns true if `text` is a number that INCRBYFLOAT accepts.
pub(super) fn is_float(text: &[u8]) -> bool {
    Float::parse(text).is_ok()
}

/// A number: its value in units of 10^-17 if it is below 2^64, and the nearest binary floating-point number.
struct Float {
    exact: Option<i128>,
    near: f64,
}

impl Float {
    fn parse(text: &[u8]) -> Result<Float, FloatError> {
        if text.len() > FLOAT_BYTES_MAX {
            return Err(FloatError::NotANumber);
        }
        let text = std::str::from_utf8(text).map_err(|_| FloatError::NotANumber)?;
        let near: f64 = text.parse().map_err(|_| FloatError::NotANumber)?;
        let overflowed = near.is_infinite() && text.contains(|c: char| c.is_ascii_digit());
        if near.is_nan() || overflowed {
            return Err(FloatError::NotANumber);
        }
        let exact = if near.abs() < EXACT_BELOW { exact(text.as_bytes()) } else { None };
        Ok(Float { exact, near })
    }
}

/// Returns a number in units of 10^-17, rounded half away from zero. The text must be a valid, finite number below
/// 2^64.
fn exact(text: &[u8]) -> Option<i128> {
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], saturated(&text[at + 1..])),
        None => (text, 0),
    };
    let (mut digits, mut shift, mut behind_point) = (0_i128, exponent.saturating_add(DECIMALS), false);
    for &byte in mantissa {
        match byte {
            b'.' => behind_point = true,
            b'0'..=b'9' if digits < i128::MAX / 100 => {
                digits = digits * 10 + i128::from(byte - b'0');
                shift -= i64::from(behind_point);
            }
            b'0'..=b'9' => shift += i64::from(!behind_point), // beyond all precision
            _ => {}                                           // the sign
        }
    }
    let magnitude = match u32::try_from(shift) {
        _ if digits == 0 => 0,
        Ok(up) => digits.checked_mul(10_i128.checked_pow(up)?)?,
        Err(_) => match 10_i128.checked_pow(u32::try_from(-shift).unwrap_or(u32::MAX)) {
            Some(unit) => (digits + unit / 2) / unit,
            None => 0,
        },
    };
    Some(if text.first() == Some(&b'-') { -magnitude } else { magnitude })
}

/// Parses a decimal exponent. It saturates at 2^40, which has the same effect as any larger exponent.
fn saturated(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let add = |number: i64, &byte: &u8| (number * 10 + i64::from(byte.wrapping_sub(b'0'))).min(1 << 40);
    let magnitude = digits.iter().fold(0, add);
    if negative { -magnitude } else { magnitude }
}

fn print_exact(number: i128) -> String {
    let (sign, magnitude) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let (whole, fraction) = (magnitude / UNIT, magnitude % UNIT);
    trim(format!("{sign}{whole}.{fraction:017}"))
}

fn print_wide(number: f64) -> Result<String, FloatError> {
    if !number.is_finite() {
        return Err(FloatError::Infinite);
    }
    let text = trim(format!("{number:.17}"));
    Ok(if text == "-0" { "0".to_owned() } else { text })
}

/// Removes trailing zeros, and the point if no digit follows it.
fn trim(mut text: String) -> String {
    let length = text.trim_end_matches('0').trim_end_matches('.').len();
    text.truncate(length);
    text
}

/// Number of digits that are kept after the point, as in Redis.
const DECIMALS: i64 = 17;
const UNIT: u128 = 10_u128.pow(DECIMALS as u32);
const EXACT_BELOW: f64 = 18_446_744_073_709_551_616.0;
/// Maximum bytes of a number. Redis refuses longer ones, too.
const FLOAT_BYTES_MAX: usize = 5120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        for number in [0, 1, -1, 42, i64::MAX, i64::MIN, i64::MAX - 1] {
            assert_eq!(integer(number.to_string().as_bytes()), Some(number));
        }
        for text in ["", "-", "+1", "01", "-0", "-01", " 1", "1 ", "1.0", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
        assert_eq!(integer(b"99999999999999999999999999"), None);
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(unsigned(b"007"), Some(7));
        for text in ["", "-1", "18446744073709551616", "1a", "99999999999999999999"] {
            assert_eq!(unsigned(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn cursors_are_read_as_c_reads_them() {
        for (text, number) in [
            ("", 0),
            ("0", 0),
            ("-0", 0),
            ("000", 0),
            ("+5", 5),
            ("-1", u64::MAX),
            ("000000000000000000000000018446744073709551615", u64::MAX),
            ("-18446744073709551615", 1),
        ] {
            assert_eq!(cursor(text.as_bytes()), Some(number), "{text}");
        }
        for text in ["-", "+", "x", "5x", " 5", "5 ", "--1", "18446744073709551616", "-18446744073709551616", "1e3"] {
            assert_eq!(cursor(text.as_bytes()), None, "{text}");
        }
    }

    fn sum(left: &str, right: &str) -> String {
        float_sum(left.as_bytes(), right.as_bytes()).unwrap()
    }

    #[test]
    fn sums_are_decimal() {
        assert_eq!(sum("0.1", "0.2"), "0.3");
        assert_eq!(sum("10.50", "0.1"), "10.6");
        assert_eq!(sum("5.0e3", "2.0e2"), "5200");
        assert_eq!(sum("-1.5", ".5"), "-1");
        assert_eq!(sum("1", "-1.0"), "0");
        assert_eq!(sum("-0", "0"), "0");
        assert_eq!(sum("+5", "5."), "10");
        assert_eq!(sum("9223372036854775807", "1"), "9223372036854775808");
        assert_eq!(sum("3", "1e-17"), "3.00000000000000001");
        assert_eq!(sum("3", "1e-18"), "3");
        assert_eq!(sum("3", "1e-9999999999999999999999"), "3");
        assert_eq!(sum("0e99999999999", "0.0000000000000000000000000000000000000000000000000000001"), "0");
        assert_eq!(sum("0.33333333333333333333333333333333333333333333333333", "0"), "0.33333333333333333");
        assert_eq!(sum("1e300", "-1e300"), "0");
        assert_eq!(sum("1e22", "1"), "10000000000000000000000");
    }

    #[test]
    fn what_is_not_a_number_is_told_from_what_is_too_large() {
        for text in ["", "abc", "nan", " 1", "1 ", "1e400", "0x", "1e", "--1", "1\0"] {
            assert_eq!(float_sum(text.as_bytes(), b"1"), Err(FloatError::NotANumber), "{text}");
        }
        assert_eq!(float_sum(b"1", b"inf"), Err(FloatError::Infinite));
        assert_eq!(float_sum(b"1e308", b"1.7e308"), Err(FloatError::Infinite));
        assert!(is_float(b"-Infinity") && !is_float(b"x"));
    }

    const NUMBERS: &str = "[-+]?[0-9]{0,30}[.]?[0-9]{0,30}(e[-+]?[0-9]{1,20})?";

    proptest::proptest! {
        #[test]
        fn a_sum_of_short_decimals_is_exact(a in -1_000_000_i64..1_000_000, b: i32) {
            let b = i64::from(b);
            let text = |n: i64| format!("{}{}.{:04}", if n < 0 { "-" } else { "" }, n.abs() / 10_000, n.abs() % 10_000);
            assert_eq!(sum(&text(a), &text(b)), trim(text(a + b)));
        }

        #[test]
        fn any_bytes_are_judged_without_panic(text: Vec<u8>, number in NUMBERS) {
            let _ = float_sum(&text, number.as_bytes());
            let _ = integer(&text);
        }
    }
}
