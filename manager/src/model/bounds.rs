//! Upper bounds of a histogram's buckets, or quantiles of a summary.

use std::fmt::Write as _;

/// Rising finite bounds, with their spelling on the page. Many series share one.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    values: Box<[f64]>,
    text: Box<[Box<str>]>,
}

/// Why bounds were refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BoundsError {
    /// NaN or infinite (+Inf is always there and never stated).
    #[error("bound {0} is not finite (+Inf is implied)")]
    NotFinite(f64),
    /// Not above the one before it.
    #[error("bound {1} comes after {0}: bounds must rise")]
    NotRising(f64, f64),
}

impl Bounds {
    /// Bounds from their values; `-0` becomes `0`.
    ///
    /// # Errors
    /// If one is not finite or not above its predecessor.
    pub fn new(values: &[f64]) -> Result<Self, BoundsError> {
        let values: Box<[f64]> = values.iter().map(|v| v + 0.0).collect();
        if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
            return Err(BoundsError::NotFinite(*bad));
        }
        if let Some(pair) = values.array_windows::<2>().find(|[a, b]| a >= b) {
            return Err(BoundsError::NotRising(pair[0], pair[1]));
        }
        let text = values.iter().map(|v| spell(*v)).collect();
        Ok(Self { values, text })
    }

    /// No bounds: what a counter or gauge has.
    #[must_use]
    pub fn none() -> Self {
        Self { values: Box::default(), text: Box::default() }
    }

    /// The bounds, rising.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// How `le` or `quantile` spells each, the same in every format: OpenMetrics 1.0 canonical ("1.0", not "1").
    pub fn spellings(&self) -> impl Iterator<Item = &str> {
        self.text.iter().map(AsRef::as_ref)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// OpenMetrics' canonical spelling, "Considerations: Canonical Numbers": a decimal point always, an exponent as Go's
/// `%g` writes it (from 1e6, and below 1e-4).
fn spell(value: f64) -> Box<str> {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = if value != 0.0 && !(1e-4..1e6).contains(&value.abs()) {
        write!(text, "{value:e}")
    } else {
        write!(text, "{value:?}")
    };
    if let Some((mantissa, exponent)) = text.split_once('e') {
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
        return format!("{mantissa}e{sign}{digits:0>2}").into();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_spelled_as_openmetrics_wants_them() {
        let bounds = Bounds::new(&[
            -1.0,
            -0.0,
            0.00001,
            0.005,
            1.0,
            2.5,
            10.0,
            123_456.0,
            1_234_567.0,
            1e21,
        ])
        .unwrap();
        let spelled: Vec<_> = bounds.spellings().collect();
        assert_eq!(
            spelled,
            [
                "-1.0",
                "0.0",
                "1e-05",
                "0.005",
                "1.0",
                "2.5",
                "10.0",
                "123456.0",
                "1.234567e+06",
                "1e+21"
            ]
        );
    }

    #[test]
    fn bounds_rise_and_are_finite() {
        assert_eq!(Bounds::new(&[1.0, 1.0]), Err(BoundsError::NotRising(1.0, 1.0)));
        assert!(matches!(Bounds::new(&[f64::NAN]), Err(BoundsError::NotFinite(_))));
        assert_eq!(Bounds::new(&[1.0, f64::INFINITY]), Err(BoundsError::NotFinite(f64::INFINITY)));
    }
}
