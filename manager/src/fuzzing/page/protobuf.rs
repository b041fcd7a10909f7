//! The protobuf format, read by messages that are declared here after metrics.proto of prometheus/client_model.

use prost::Message;

use super::{Family, Pairs, Sample};
use crate::model::Bounds;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetricFamily {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) help: String,
    #[prost(int32, tag = "3")]
    pub(crate) kind: i32,
    #[prost(message, repeated, tag = "4")]
    pub(crate) metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    pub(crate) unit: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(crate) label: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    pub(crate) gauge: Option<Plain>,
    #[prost(message, optional, tag = "3")]
    pub(crate) counter: Option<Counter>,
    #[prost(message, optional, tag = "4")]
    pub(crate) summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    pub(crate) untyped: Option<Plain>,
    #[prost(message, optional, tag = "7")]
    pub(crate) histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Plain {
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Counter {
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
    #[prost(message, optional, tag = "2")]
    pub(crate) exemplar: Option<Exemplar>,
    #[prost(message, optional, tag = "3")]
    pub(crate) created: Option<prost_types::Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Summary {
    #[prost(uint64, tag = "1")]
    pub(crate) count: u64,
    #[prost(double, tag = "2")]
    pub(crate) sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) quantile: Vec<Quantile>,
    #[prost(message, optional, tag = "4")]
    pub(crate) created: Option<prost_types::Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Quantile {
    #[prost(double, tag = "1")]
    pub(crate) quantile: f64,
    #[prost(double, tag = "2")]
    pub(crate) value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub(crate) count: u64,
    #[prost(double, tag = "2")]
    pub(crate) sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) bucket: Vec<Bucket>,
    #[prost(double, tag = "4")]
    pub(crate) count_float: f64,
    #[prost(message, optional, tag = "15")]
    pub(crate) created: Option<prost_types::Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Bucket {
    #[prost(uint64, tag = "1")]
    pub(crate) count: u64,
    #[prost(double, tag = "2")]
    pub(crate) bound: f64,
    #[prost(message, optional, tag = "3")]
    pub(crate) exemplar: Option<Exemplar>,
    #[prost(double, tag = "4")]
    pub(crate) count_float: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub(crate) label: Vec<Label>,
    #[prost(double, tag = "2")]
    pub(crate) value: f64,
    #[prost(message, optional, tag = "3")]
    pub(crate) timestamp: Option<prost_types::Timestamp>,
}

pub(crate) fn families(page: &[u8]) -> Vec<MetricFamily> {
    let mut rest = page;
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
    }
    families
}

/// The page as a text page would say it.
pub(crate) fn read(page: &[u8]) -> Vec<Family> {
    let kinds = ["counter", "gauge", "summary", "untyped", "histogram"];
    let read = |family: MetricFamily| Family {
        kind: kinds[family.kind as usize].to_owned(),
        samples: family.metric.iter().flat_map(|metric| samples(&family.name, metric)).collect(),
        exemplars: family
            .metric
            .iter()
            .flat_map(|metric| exemplars(&family.name, metric))
            .collect(),
        name: family.name,
        help: family.help,
        unit: family.unit,
    };
    families(page).into_iter().map(read).collect()
}

fn pairs(labels: &[Label]) -> Pairs {
    labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect()
}

/// Those of a metric, as OpenMetrics would say them.
fn exemplars(name: &str, metric: &Metric) -> Vec<super::Exemplar> {
    let of = pairs(&metric.label);
    let read = |suffix: &str, of: Pairs, exemplar: &Exemplar| {
        let value = Sample::new(String::new(), Vec::new(), exemplar.value);
        let at = exemplar.timestamp.unwrap();
        super::Exemplar {
            name: format!("{name}{suffix}"),
            of,
            labels: pairs(&exemplar.label),
            bits: value.bits,
            at: at.seconds * 1000 + i64::from(at.nanos) / 1_000_000,
        }
    };
    let counter = metric.counter.as_ref().and_then(|counter| counter.exemplar.as_ref());
    let buckets = metric.histogram.iter().flat_map(|histogram| &histogram.bucket);
    let of_buckets = buckets.filter_map(|bucket| {
        let mut of = of.clone();
        of.push(("le".to_owned(), spell(bucket.bound)));
        Some(read("_bucket", of, bucket.exemplar.as_ref()?))
    });
    counter.map(|exemplar| read("", of.clone(), exemplar)).into_iter().chain(of_buckets).collect()
}

/// The samples of a metric, as a text page would have them.
pub(crate) fn samples(name: &str, metric: &Metric) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut put = |suffix: &str, bound: Option<(&str, f64)>, value: f64| {
        let mut labels = pairs(&metric.label);
        labels.extend(bound.map(|(label, bound)| (label.to_owned(), spell(bound))));
        samples.push(Sample::new(format!("{name}{suffix}"), labels, value));
    };
    let plain = metric.gauge.as_ref().or(metric.untyped.as_ref()).map(|plain| plain.value);
    if let Some(value) = plain.or(metric.counter.as_ref().map(|counter| counter.value)) {
        put("", None, value);
    }
    if let Some(summary) = &metric.summary {
        for part in &summary.quantile {
            put("", Some(("quantile", part.quantile)), part.value);
        }
        put("_sum", None, summary.sum);
        put("_count", None, summary.count as f64);
    }
    if let Some(histogram) = &metric.histogram {
        for part in &histogram.bucket {
            let count = count(part.count, part.count_float);
            put("_bucket", Some(("le", part.bound)), count);
        }
        put("_sum", None, histogram.sum);
        put("_count", None, count(histogram.count, histogram.count_float));
    }
    samples
}

/// The fraction overrides the whole number, if it says something.
fn count(whole: u64, fraction: f64) -> f64 {
    if fraction > 0.0 { fraction } else { whole as f64 }
}

/// A bound as the text formats have it.
fn spell(bound: f64) -> String {
    if bound == f64::INFINITY {
        return "+Inf".to_owned();
    }
    Bounds::new(&[bound]).unwrap().spellings().next().unwrap().to_owned()
}
