//! Rules of the wire that both ends apply.

use crate::v1::MetricType;

/// Bytes in an instance id (`Hello.instance_id`).
pub const INSTANCE_ID_LEN: usize = 16;

/// Sequence of an instance's first frame; 0 means "none yet".
pub const FIRST_SEQUENCE: u64 = 1;

/// How many values one sample has, by the family's type and the series' number of bounds (histogram: upper bounds
/// without +Inf; summary: quantiles). The layout is described at `Samples` in the .proto. `None` for an unspecified
/// type.
#[must_use]
pub const fn values_per_sample(kind: MetricType, bounds: usize) -> Option<usize> {
    match kind {
        MetricType::Unspecified => None,
        MetricType::Counter | MetricType::Gauge | MetricType::Untyped => Some(1),
        MetricType::Histogram | MetricType::Summary => Some(bounds + 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_brings_its_buckets_its_count_and_its_sum() {
        assert_eq!(values_per_sample(MetricType::Histogram, 12), Some(14));
        assert_eq!(values_per_sample(MetricType::Summary, 0), Some(2));
        assert_eq!(values_per_sample(MetricType::Counter, 0), Some(1));
        assert_eq!(values_per_sample(MetricType::Unspecified, 0), None);
    }
}
