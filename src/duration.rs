//! Times as people write them on a command line or in a file: a number and its unit.

use anyhow::{bail, ensure};
use std::time::Duration;

/// More than anybody can mean, so that a time can be added to any other: a hundred years.
const SECONDS_MAX: f64 = 100.0 * 365.0 * 86_400.0;

/// `500ms`, `1.5s`, `10m`, `1h`, `2d` as a time above 0. A number without a unit is none: people differ in what it means.
///
/// # Errors
/// If it is anything else.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_its_unit() {
        let times = ["500ms", "1.5s", "10s", "2m", "1h", "1d"].map(|text| parse(text).unwrap().as_millis());
        assert_eq!(times, [500, 1_500, 10_000, 120_000, 3_600_000, 86_400_000]);
        for text in ["", "5", "s", "10x", "-1s", "0s", "0", "1e3s", "1.2.3s", "0.5ms", "99999999999h", "5 s", "٣s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
