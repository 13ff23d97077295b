//! Durations on the command line, such as `--ttl 1h`.

use std::time::Duration;

/// A whole number and a unit: 90s, 5m, 1h or 30d.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).len());
    let seconds_per_unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("give a number and a unit: 90s, 5m, 1h or 30d".to_owned()),
    };

    let number: u64 = number
        .parse()
        .map_err(|_| format!("{number:?} is not a whole number"))?;
    let seconds = number.checked_mul(seconds_per_unit).ok_or("that is too long")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_hours(720)));
        assert!(["5", "m", "1w"].iter().all(|bad| parse_duration(bad).is_err()));
    }
}
