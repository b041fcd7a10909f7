//! Bad bodies: the line and the reason are named, and nothing is applied.

use proptest::prelude::*;

use super::*;

/// A bad body, the line that is named, and a part of the reason.
const BAD: &[(&str, usize, &str)] = &[
    // The text format.
    ("1a 1", 1, "\"1a\" is no metric name"),
    ("{a=\"b\"} 1", 1, "\"\" is no metric name"),
    ("é 1", 1, "is no metric name"),
    ("a.b 1", 1, "any other in braces and double quotes"),
    ("\"a.b\" 1", 1, "is no metric name"),
    ("{\"\"} 1", 1, "\"\" is no metric name"),
    ("{\"a\0\"} 1", 1, "is no metric name"),
    ("{\"a.b} 1", 1, "a name has no closing quote"),
    ("{\"a.b\"", 1, "expected a comma or closing brace after label a.b"),
    ("{\"a.b\" c=\"d\"} 1", 1, "expected a comma"),
    ("{\"a.b\",\"c.d\"} 1", 1, "label c.d has no value"),
    ("a{\"b.c\"} 1", 1, "label b.c has no value"),
    ("{\"a\\x\"} 1", 1, "\\x is no escape"),
    ("{a.b=\"c\"} 1", 1, "label a has no value"),
    ("a{\"\"=\"c\"} 1", 1, "\"\" is no label name"),
    ("a{\"b.c\"=d} 1", 1, "label b.c has no value in double quotes"),
    ("a{\"b.c\"=\"d} 1", 1, "no closing quote"),
    ("a{\"b.c\"=\"1\",b_c=\"2\"} 1", 1, "are the same once their names are escaped"),
    ("a{\"shard.id\"=\"3\"} 1", 1, "\"shard_id\" and \"shard.id\" are the same"),
    ("a{\"花火\"=\"3\"} 1", 1, "begins with __ once its name is escaped"),
    ("# TYPE a.b gauge", 1, "\"a.b\" is no metric name"),
    ("# TYPE \"a.b gauge", 1, "a name has no closing quote"),
    ("# TYPE \"a.b\" gouge", 1, "\"gouge\" is no metric type"),
    ("# HELP \"\" x", 1, "\"\" is no metric name"),
    ("ok 1\na", 2, "no value after a"),
    ("ok 1\n\n# comment\na{b=\"c\"}", 4, "no value after a"),
    ("a one", 1, "\"one\" is no value"),
    ("a 1,5", 1, "\"1,5\" is no value"),
    ("a 1 x", 1, "\"x\" is no timestamp"),
    ("a 1 1.5", 1, "\"1.5\" is no timestamp"),
    ("a 1 2 3", 1, "unexpected \"3\""),
    ("a{b=\"c\"} 1 # {x=\"y\"} 1", 1, "an exemplar; only an OpenMetrics body"),
    ("a{b-c=\"d\"} 1", 1, "label b has no value"),
    ("a{1=\"d\"} 1", 1, "is no label name"),
    ("a{,} 1", 1, "is no label name"),
    ("a{b=\"c\",,} 1", 1, "is no label name"),
    ("a{b=c} 1", 1, "label b has no value in double quotes"),
    ("a{b} 1", 1, "label b has no value in double quotes"),
    ("a{b=\"c} 1", 1, "no closing quote"),
    ("a{b=\"c\\", 1, "no closing quote"),
    ("a{b=\"c\\\"} 1", 1, "no closing quote"),
    ("a{b=\"\\x\"} 1", 1, "\\x is no escape"),
    ("a{b=\"c\" d=\"e\"} 1", 1, "expected a comma or closing brace after label b"),
    ("a{b=\"c\"", 1, "expected a comma or closing brace after label b"),
    ("# TYPE a", 1, "\"\" is no metric type"),
    ("# TYPE a count", 1, "\"count\" is no metric type"),
    ("# TYPE a counter really", 1, "is no metric type"),
    ("# TYPE", 1, "is no metric name"),
    ("# HELP 1 x", 1, "\"1\" is no metric name"),
    // What the lines make together.
    ("# HELP a x\n# HELP a y\na 1", 2, "a: a second HELP line"),
    ("# TYPE a gauge\n# TYPE a gauge\na 1", 2, "a: a second TYPE line"),
    ("a 1\n# TYPE a gauge", 2, "a: TYPE after the first sample"),
    ("a 1\na 2", 2, "already there"),
    ("a{b=\"1\",c=\"2\"} 1\na{c=\"2\",b=\"1\"} 2", 2, "already there"),
    ("a 1\na{shard_id=\"3\"} 2", 2, "already there"),
    ("a{job=\"1\"} 1\na{exported_job=\"1\"} 2", 2, "already there"),
    ("a{b=\"1\",b=\"2\"} 1", 1, "label \"b\" stands twice"),
    ("a{__name__=\"b\"} 1", 1, "label \"__name__\" is reserved"),
    ("# TYPE h histogram\nh 1", 2, "a histogram has no sample of this name"),
    ("# TYPE h histogram\nh_bucket 1", 2, "without label le"),
    ("# TYPE h histogram\nh_bucket{le=\"x\"} 1", 2, "le=\"x\" is no number"),
    ("# TYPE h histogram\nh_bucket{le=\"1\",le=\"2\"} 1", 2, "label \"le\""),
    ("# TYPE h histogram\nh_sum{le=\"1\"} 1", 2, "label \"le\" is reserved"),
    (
        "# TYPE h histogram\nh_bucket{le=\"NaN\"} 1\nh_count 1\nh_sum 1",
        2,
        "bound NaN is not finite",
    ),
    (
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 1\nh_count 1\nh_sum 1",
        2,
        "bounds must rise",
    ),
    (
        "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_count 1\nh_sum 1",
        2,
        "+Inf bucket holds 2, but _count is 1",
    ),
    ("# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1", 2, "a histogram without _count"),
    ("# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1", 2, "a histogram without _sum"),
    ("# TYPE h histogram\nh_count 1\nh_sum 1\nh_sum 1", 4, "already there"),
    (
        "# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_count 1\nh_sum 1",
        2,
        "bucket counts fall from 3 to 1",
    ),
    (
        "# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"2\"} 2\nh_count 3\nh_sum 1",
        2,
        "fall from 3 to 2",
    ),
    ("# TYPE s summary\ns 1", 2, "a summary without label quantile"),
    ("# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1", 2, "a summary without _count"),
    ("# TYPE s summary\ns{quantile=\"1.5\"} 1\ns_sum 1\ns_count 1", 2, "quantile=\"1.5\""),
    ("# TYPE s summary\ns{quantile=\"NaN\"} 1\ns_sum 1\ns_count 1", 2, "quantile=\"NaN\""),
    ("# TYPE a counter\na -1", 2, "a count is -1"),
    ("# TYPE a counter\na NaN", 2, "a count is NaN"),
    ("# TYPE a counter\na +Inf", 2, "a count is inf"),
    ("# TYPE a counter\na 5\na{b=\"c\"} -1", 3, "a{b=\"c\"}: a count is -1"),
    ("# TYPE s summary\ns_sum 1\ns_count NaN", 2, "a count is NaN"),
];

