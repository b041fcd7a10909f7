//! How streams begin, and what they define.

use super::*;

/// A definition of one series of a gauge, as id 2.
fn bad_series(what: &'static str, labels: Labels<'_>, message: &'static str) -> Row {
    bad(what, define(vec![family("a", MetricType::Gauge, vec![series(2, labels, &[])])]), message)
}

#[tokio::test]
async fn streams_that_begin_badly() {
    let hello =
        |what, hello: v1::Hello, message| row(what, vec![], Said::Hello(hello), invalid(message));
    let first = |what, said| row(what, vec![], said, invalid("the first message must be Hello"));
    check(vec![
        first("a definition before Hello", define(vec![])),
        first("a snapshot before Hello", snapshot(1, &[])),
        first("a delta before Hello", delta(1, &[])),
        first("a goodbye before Hello", Said::Goodbye(v1::Goodbye { sequence: 1 })),
        Row {
            what: "an empty message",
            before: vec![],
            said: None,
            expected: invalid("a ReportRequest without a message"),
        },
        Row {
            what: "an empty message later",
            before: begun(),
            said: None,
            expected: invalid("a ReportRequest without a message"),
        },
        bad("a second Hello", Said::Hello(row_hello()), "a second Hello"),
        hello("no instance", v1::Hello { instance_id: vec![], ..row_hello() }, "0 bytes, not 16"),
        hello(
            "half an instance",
            v1::Hello { instance_id: vec![1; 8], ..row_hello() },
            "8 bytes, not 16",
        ),
        hello(
            "an instance of a megabyte",
            v1::Hello { instance_id: vec![1; 1 << 20], ..row_hello() },
            "1048576 bytes, not 16",
        ),
        hello(
            "a shard too high",
            v1::Hello { shard_id: 2, ..row_hello() },
            "shard_id 2 is not below shard_count 2",
        ),
        hello(
            "a bot without shards",
            v1::Hello { shard_count: 0, ..row_hello() },
            "is not below shard_count 0",
        ),
        hello(
            "four billion shards",
            v1::Hello { shard_count: u32::MAX, ..row_hello() },
            "shard_count 4294967295 is over 65536",
        ),
        hello(
            "a client with a long name",
            v1::Hello { client_name: "x".repeat(1 << 20), ..row_hello() },
            "have over 128 bytes",
        ),
    ])
    .await;
}

#[tokio::test]
async fn definitions_that_make_no_sense() {
    let of = |kind, labels: Labels<'_>, bounds: &[f64]| {
        define(vec![family("a", kind, vec![series(2, labels, bounds)])])
    };
    let named =
        |name: &str| define(vec![family(name, MetricType::Gauge, vec![series(2, &[], &[])])]);
    let kind = |number| {
        let definition = family("a", MetricType::Gauge, vec![series(2, &[], &[])]);
        define(vec![v1::FamilyDefinition { r#type: number, ..definition }])
    };
    let ids = |ids: &[u32]| {
        let labels: Vec<String> = ids.iter().enumerate().map(|(at, _)| at.to_string()).collect();
        let all = ids.iter().zip(&labels).map(|(id, label)| series(*id, &[("n", label)], &[]));
        define(vec![family("a", MetricType::Gauge, all.collect())])
    };
    check(vec![
        bad("no type", kind(0), "no metric type has number 0"),
        bad("a type that is none", kind(99), "no metric type has number 99"),
        bad("a negative type", kind(-1), "no metric type has number -1"),
        bad("no name", named(""), "the name is empty or has a NUL"),
        bad("a NUL in the name", named("a\0b"), "the name is empty or has a NUL"),
        bad("an id that leaves a hole", ids(&[3]), "series id 3 where 2 is next"),
        bad("an id once more", ids(&[1]), "series id 1 where 2 is next"),
        bad("an id twice", ids(&[2, 2]), "series id 2 where 3 is next"),
        bad("the highest id", ids(&[u32::MAX]), "series id 4294967295 where 2 is next"),
        bad("a bad one behind a good one", ids(&[2, 3, 5]), "series id 5 where 4 is next"),
        bad_series("no label name", &[("", "x")], "label name: it is empty or has a NUL"),
        bad_series(
            "a NUL in a label name",
            &[("b\0", "x")],
            "label name: it is empty or has a NUL",
        ),
        bad_series("__name__", &[("__name__", "x")], "label \"__name__\" is reserved here"),
        bad_series(
            "a label twice",
            &[("b", "x"), ("b", "y")],
            "label \"b\" stands twice in one set",
        ),
        bad_series(
            "labels alike once escaped",
            &[("b.c", "x"), ("b_c", "y")],
            "are the same once their names are escaped",
        ),
        bad_series(
            "like shard_id once escaped",
            &[("shard.id", "x")],
            "are the same once their names are escaped",
        ),
        bad_series(
            "dropped once escaped",
            &[("_.b", "x")],
            "begins with __ once its name is escaped",
        ),
        bad(
            "le on a histogram",
            of(MetricType::Histogram, &[("le", "1")], &[1.0]),
            "label \"le\" is reserved here",
        ),
        bad(
            "quantile on a summary",
            of(MetricType::Summary, &[("quantile", "1")], &[0.5]),
            "label \"quantile\" is reserved here",
        ),
        bad("bounds of a counter", of(MetricType::Counter, &[], &[1.0]), "a counter has no bounds"),
        bad("bounds that fall", of(MetricType::Histogram, &[], &[2.0, 1.0]), "bounds must rise"),
        bad("a bound twice", of(MetricType::Histogram, &[], &[1.0, 1.0]), "bounds must rise"),
        bad(
            "a bound that is NaN",
            of(MetricType::Histogram, &[], &[f64::NAN]),
            "bound NaN is not finite",
        ),
        bad(
            "+Inf as a bound",
            of(MetricType::Histogram, &[], &[f64::INFINITY]),
            "bound inf is not finite",
        ),
        bad(
            "a quantile above 1",
            of(MetricType::Summary, &[], &[1.5]),
            "quantiles are within 0 and 1",
        ),
        bad(
            "a quantile below 0",
            of(MetricType::Summary, &[], &[-0.5]),
            "quantiles are within 0 and 1",
        ),
        row(
            "a message over 4 MiB",
            begun(),
            named(&"x".repeat(5 << 20)),
            refused(Code::ResourceExhausted, "message length"),
        ),
    ])
    .await;
}
