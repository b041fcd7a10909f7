//! The protobuf format, read by messages that are declared here after metrics.proto of prometheus/client_model: it says what
//! the text format says.

use prost::Message;

use super::{
    page::{self, Family, Pairs, Sample},
    *,
};

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Plain>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    untyped: Option<Plain>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Plain {
    #[prost(double, tag = "1")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<Exemplar>,
    #[prost(message, optional, tag = "3")]
    created: Option<prost_types::Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<Quantile>,
    #[prost(message, optional, tag = "4")]
    created: Option<prost_types::Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Quantile {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(double, tag = "4")]
    count_float: f64,
    #[prost(message, optional, tag = "15")]
    created: Option<prost_types::Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    bound: f64,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<Exemplar>,
    #[prost(double, tag = "4")]
    count_float: f64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<prost_types::Timestamp>,
}

fn families(page: &[u8]) -> Vec<MetricFamily> {
    let mut rest = page;
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
    }
    families
}

/// The page as a text page would say it.
pub(super) fn read(page: &[u8]) -> Vec<Family> {
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
fn exemplars(name: &str, metric: &Metric) -> Vec<page::Exemplar> {
    let of = pairs(&metric.label);
    let read = |suffix: &str, of: Pairs, exemplar: &Exemplar| {
        let value = Sample::new(String::new(), Vec::new(), exemplar.value);
        let at = exemplar.timestamp.unwrap();
        page::Exemplar {
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

fn samples(name: &str, metric: &Metric) -> Vec<Sample> {
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
            let count = part.count as f64 + part.count_float;
            put("_bucket", Some(("le", part.bound)), count);
        }
        put("_sum", None, histogram.sum);
        put("_count", None, histogram.count as f64 + histogram.count_float);
    }
    samples
}

/// A bound as the text formats have it.
fn spell(bound: f64) -> String {
    if bound == f64::INFINITY {
        return "+Inf".to_owned();
    }
    Bounds::new(&[bound]).unwrap().spellings().next().unwrap().to_owned()
}

#[test]
fn it_has_the_exemplars_that_openmetrics_has() {
    let registry = golden_registry();
    for escaping in Escaping::ALL {
        let [protobuf, text] = [Syntax::Protobuf, Syntax::OpenMetrics].map(|syntax| {
            let format = Format::new(syntax, escaping);
            let families = page::read(format, &render(&registry, &own(), at(40), format).to_vec());
            // OpenMetrics has none of a counter that it does not call one.
            let exemplars = families.into_iter().flat_map(|family| family.exemplars);
            let exemplars =
                exemplars.filter(|e| e.name.ends_with("_total") || e.name.ends_with("_bucket"));
            exemplars.collect::<Vec<_>>()
        });
        assert!(!text.is_empty());
        assert_eq!(protobuf, text);
    }
}

#[test]
fn it_says_what_the_text_says() {
    let registry = golden_registry();
    for escaping in Escaping::ALL {
        let [protobuf, text] = [Syntax::Protobuf, Syntax::Text].map(|syntax| {
            let format = Format::new(syntax, escaping);
            page::read(format, &render(&registry, &own(), at(40), format).to_vec())
        });
        assert_eq!(protobuf.len(), text.len());
        for (protobuf, text) in protobuf.iter().zip(&text) {
            assert_eq!((&protobuf.name, &protobuf.kind), (&text.name, &text.kind));
            assert_eq!(protobuf.samples, text.samples);
        }
    }
}

/// The page's messages, a line each.
pub(super) fn debug(page: &[u8]) -> String {
    let mut lines = Vec::new();
    for MetricFamily { name, help, kind, metric, unit } in families(page) {
        lines.push(format!("{name:?} type {kind} unit {unit:?} help {help:?}\n"));
        lines.extend(metric.iter().map(|metric| format!("  {metric:?}\n")));
    }
    lines.concat()
}

#[test]
fn heads_and_times_are_there() {
    let registry = golden_registry();
    let page = render(&registry, &own(), at(40), Format::PROTOBUF).to_vec();
    let families = families(&page);
    let named = |name: &str| families.iter().find(|f| f.name == name).unwrap();
    assert_eq!(named("commands_executed_total").kind, 0);
    assert_eq!(named("ack_seconds").kind, 4);
    assert_eq!(named("ack_seconds").unit, "seconds");
    assert_eq!(named("mystery").kind, 3);
    let help = "Commands by \"name\", \\ and\nanother line 🦀";
    assert_eq!(named("commands_executed_total").help, help);
    // Since when: always there for what counts.
    let created = |name: &str| {
        let one = &named(name).metric[0];
        let counter = one.counter.as_ref().and_then(|c| c.created);
        let histogram = one.histogram.as_ref().and_then(|h| h.created);
        counter.or(histogram).or(one.summary.as_ref().and_then(|s| s.created))
    };
    let began = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 };
    for name in ["commands_executed_total", "gc_duration_seconds", "ack_seconds"] {
        assert_eq!(created(name), Some(began), "{name}");
    }
}