#[test]
fn bad_bodies_name_line_and_reason_and_change_nothing() {
    let registry = registry();
    post(&registry, "# TYPE kept_total counter\nkept_total 1\n").unwrap();
    let before = page(&registry, at(0));
    for &(body, line, reason) in BAD {
        // Good lines before and after must not be applied either.
        for (text, line) in [
            (body.to_owned(), line),
            (
                format!("# TYPE kept_total counter\nkept_total 9\nnew 1\n{body}\nnewer 1\n"),
                line + 3,
            ),
        ] {
            let refused = post(&registry, &text).expect_err(&text).to_string();
            assert!(refused.starts_with(&format!("line {line}: ")), "{text:?}: {refused}");
            assert!(refused.contains(reason), "{text:?}: {refused}");
            assert_eq!(page(&registry, at(0)), before, "{text:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_body_panics_and_a_refused_one_changes_nothing(body in any::<String>()) {
        check_any(&body);
    }

    /// Pieces of the format in any order reach further than random text.
    #[test]
    fn no_mangled_body_panics(pieces in prop::collection::vec(piece(), 0..40)) {
        check_any(&pieces.concat());
    }

    #[test]
    fn no_shard_id_panics(id in any::<String>(), json in "[-+0-9.eE\"\\[\\]{}a-z]{0,8}") {
        let _ = id.parse::<ShardIds>();
        let _ = serde_json::from_str::<ShardIds>(&json);
    }
}

fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "\n",
        "\n",
        "\n",
        " ",
        "\t",
        "\r",
        "# TYPE ",
        "# HELP ",
        "histogram",
        "summary",
        "counter",
        "a",
        "a_bucket",
        "a_sum",
        "a_count",
        "{",
        "}",
        "le=\"",
        "quantile=\"",
        "shard_id=\"",
        "\"",
        "\\",
        "\\n",
        ",",
        "=",
        "0.5",
        "+Inf",
        "NaN",
        "1",
        "-1",
        "1e999",
        "🦀",
        "é",
        "process_start_time_seconds 5\n",
        "a 1\n",
        "\"a.b\"",
        "{\"a.b\",\"c.d\"=\"e\"} 1\n",
        "a_bucket{le=\"1\"} 1\na_count 1\na_sum 1\n",
    ]);
    prop_oneof![9 => fixed.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

fn check_any(body: &str) {
    let registry = registry();
    post(&registry, "# TYPE kept_total counter\nkept_total 1\n").unwrap();
    let before = page(&registry, at(0));
    match post_as(&registry, "2-4", Some("test"), body, at(0)) {
        Ok(_) => assert!(!page(&registry, at(0)).is_empty()),
        Err(_) => assert_eq!(page(&registry, at(0)), before),
    }
}
