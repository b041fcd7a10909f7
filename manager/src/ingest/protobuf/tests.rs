//! Messages, good and bad.

use prost::Message;

use super::{
    messages::{Bucket, Exemplar, Head, Histogram, Label, Metric, Number, Quantile, Summary, Type},
    *,
};
use crate::{
    clock::UnixTime,
    exposition::{self, Format, Syntax},
    ingest::{self, Group, Identity, Post, Taken},
    model::Escaping,
    registry::{Registry, Scope, Settings},
};

fn post(registry: &Registry, identity: Identity<'_>, body: &[u8]) -> Result<Taken, String> {
    let shards = "3".parse().unwrap();
    let post = Post { shards, identity, sequence: None, interval: None };
    let taken = ingest::ingest_protobuf(registry, &post, body, UnixTime::from_secs_f64(1.7e9));
    taken.map_err(|error| error.to_string())
}

fn samples(registry: &Registry, syntax: Syntax) -> Vec<String> {
    let format = exposition::Format::new(syntax, Escaping::AllowUtf8);
    let page = exposition::render(registry, &[], UnixTime::from_secs_f64(1.7e9), format);
    let page = String::from_utf8(page.to_vec()).unwrap();
    let of_shards = |line: &&str| !line.starts_with("# ") && !line.starts_with("shard_");
    page.lines().filter(of_shards).map(str::to_owned).collect()
}

/// The lines that a body becomes.
fn lines(body: &[u8]) -> Vec<String> {
    let registry = Registry::new(Settings::default(), []);
    post(&registry, Identity::Named("x"), body).unwrap();
    samples(&registry, Syntax::Text)
}

/// Why a body is refused, which changes nothing.
fn refused(body: &[u8]) -> String {
    let registry = Registry::new(Settings::default(), []);
    let before = family("a", Type::Counter, &[counter(&[], 5.0)]);
    post(&registry, Identity::Named("x"), &before).unwrap();
    let reason = post(&registry, Identity::Named("x"), body).unwrap_err();
    assert_eq!(samples(&registry, Syntax::Text), ["a{shard_id=\"3\"} 5"], "{reason}");
    reason
}

fn family(name: &str, kind: Type, metrics: &[Metric]) -> Vec<u8> {
    let head = Head { name: name.into(), help: "h".into(), kind: kind.into(), unit: String::new() };
    let mut message = head.encode_to_vec();
    for metric in metrics {
        message.push(4 << 3 | 2);
        metric.encode_length_delimited(&mut message).unwrap();
    }
    delimit(&message)
}

fn delimit(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encode_length_delimiter(message.len(), &mut out).unwrap();
    out.extend_from_slice(message);
    out
}

fn labels(pairs: &[(&str, &str)]) -> Vec<Label> {
    let label =
        |(name, value): &(&str, &str)| Label { name: (*name).into(), value: (*value).into() };
    pairs.iter().map(label).collect()
}

fn number(value: f64) -> Option<Number> {
    Some(Number { value, exemplar: None })
}

fn counter(pairs: &[(&str, &str)], value: f64) -> Metric {
    Metric { label: labels(pairs), counter: number(value), ..Metric::default() }
}

fn gauge(pairs: &[(&str, &str)], value: f64) -> Metric {
    Metric { label: labels(pairs), gauge: number(value), ..Metric::default() }
}

fn histogram(buckets: &[(f64, u64)], count: u64, sum: f64) -> Metric {
    let bucket =
        |(bound, count): &(f64, u64)| Bucket { bound: *bound, count: *count, ..Bucket::default() };
    let bucket = buckets.iter().map(bucket).collect();
    let histogram = Some(Histogram { count, sum, bucket, ..Histogram::default() });
    Metric { histogram, ..Metric::default() }
}

