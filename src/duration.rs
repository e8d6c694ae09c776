//! Times as people write and read them: a number and its unit.

use anyhow::{bail, ensure};
use std::fmt;
use std::time::Duration;

/// Maximum time, in seconds: a hundred years, more than anybody can mean. So sums of times do not overflow.
const SECONDS_MAX: f64 = 100.0 * 365.0 * 86_400.0;

/// Parses `500ms`, `1.5s`, `10m`, `1h`, `2d` as a time of at least 1 ms. A number without a unit is refused: people
/// differ in what it means.
///
/// # Errors
/// If the text is anything else.
pub fn parse(text: &str) -> anyhow::Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => bail!("give a time such as 500ms, 10s, 2m or 1h"),
    };
    let seconds = number.parse::<f64>().unwrap_or(-1.0) * scale;
    ensure!((1e-3..=SECONDS_MAX).contains(&seconds), "give a time such as 500ms, 10s, 2m or 1h, from 1ms on");
    Ok(Duration::from_secs_f64(seconds))
}

/// Lead of one clock over another, in milliseconds; shown as `28800.0 s ahead of` or `0.5 s behind`.
pub(crate) struct ClockLead(pub(crate) i64);

impl fmt::Display for ClockLead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.0 < 0 { "behind" } else { "ahead of" };
        write!(f, "{:.1} s {direction}", self.0.unsigned_abs() as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_has_a_direction() {
        assert_eq!(
            [28_800_000, -500, 0].map(|ms| ClockLead(ms).to_string()),
            ["28800.0 s ahead of", "0.5 s behind", "0.0 s ahead of"]
        );
    }

    #[test]
    fn a_time_is_a_number_and_its_unit() {
        let times = ["500ms", "1.5s", "10s", "2m", "1h", "1d"].map(|text| parse(text).unwrap().as_millis());
        assert_eq!(times, [500, 1_500, 10_000, 120_000, 3_600_000, 86_400_000]);
        for text in ["", "5", "s", "10x", "-1s", "0s", "0", "1e3s", "1.2.3s", "0.5ms", "99999999999h", "5 s", "٣s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
