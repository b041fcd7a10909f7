//! The delimited protobuf format: `io.prometheus.client.MetricFamily` messages, each behind its length.
//!
//! Written by hand, for a page is put together from the series that changed: a family's `metric` fields can be encoded
//! one by one, and stand behind each other in any order.

use super::encoder::Head;
use crate::{
    clock::UnixTime,
    model::{Escaping, MetricType, unescape},
    registry::SeriesView,
};

/// Writes families and series, names escaped in one way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoder {
    escaping: Escaping,
}

/// Field numbers of metrics.proto (prometheus/client_model).
mod field {
    pub(super) const FAMILY_NAME: u32 = 1;
    pub(super) const FAMILY_HELP: u32 = 2;
    pub(super) const FAMILY_TYPE: u32 = 3;
    pub(super) const FAMILY_METRIC: u32 = 4;
    pub(super) const FAMILY_UNIT: u32 = 5;
    pub(super) const METRIC_LABEL: u32 = 1;
    pub(super) const METRIC_GAUGE: u32 = 2;
    pub(super) const METRIC_COUNTER: u32 = 3;
    pub(super) const METRIC_SUMMARY: u32 = 4;
    pub(super) const METRIC_UNTYPED: u32 = 5;
    pub(super) const METRIC_HISTOGRAM: u32 = 7;
    pub(super) const LABEL_NAME: u32 = 1;
    pub(super) const LABEL_VALUE: u32 = 2;
    /// Of counters, gauges and untyped metrics.
    pub(super) const VALUE: u32 = 1;
    pub(super) const COUNTER_EXEMPLAR: u32 = 2;
    pub(super) const COUNTER_CREATED: u32 = 3;
    /// Of histograms and summaries.
    pub(super) const COUNT: u32 = 1;
    pub(super) const SUM: u32 = 2;
    pub(super) const PART: u32 = 3;
    pub(super) const SUMMARY_CREATED: u32 = 4;
    pub(super) const HISTOGRAM_COUNT_FLOAT: u32 = 4;
    pub(super) const HISTOGRAM_CREATED: u32 = 15;
    pub(super) const BUCKET_COUNT: u32 = 1;
    pub(super) const BUCKET_BOUND: u32 = 2;
    pub(super) const BUCKET_EXEMPLAR: u32 = 3;
    pub(super) const BUCKET_COUNT_FLOAT: u32 = 4;
    pub(super) const EXEMPLAR_LABEL: u32 = 1;
    pub(super) const EXEMPLAR_VALUE: u32 = 2;
    pub(super) const EXEMPLAR_TIME: u32 = 3;
    pub(super) const QUANTILE: u32 = 1;
    pub(super) const QUANTILE_VALUE: u32 = 2;
    pub(super) const SECONDS: u32 = 1;
    pub(super) const NANOS: u32 = 2;
}

impl Encoder {
    pub(super) const fn new(escaping: Escaping) -> Self {
        Self { escaping }
    }

    /// What stands before a family's series, without the length of all.
    pub(super) fn head(self, name: &str, kind: MetricType, help: &str, unit: &str) -> Head {
        let name = self.escaping.metric_name(name);
        let mut text = Vec::with_capacity(name.len() + help.len() + unit.len() + 16);
        put_bytes(&mut text, field::FAMILY_NAME, name.as_bytes());
        if !help.is_empty() {
            put_bytes(&mut text, field::FAMILY_HELP, help.as_bytes());
        }
        put_varint_field(
            &mut text,
            field::FAMILY_TYPE,
            match kind {
                MetricType::Counter => 0,
                MetricType::Gauge => 1,
                MetricType::Summary => 2,
                MetricType::Untyped => 3,
                MetricType::Histogram => 4,
            },
        );
        if !unit.is_empty() {
            put_bytes(&mut text, field::FAMILY_UNIT, unit.as_bytes());
        }
        Head { kind, name: name.into(), text }
    }

    /// One series, as a field of its family.
    pub(super) fn series(
        self,
        out: &mut Vec<u8>,
        kind: MetricType,
        shard_id: Option<u32>,
        series: &SeriesView<'_>,
    ) {
        let mut metric = Vec::with_capacity(256);
        let mut pair = Vec::with_capacity(64);
        if let Some(id) = shard_id {
            let label = self.escaping.shard_label();
            put_label(
                &mut metric,
                field::METRIC_LABEL,
                &mut pair,
                label,
                itoa::Buffer::new().format(id),
            );
        }
        let stays = self.escaping.keeps(series.labels);
        for (name, value) in unescape(series.labels) {
            if stays {
                put_label(&mut metric, field::METRIC_LABEL, &mut pair, &name, &value);
            } else {
                put_label(
                    &mut metric,
                    field::METRIC_LABEL,
                    &mut pair,
                    &self.escaping.label_name(&name),
                    &value,
                );
            }
        }
        let (field, value) = match kind {
            MetricType::Counter => (field::METRIC_COUNTER, self.counter(series)),
            MetricType::Gauge => (field::METRIC_GAUGE, plain(series)),
            MetricType::Untyped => (field::METRIC_UNTYPED, plain(series)),
            MetricType::Summary => (field::METRIC_SUMMARY, summary(series)),
            MetricType::Histogram => (field::METRIC_HISTOGRAM, self.histogram(series)),
        };
        put_bytes(&mut metric, field, &value);
        put_bytes(out, field::FAMILY_METRIC, &metric);
    }

