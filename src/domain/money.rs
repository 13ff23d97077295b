//! Amounts of money: whole minor units (1999 is 19.99 USD), 64 bits, never negative, never wrapped around.

use super::Error;

/// Adds up `quantity × unit_price` over the lines.
///
/// # Errors
/// [`Error::TotalTooLarge`] when the sum does not fit 64 bits.
pub fn total(lines: impl IntoIterator<Item = (i64, i64)>) -> Result<i64, Error> {
    lines
        .into_iter()
        .try_fold(0_i64, |sum, (quantity, unit_price)| {
            quantity.checked_mul(unit_price).and_then(|line| sum.checked_add(line))
        })
        .ok_or(Error::TotalTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_that_does_not_fit_is_an_error_and_not_a_small_number() {
        assert_eq!(total([(2, 1999), (1, 1)]).ok(), Some(3999));
        assert!(matches!(total([(2, i64::MAX)]), Err(Error::TotalTooLarge)));
        assert!(matches!(total([(1, i64::MAX), (1, 1)]), Err(Error::TotalTooLarge)));
    }
}
