//! Whether a sample can be what it claims to be. Nothing is applied of a frame that has one bad sample.

use crate::model::{Bounds, MetricType};

/// What is wrong with a sample's values.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BadSample {
    /// A count below zero, infinite or not a number.
    #[error("a count is {0}, not a number from 0 up")]
    NotACount(f64),
    /// A count below what the same instance reported before.
    #[error("a count fell from {0} to {1}; values of one instance never fall")]
    Fell(f64, f64),
    /// A bucket with fewer observations than a smaller one, or more than all.
    #[error("cumulative bucket counts fall from {0} to {1}")]
    BucketsFall(f64, f64),
}

/// Checks one sample of an instance that reported `before` last (`None`: nothing yet). Both have as many values as the
/// type and bounds say.
pub(super) fn check(
    kind: MetricType,
    bounds: &Bounds,
    before: Option<&[f64]>,
    values: &[f64],
) -> Result<(), BadSample> {
    let counts = counts(kind, bounds, values);
    for (at, &count) in counts.iter().enumerate() {
        if !count.is_finite() || count < 0.0 {
            return Err(BadSample::NotACount(count));
        }
        let last = before.and_then(|before| self::counts(kind, bounds, before).get(at).copied());
        if let Some(last) = last.filter(|last| count < *last) {
            return Err(BadSample::Fell(last, count));
        }
    }
    if kind == MetricType::Histogram
        && let Some(pair) = counts.array_windows::<2>().find(|[a, b]| a > b)
    {
        return Err(BadSample::BucketsFall(pair[0], pair[1]));
    }
    Ok(())
}

/// The part of a sample that only rises: not gauges, and not a sum, which negative observations lower.
pub(super) fn counts<'a>(kind: MetricType, bounds: &Bounds, values: &'a [f64]) -> &'a [f64] {
    let (from, to) = match kind {
        MetricType::Counter => (0, 1),
        MetricType::Gauge | MetricType::Untyped => (0, 0),
        MetricType::Histogram => (0, bounds.len() + 1),
        MetricType::Summary => (bounds.len(), bounds.len() + 1),
    };
    values.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_numbers_from_zero_up_and_never_fall() {
        let none = Bounds::none();
        let counter =
            |before: Option<&[f64]>, now: f64| check(MetricType::Counter, &none, before, &[now]);
        assert_eq!(counter(None, 0.0), Ok(()));
        assert_eq!(counter(Some(&[2.0]), 2.0), Ok(()));
        assert_eq!(counter(Some(&[2.0]), 1.0), Err(BadSample::Fell(2.0, 1.0)));
        assert_eq!(counter(None, -1.0), Err(BadSample::NotACount(-1.0)));
        assert!(matches!(counter(None, f64::NAN), Err(BadSample::NotACount(_))));
        assert_eq!(check(MetricType::Gauge, &none, Some(&[2.0]), &[f64::NAN]), Ok(()));
    }

    #[test]
    fn buckets_rise_and_a_sum_may_fall() {
        let bounds = Bounds::new(&[0.0, 1.0]).unwrap();
        let histogram = |before: Option<&[f64]>, now: &[f64]| {
            check(MetricType::Histogram, &bounds, before, now)
        };
        assert_eq!(histogram(Some(&[1.0, 1.0, 1.0, 5.0]), &[1.0, 1.0, 2.0, -5.0]), Ok(()));
        assert_eq!(histogram(None, &[1.0, 3.0, 2.0, 0.0]), Err(BadSample::BucketsFall(3.0, 2.0)));
        let summary =
            check(MetricType::Summary, &bounds, Some(&[9.0, 9.0, 1.0, 5.0]), &[1.0, 2.0, 1.0, 4.0]);
        assert_eq!(summary, Ok(()));
    }
}
