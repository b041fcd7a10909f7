//! What the registry explains, as protobuf.

use shardmeter_proto::v1;

use super::convert::timestamp;
use crate::{
    model::{Bounds, MetricType, unescape},
    registry::{Explained, Hidden},
};

impl From<Explained> for v1::ExplainedSeries {
    fn from(series: Explained) -> Self {
        let labels = unescape(&series.labels);
        let samples =
            series.values.into_iter().enumerate().map(|(at, value)| v1::ExplainedSample {
                sample: sample(series.family.kind, &series.bounds, at),
                shown: value.shown,
                base: value.base,
                of_instances: value.of_instances,
            });
        Self {
            samples: samples.collect(),
            labels: labels.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            r#type: v1::MetricType::from(series.family.kind).into(),
            first_shard: series.family.first,
            created: Some(timestamp(series.created)),
            rule: series.family.treatment.to_string(),
            overflow: series.is_overflow,
            hidden: series.hidden.map_or("", why).to_owned(),
            instances: series.instances.into_iter().map(v1::Instance::from).collect(),
        }
    }
}

/// What of a series the value at that place is.
fn sample(kind: MetricType, bounds: &Bounds, at: usize) -> String {
    let all = bounds.values().len();
    let bound = bounds.spellings().nth(at);
    match (kind, bound) {
        (MetricType::Histogram, Some(le)) => format!(r#"_bucket{{le="{le}"}}"#),
        (MetricType::Summary, Some(quantile)) => format!(r#"{{quantile="{quantile}"}}"#),
        (MetricType::Histogram | MetricType::Summary, None) if at == all => "_count".to_owned(),
        (MetricType::Histogram | MetricType::Summary, None) => "_sum".to_owned(),
        (MetricType::Counter | MetricType::Gauge | MetricType::Untyped, _) => String::new(),
    }
}

const fn why(hidden: Hidden) -> &'static str {
    match hidden {
        Hidden::NoSample => "it was defined, and no sample of it came",
        Hidden::NoOwner => {
            "the instance whose gauges are the shard's does not have it, or is silent"
        }
        Hidden::OtherBounds => {
            "the same labels came with other bounds too: what it counts is shown with those"
        }
        Hidden::AllShards => "a rule shows all shards together",
    }
}

impl From<MetricType> for v1::MetricType {
    fn from(kind: MetricType) -> Self {
        match kind {
            MetricType::Counter => Self::Counter,
            MetricType::Gauge => Self::Gauge,
            MetricType::Histogram => Self::Histogram,
            MetricType::Summary => Self::Summary,
            MetricType::Untyped => Self::Untyped,
        }
    }
}
