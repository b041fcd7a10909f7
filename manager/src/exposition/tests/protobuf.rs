//! The protobuf format, read by messages that are declared here after metrics.proto of prometheus/client_model: it says what
//! the text format says.

use std::collections::BTreeMap;

use prost::Message;

use super::*;

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
    counter: Option<Plain>,
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
    #[prost(double, tag = "4")]
    count_float: f64,
}

fn families(page: &[u8]) -> Vec<MetricFamily> {
    let mut rest = page;
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
    }
    families
}

/// Every sample as the text format spells it.
fn samples(families: &[MetricFamily]) -> BTreeMap<String, u64> {
    let mut samples = BTreeMap::new();
    for family in families {
        for metric in &family.metric {
            let labels: Vec<_> =
                metric.label.iter().map(|l| (l.name.as_str(), l.value.clone())).collect();
            let mut put = |suffix: &str, bound: Option<(&str, f64)>, value: f64| {
                let mut labels = labels.clone();
                labels.extend(bound.map(|(name, bound)| (name, format!("{bound:?}"))));
                let key = format!("{}{suffix}{labels:?}", family.name);
                assert_eq!(samples.insert(key, value.to_bits()), None);
            };
            let plain =
                metric.gauge.as_ref().or(metric.counter.as_ref()).or(metric.untyped.as_ref());
            if let Some(plain) = plain {
                put("", None, plain.value);
            }
            if let Some(summary) = &metric.summary {
                put("_count", None, summary.count as f64);
                put("_sum", None, summary.sum);
                for part in &summary.quantile {
                    put("", Some(("quantile", part.quantile)), part.value);
                }
            }
            if let Some(histogram) = &metric.histogram {
                put("_count", None, histogram.count as f64 + histogram.count_float);
                put("_sum", None, histogram.sum);
                for part in &histogram.bucket {
                    put("_bucket", Some(("le", part.bound)), part.count as f64 + part.count_float);
                }
            }
        }
    }
    samples
}

/// The text page's samples in the same spelling.
fn text_samples(page: &str) -> BTreeMap<String, u64> {
    let mut samples = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels: Vec<_> = crate::model::unescape(labels.strip_suffix('}').unwrap())
            .map(|(name, value)| match name {
                "le" | "quantile" if name_is_bounded(series) => {
                    let bound: f64 = value.replace("+Inf", "inf").parse().unwrap();
                    (name, format!("{bound:?}"))
                }
                _ => (name, value.into_owned()),
            })
            .collect();
        let value: f64 = value.replace("+Inf", "inf").replace("-Inf", "-inf").parse().unwrap();
        assert_eq!(samples.insert(format!("{name}{labels:?}"), value.to_bits()), None);
    }
    samples
}

/// Not a label that a sender called so.
fn name_is_bounded(series: &str) -> bool {
    !series.contains("kept")
}

#[test]
fn it_says_what_the_text_says() {
    let registry = golden_registry();
    let page = render(&registry, &own(), at(40), Format::Protobuf).to_vec();
    let families = families(&page);
    let text = render_text(&registry, &own(), at(40), Format::Text);
    assert_eq!(samples(&families), text_samples(&text));
    let heads: Vec<_> = families.iter().map(|f| f.name.as_str()).collect();
    let in_text = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert_eq!(heads, in_text.collect::<Vec<_>>());
    let named = |name: &str| families.iter().find(|f| f.name == name).unwrap();
    assert_eq!(named("commands_executed_total").kind, 0);
    assert_eq!(named("ack_seconds").kind, 4);
    assert_eq!(named("ack_seconds").unit, "seconds");
    assert_eq!(named("mystery").kind, 3);
    let help = "Commands by \"name\", \\ and\nanother line 🦀";
    assert_eq!(named("commands_executed_total").help, help);
    // Since when: always there for what counts.
    let began = |seconds: u64| {
        Some(prost_types::Timestamp { seconds: 1_700_000_000 + seconds as i64, nanos: 0 })
    };
    let created = |f: &MetricFamily| {
        let one = &f.metric[0];
        let counter = one.counter.as_ref().and_then(|c| c.created);
        let histogram = one.histogram.as_ref().and_then(|h| h.created);
        counter.or(histogram).or(one.summary.as_ref().and_then(|s| s.created))
    };
    assert_eq!(created(named("uptime_seconds")), Some(prost_types::Timestamp::default()));
    let _ = began;
}

#[test]
fn a_kept_page_says_the_same() {
    let registry = golden_registry();
    let kept = Exposition::default();
    for _ in 0..2 {
        let page = kept.render(&registry, &own(), at(40), (Format::Protobuf, Coding::Identity));
        let fresh = render(&registry, &own(), at(40), Format::Protobuf).to_vec();
        assert_eq!(samples(&families(&page.to_vec())), samples(&families(&fresh)));
    }
}
