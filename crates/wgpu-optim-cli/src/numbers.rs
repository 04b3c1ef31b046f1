//! Whole numbers on the command line.

use std::ops::RangeInclusive;

/// A parser of whole numbers in `range`. Its message says what is allowed.
pub fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match (range.start(), range.end()) {
            (least, &u64::MAX) => format!("expected a whole number of at least {least}"),
            (least, most) => format!("expected a whole number from {least} to {most}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_said() {
        let upwards = whole::<u64>(1..=u64::MAX);
        assert_eq!(upwards("18446744073709551615"), Ok(u64::MAX));
        for text in ["0", "-1", "1.5", "", "18446744073709551616"] {
            assert_eq!(upwards(text).unwrap_err(), "expected a whole number of at least 1", "{text}");
        }
        let between = whole::<u32>(2..=10);
        assert_eq!((between("2"), between("10")), (Ok(2), Ok(10)));
        for text in ["1", "11", "-2", "two"] {
            assert_eq!(between(text).unwrap_err(), "expected a whole number from 2 to 10", "{text}");
        }
    }
}