    fn counter(self, series: &SeriesView<'_>) -> Vec<u8> {
        let mut out = plain(series);
        self.put_exemplar(&mut out, field::COUNTER_EXEMPLAR, series, 0);
        put_time(&mut out, field::COUNTER_CREATED, series.created);
        out
    }

    /// Counts are whole numbers; where a sender's are not, the fields for fractions are used.
    fn histogram(self, series: &SeriesView<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 24 * series.values.len());
        if let [buckets @ .., count, sum] = series.values {
            const TOO_LARGE: f64 = 18_446_744_073_709_551_616.0; // 2^64
            let fits = |value: &f64| value.trunc() == *value && *value < TOO_LARGE;
            let is_whole = series.values.iter().rev().skip(1).all(fits);
            let put_count = |out: &mut Vec<u8>, whole, fraction, value: f64| {
                if is_whole {
                    put_varint_field(out, whole, value as u64);
                } else {
                    put_double(out, fraction, value);
                }
            };
            put_count(&mut out, field::COUNT, field::HISTOGRAM_COUNT_FLOAT, *count);
            put_double(&mut out, field::SUM, *sum);
            let bounds = series.bounds.values().iter().chain(&[f64::INFINITY]);
            let buckets = buckets.iter().chain([count]);
            for (at, (bound, bucket)) in bounds.zip(buckets).enumerate() {
                let mut part = Vec::with_capacity(20);
                put_count(&mut part, field::BUCKET_COUNT, field::BUCKET_COUNT_FLOAT, *bucket);
                put_double(&mut part, field::BUCKET_BOUND, *bound);
                self.put_exemplar(&mut part, field::BUCKET_EXEMPLAR, series, at);
                put_bytes(&mut out, field::PART, &part);
            }
        }
        put_time(&mut out, field::HISTOGRAM_CREATED, series.created);
        out
    }

    /// The exemplar of a counter or bucket that has one.
    fn put_exemplar(self, out: &mut Vec<u8>, field: u32, series: &SeriesView<'_>, bucket: usize) {
        let Some(exemplar) = series.exemplar(bucket) else { return };
        let Some(labels) = exemplar.escaped_labels(self.escaping) else { return };
        let (mut message, mut pair) = (Vec::with_capacity(128), Vec::with_capacity(64));
        for (name, value) in unescape(&labels) {
            put_label(&mut message, field::EXEMPLAR_LABEL, &mut pair, &name, &value);
        }
        put_double(&mut message, field::EXEMPLAR_VALUE, exemplar.value);
        put_time(&mut message, field::EXEMPLAR_TIME, exemplar.at);
        put_bytes(out, field, &message);
    }
}

/// The head of a family behind the length of its message, whose series have `length` bytes.
pub(super) fn open(head: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + 5);
    put_varint(&mut out, (head.len() + length) as u64);
    out.extend_from_slice(head);
    out
}

fn put_label(message: &mut Vec<u8>, field: u32, pair: &mut Vec<u8>, name: &str, value: &str) {
    pair.clear();
    put_bytes(pair, field::LABEL_NAME, name.as_bytes());
    put_bytes(pair, field::LABEL_VALUE, value.as_bytes());
    put_bytes(message, field, pair);
}

fn plain(series: &SeriesView<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    put_double(&mut out, field::VALUE, series.values.first().copied().unwrap_or_default());
    out
}

fn summary(series: &SeriesView<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    if let [quantiles @ .., count, sum] = series.values {
        put_varint_field(&mut out, field::COUNT, *count as u64);
        put_double(&mut out, field::SUM, *sum);
        let shown = if series.owned { quantiles } else { &[] };
        for (quantile, value) in series.bounds.values().iter().zip(shown) {
            let mut part = Vec::with_capacity(18);
            put_double(&mut part, field::QUANTILE, *quantile);
            put_double(&mut part, field::QUANTILE_VALUE, *value);
            put_bytes(&mut out, field::PART, &part);
        }
    }
    put_time(&mut out, field::SUMMARY_CREATED, series.created);
    out
}

/// A `google.protobuf.Timestamp`, if there is a time.
fn put_time(out: &mut Vec<u8>, field: u32, time: Option<UnixTime>) {
    let Some(since_epoch) = time.map(|time| time.since(UnixTime::default())) else {
        return;
    };
    let mut timestamp = Vec::with_capacity(16);
    put_varint_field(&mut timestamp, field::SECONDS, since_epoch.as_secs());
    put_varint_field(&mut timestamp, field::NANOS, u64::from(since_epoch.subsec_nanos()));
    put_bytes(out, field, &timestamp);
}

fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    put_varint(out, u64::from(field << 3 | 1));
    // The bits of some NaN mean something to Prometheus: "this series ended here".
    let value = if value.is_nan() { f64::NAN } else { value };
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field << 3));
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field << 3 | 2));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
