//! Collectors of the bot's own may export anything.

use super::*;
use prometheus::core::{Collector, Desc};
use prometheus::proto;

/// Exports one family as it is.
struct Odd(Desc, proto::MetricFamily);

impl Collector for Odd {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        vec![self.1.clone()]
    }
}

impl Odd {
    fn register(
        registry: &Registry,
        name: &str,
        kind: proto::MetricType,
        metrics: Vec<proto::Metric>,
    ) {
        let unique = format!("odd_{}", registry.gather().len());
        let desc =
            Desc::new(unique, "Odd".to_owned(), Vec::new(), std::collections::HashMap::new());
        let mut family = proto::MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        registry.register(Box::new(Self(desc.unwrap(), family))).unwrap();
    }
}

fn metric(labels: &[(&str, &str)]) -> proto::Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    proto::Metric::from_label(labels.iter().map(pair).collect())
}

fn histogram(buckets: &[(f64, u64)], sum: f64) -> proto::Metric {
    let mut histogram = proto::Histogram::default();
    let bucket = |(bound, count): &(f64, u64)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    };
    histogram.set_bucket(buckets.iter().map(bucket).collect());
    histogram.set_sample_count(buckets.last().map_or(0, |bucket| bucket.1));
    histogram.set_sample_sum(sum);
    let mut metric = proto::Metric::default();
    metric.set_histogram(histogram);
    metric
}

fn summary(quantiles: &[(f64, f64)], count: u64, sum: f64) -> proto::Metric {
    let mut summary = proto::Summary::default();
    let quantile = |(quantile, value): &(f64, f64)| {
        let mut quantile_of = proto::Quantile::default();
        quantile_of.set_quantile(*quantile);
        quantile_of.set_value(*value);
        quantile_of
    };
    summary.set_quantile(quantiles.iter().map(quantile).collect());
    summary.set_sample_count(count);
    summary.set_sample_sum(sum);
    let mut metric = proto::Metric::default();
    metric.set_summary(summary);
    metric
}

#[test]
fn what_the_wire_refuses_stays_out_and_the_rest_goes() {
    use proto::MetricType::{COUNTER, GAUGE, HISTOGRAM, SUMMARY, UNTYPED};
    let registry = Registry::new();
    Odd::register(&registry, "bad name", GAUGE, vec![metric(&[])]);
    Odd::register(&registry, "untyped", UNTYPED, vec![metric(&[])]);
    Odd::register(
        &registry,
        "labels",
        GAUGE,
        vec![
            metric(&[("a", "1"), ("a", "2")]),
            metric(&[("0", "1")]),
            metric(&[("__name__", "x")]),
            metric(&[("empty", ""), ("k", "fine")]),
        ],
    );
    let mut reserved = histogram(&[(1.0, 1)], 1.0);
    reserved.set_label(metric(&[("le", "1")]).take_label());
    Odd::register(&registry, "reserved", HISTOGRAM, vec![reserved]);
    Odd::register(&registry, "falling", HISTOGRAM, vec![histogram(&[(2.0, 1), (1.0, 1)], 1.0)]);
    Odd::register(
        &registry,
        "infinite",
        HISTOGRAM,
        vec![histogram(&[(1.0, 2), (f64::INFINITY, 5)], 9.0)],
    );
    Odd::register(&registry, "quantile", SUMMARY, vec![summary(&[(1.5, 1.0)], 1, 1.0)]);
    Odd::register(&registry, "le", COUNTER, vec![metric(&[("le", "allowed")])]);
    let mut pair = Pair::new();
    pair.registry = registry;
    pair.open(None);
    pair.report();
    let names: Vec<&str> = pair.receiver.series.keys().map(|key| key.0.as_str()).collect();
    assert_eq!(names, ["infinite", "labels", "le"]);
    assert_eq!(pair.known("labels", "fine").values, [0.0]);
    assert_eq!(pair.known("infinite", "").bounds, [1.0]);
    assert_eq!(pair.known("infinite", "").values, [2.0, 5.0, 9.0]);
}

fn report_odd(pair: &mut Pair, kind: proto::MetricType, metric: proto::Metric) -> Vec<f64> {
    pair.registry = Registry::new();
    Odd::register(&pair.registry, "odd", kind, vec![metric]);
    pair.report();
    pair.known("odd", "").values.clone()
}

#[test]
fn buckets_that_change_count_at_the_bounds_that_were_first() {
    use proto::MetricType::HISTOGRAM;
    let mut pair = Pair::new();
    pair.open(None);
    let first = histogram(&[(1.0, 1), (5.0, 3)], 9.0);
    assert_eq!(report_odd(&mut pair, HISTOGRAM, first), [1.0, 3.0, 3.0, 9.0]);
    let rebuilt = histogram(&[(2.0, 1), (4.0, 2), (8.0, 2)], 5.0);
    assert_eq!(report_odd(&mut pair, HISTOGRAM, rebuilt), [1.0, 5.0, 5.0, 14.0]);
}

#[test]
fn a_summary_counts_on_and_its_quantiles_are_current() {
    use proto::MetricType::SUMMARY;
    let mut pair = Pair::new();
    pair.open(None);
    let first = summary(&[(0.5, 10.0), (0.9, 20.0)], 7, 70.0);
    assert_eq!(report_odd(&mut pair, SUMMARY, first), [10.0, 20.0, 7.0, 70.0]);
    let reset = summary(&[(0.5, 1.0), (0.9, 2.0)], 2, 3.0);
    assert_eq!(report_odd(&mut pair, SUMMARY, reset), [1.0, 2.0, 9.0, 73.0]);
    let other = report_odd(&mut pair, SUMMARY, summary(&[(0.9, 4.0)], 3, 7.0));
    assert!(other[0].is_nan());
    assert_eq!(other[1..], [4.0, 10.0, 77.0]);
}