#[test]
fn every_type_is_taken() {
    let quantile = vec![Quantile { quantile: 0.5, value: 7.0 }];
    let summary = Some(Summary { count: 4, sum: 9.5, quantile });
    let body = [
        family("c_total", Type::Counter, &[counter(&[("x", "ü\"")], 3.0), counter(&[], 0.0)]),
        family("g.dotted", Type::Gauge, &[gauge(&[("job", "j"), ("shard_id", "3")], -1.5)]),
        family("u", Type::Untyped, &[Metric { untyped: number(f64::NAN), ..Metric::default() }]),
        family("s", Type::Summary, &[Metric { summary, ..Metric::default() }]),
        family("h", Type::Histogram, &[histogram(&[(1.0, 2), (2.5, 3)], 4, 6.0)]),
        family("i", Type::Histogram, &[histogram(&[(1.0, 2), (f64::INFINITY, 4)], 4, 6.0)]),
        family("n", Type::Histogram, &[histogram(&[], 4, 6.0)]),
        family("q", Type::GaugeHistogram, &[histogram(&[(1.0, 2), (f64::INFINITY, 4)], 4, 6.0)]),
        family("nothing", Type::Gauge, &[]),
    ];
    let lines = lines(&body.concat());
    let mut expected: Vec<_> = [
        "c_total{shard_id=\"3\",x=\"ü\\\"\"} 3",
        "c_total{shard_id=\"3\"} 0",
        "{\"g.dotted\",shard_id=\"3\",exported_job=\"j\"} -1.5",
        "u{shard_id=\"3\"} NaN",
        "s{shard_id=\"3\",quantile=\"0.5\"} 7",
        "s_sum{shard_id=\"3\"} 9.5",
        "s_count{shard_id=\"3\"} 4",
        "h_bucket{shard_id=\"3\",le=\"1.0\"} 2",
        "h_bucket{shard_id=\"3\",le=\"2.5\"} 3",
        "h_bucket{shard_id=\"3\",le=\"+Inf\"} 4",
        "h_sum{shard_id=\"3\"} 6",
        "h_count{shard_id=\"3\"} 4",
        "i_bucket{shard_id=\"3\",le=\"1.0\"} 2",
        "i_bucket{shard_id=\"3\",le=\"+Inf\"} 4",
        "i_sum{shard_id=\"3\"} 6",
        "i_count{shard_id=\"3\"} 4",
        "n_bucket{shard_id=\"3\",le=\"+Inf\"} 4",
        "n_sum{shard_id=\"3\"} 6",
        "n_count{shard_id=\"3\"} 4",
        "q_bucket{shard_id=\"3\",le=\"1.0\"} 2",
        "q_bucket{shard_id=\"3\",le=\"+Inf\"} 4",
        "q_gsum{shard_id=\"3\"} 6",
        "q_gcount{shard_id=\"3\"} 4",
    ]
    .map(str::to_owned)
    .into();
    let mut found = lines;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn fractions_of_counts_are_taken() {
    let bucket = Bucket { bound: 1.0, count_float: 0.5, ..Bucket::default() };
    let histogram =
        Histogram { count_float: 1.5, sum: 1.0, bucket: vec![bucket], ..Histogram::default() };
    let metric = Metric { histogram: Some(histogram), ..Metric::default() };
    let lines = lines(&family("h", Type::Histogram, &[metric]));
    assert!(lines.contains(&"h_bucket{shard_id=\"3\",le=\"1.0\"} 0.5".to_owned()), "{lines:?}");
    assert!(lines.contains(&"h_count{shard_id=\"3\"} 1.5".to_owned()), "{lines:?}");
}

#[test]
fn exemplars_are_taken() {
    let timestamp = Some(prost_types::Timestamp { seconds: 1_690_000_000, nanos: 500_000_000 });
    let exemplar = Some(Exemplar { label: labels(&[("trace_id", "t")]), value: 0.7, timestamp });
    let with = |mut metric: Metric| {
        if let Some(counter) = &mut metric.counter {
            counter.exemplar.clone_from(&exemplar);
        }
        if let Some(histogram) = &mut metric.histogram {
            histogram.bucket[0].exemplar.clone_from(&exemplar);
        }
        metric
    };
    let body = [
        family("c_total", Type::Counter, &[with(counter(&[], 3.0))]),
        family("h", Type::Histogram, &[with(histogram(&[(1.0, 2)], 4, 6.0))]),
    ];
    let registry = Registry::new(Settings::default(), []);
    let taken = post(&registry, Identity::Named("x"), &body.concat()).unwrap();
    assert_eq!(taken.rejected, []);
    let lines = samples(&registry, Syntax::OpenMetrics);
    let example = " # {trace_id=\"t\"} 0.7 1690000000.5";
    for line in ["c_total{shard_id=\"3\"} 3.0", "h_bucket{shard_id=\"3\",le=\"1.0\"} 2.0"] {
        let number = line.replace(".0 ", " ").trim_end_matches(".0").to_owned();
        let found = lines
            .iter()
            .any(|l| *l == format!("{line}{example}") || *l == format!("{number}{example}"));
        assert!(found, "{line}: {lines:#?}");
    }
}

#[test]
fn a_groups_labels_take_the_place_of_a_bodys() {
    let registry = Registry::new(Settings::default(), []);
    let of = [("job", "j"), ("a", "1"), ("e", "")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let group = Group::new(of.into()).unwrap();
    let identity = Identity::Group { group: &group, scope: Scope::Everything };
    let own = [("a", "2"), ("b", "3"), ("e", "4"), ("job", "k")];
    post(&registry, identity, &family("g", Type::Gauge, &[gauge(&own, 1.0)])).unwrap();
    let expected = ["g{shard_id=\"3\",a=\"1\",b=\"3\",exported_job=\"j\"} 1"];
    assert_eq!(samples(&registry, Syntax::Text), expected);
}

#[test]
fn lengths_that_lie_are_refused_with_their_place() {
    let good = family("a", Type::Counter, &[counter(&[], 9.0)]);
    let place = format!("message 2, at byte {}: ", good.len());
    let with = |more: &[u8]| refused(&[&good, more].concat());
    for end in 1..good.len() {
        let reason = with(&family("b", Type::Counter, &[counter(&[], 9.0)])[..end]);
        assert!(reason.starts_with(&place) && reason.ends_with("was the body cut?"), "{reason}");
    }
    for length in [&[0x80][..], &[0xff; 10], &[0xff; 30]] {
        assert_eq!(with(length), format!("{place}its length cannot be read"));
    }
    let huge = with(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1]);
    assert_eq!(
        huge,
        format!("{place}it says it has 4294967295 bytes, but 1 are left; was the body cut?")
    );
    // Inside of a message.
    let name = [1 << 3 | 2, 1, b'b'];
    for lie in [
        &[4 << 3 | 2, 5, 0][..],
        &[4 << 3 | 2],
        &[4 << 3 | 2, 0x80],
        &[9 << 3, 0x80],
        &[9 << 3 | 1, 0],
        &[9 << 3 | 5, 0],
        &[9 << 3 | 3],
        &[9 << 3 | 7],
        &[4 << 3 | 2, 2, 1 << 3 | 2, 9],
        &[1 << 3 | 2, 1, 0xff],
        &[4 << 3, 1],
    ] {
        let reason = with(&delimit(&[&name, lie].concat()));
        assert!(reason.starts_with(&place) && reason.contains("MetricFamily"), "{lie:?}: {reason}");
    }
    // Text.
    let reason = refused(b"# TYPE a counter\na 9\n");
    assert!(reason.starts_with("message 1, at byte 0: "), "{reason}");
}

#[test]
fn what_makes_no_metrics_is_refused() {
    let one = counter(&[], 1.0);
    let bad = |name: &str, kind, metrics: &[Metric]| refused(&family(name, kind, metrics));
    let twice = family("b", Type::Counter, std::slice::from_ref(&one)).repeat(2);
    let long = counter(&[("a", &"x".repeat(MAX_METRIC))], 1.0);
    let summary = Some(Summary {
        quantile: vec![Quantile { quantile: 1.5, value: 1.0 }],
        ..Summary::default()
    });
    let mut kind = Head { name: "b".into(), ..Head::default() };
    kind.kind = 9;
    for (reason, expected) in [
        (refused(&[0]), "message 1, at byte 0: \"\" is no metric name"),
        (bad("b\0", Type::Gauge, &[]), "\"b\\0\" is no metric name"),
        (refused(&delimit(&kind.encode_to_vec())), "b is of type 9, which is none"),
        (refused(&twice), "message 2: b: the family is already there"),
        (bad("b", Type::Gauge, std::slice::from_ref(&one)), "b: a gauge without its value"),
        (bad("b", Type::Histogram, std::slice::from_ref(&one)), "a histogram without its value"),
        (bad("b", Type::Counter, &[one.clone(), one]), "b: this sample is already there"),
        (bad("b", Type::Counter, &[counter(&[], -1.0)]), "message 1: b{}: a count is -1"),
        (bad("b", Type::Counter, &[counter(&[("__x", "1")], 1.0)]), "\"__x\" is reserved"),
        (bad("b", Type::Counter, &[counter(&[("", "1")], 1.0)]), "\"\" is no label name"),
        (
            bad("b", Type::Counter, &[counter(&[("shard_id", "3")], 1.0), counter(&[], 1.0)]),
            "already there",
        ),
        (bad("b", Type::Counter, &[long]), "1048576 is the limit"),
        (
            bad("b", Type::Summary, &[Metric { summary, ..Metric::default() }]),
            "quantile=\"1.5\" is no number from 0 to 1",
        ),
        (
            bad("b", Type::Histogram, &[histogram(&[(2.0, 1), (2.0, 1)], 1, 1.0)]),
            "bounds must rise",
        ),
        (bad("b", Type::Histogram, &[histogram(&[(f64::NAN, 1)], 1, 1.0)]), "not finite"),
        (bad("b", Type::Histogram, &[histogram(&[(1.0, 5)], 1, 1.0)]), "message 1: b{}: "),
        (bad("b", Type::Histogram, &[histogram(&[(f64::INFINITY, 5)], 1, 1.0)]), "+Inf bucket"),
        (bad("b", Type::GaugeHistogram, &[histogram(&[(f64::NAN, 5)], 1, 1.0)]), "not finite"),
    ] {
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
}

/// What the manager itself exposes.
#[test]
fn a_page_is_a_body() {
    let registry = Registry::new(Settings::default(), []);
    let text = "# TYPE a_total counter\na_total{x=\"1\"} 3\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\n\
                h_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1\n\
                s_count 1\n# TYPE g gauge\ng -0.5\nu 1\n";
    let own = Post {
        shards: "3".parse().unwrap(),
        identity: Identity::Named("x"),
        sequence: None,
        interval: None,
    };
    let now = UnixTime::from_secs_f64(1.7e9);
    ingest::ingest(&registry, &own, text.into(), now).unwrap();
    let page =
        exposition::render(&registry, &[], now, Format::new(Syntax::Protobuf, Escaping::AllowUtf8));
    let other = Registry::new(Settings::default(), []);
    post(&other, Identity::Named("x"), &page.to_vec()).unwrap();
    let (mut before, mut after) = (samples(&registry, Syntax::Text), samples(&other, Syntax::Text));
    before.sort();
    after.sort();
    assert_eq!(after, before);
}
