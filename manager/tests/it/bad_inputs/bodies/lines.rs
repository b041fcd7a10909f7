//! Text that is malformed: nothing of it is taken.

use super::*;

#[tokio::test]
async fn lines_that_are_none() {
    check(vec![
        bad("no value", "a", "metrics: line 1: no value after a"),
        bad("a word as a value", "b 1\na one", "metrics: line 2: \"one\" is no value"),
        bad("underscores in a number", "a 1_0", "metrics: line 1: \"1_0\" is no value"),
        bad("hexadecimal", "a 0x10", "metrics: line 1: \"0x10\" is no value"),
        bad("a comma in a number", "a 1,5", "metrics: line 1: \"1,5\" is no value"),
        bad("digits of another script", "a \u{661}", "is no value"),
        bad("an exponent without digits", "a 1e", "metrics: line 1: \"1e\" is no value"),
        bad(
            "a fraction as a timestamp",
            "a 1 1.5",
            "metrics: line 1: \"1.5\" is no timestamp (milliseconds since 1970)",
        ),
        bad("a timestamp beyond 64 bits", "a 1 99999999999999999999", "is no timestamp"),
        bad(
            "more behind the timestamp",
            "a 1 2 3",
            "metrics: line 1: unexpected \"3\" after the sample",
        ),
        bad(
            "an exemplar in text",
            "# TYPE a_total counter\na_total 1 # {} 1",
            "only an OpenMetrics body can have some",
        ),
        bad("a name that begins with a digit", "1a 1", "metrics: line 1: \"1a\" is no metric name"),
        bad("a name with a dash", "a-b 1", "\"a-b\" is no metric name"),
        bad("a name beyond ASCII without quotes", "é 1", "\"é\" is no metric name"),
        bad("a byte order mark", "\u{feff}a 1", "\"\\u{feff}a\" is no metric name"),
        bad("braces without a name", "{} 1", "metrics: line 1: \"\" is no metric name"),
        bad("an empty name in quotes", "{\"\"} 1", "\"\" is no metric name"),
        bad("a NUL in a name", "{\"a\0\"} 1", "\"a\\0\" is no metric name"),
        bad(
            "a name without its closing quote",
            "{\"a} 1",
            "metrics: line 1: a name has no closing quote",
        ),
        bad("two names", "a{\"b\"} 1", "label b has no value in double quotes"),
        bad(
            "a label that begins with a digit",
            "a{1=\"x\"} 1",
            "\"1=\\\"x\\\"} 1\" is no label name",
        ),
        bad("a label with a dash", "a{b-c=\"x\"} 1", "label b has no value in double quotes"),
        bad("a lone comma", "a{,} 1", "\",} 1\" is no label name"),
        bad(
            "a NUL in a label's name",
            "a{\"b\0\"=\"x\"} 1",
            "label name: it is empty or has a NUL",
        ),
        bad("a label without a value", "a{b} 1", "label b has no value in double quotes"),
        bad("a value without quotes", "a{b=x} 1", "label b has no value in double quotes"),
        bad("a value that never ends", "a{b=\"x} 1\n", "the value of label b has no closing quote"),
        bad(
            "a body cut in a value",
            "b 1\na{b=\"",
            "metrics: line 2: the value of label b has no closing quote",
        ),
        bad("a body cut in braces", "a{b=\"x\"", "expected a comma or closing brace after label b"),
        bad(
            "no comma between labels",
            "a{b=\"x\" c=\"y\"} 1",
            "expected a comma or closing brace after label b",
        ),
        bad("an escape that is none", "a{b=\"\\q\"} 1", "metrics: line 1: \\q is no escape"),
        bad(
            "a type that is none",
            "# TYPE a count\na 1",
            "metrics: line 1: \"count\" is no metric type",
        ),
        bad("HTML", "<html><body>502 Bad Gateway</body></html>", "is no metric name"),
        bad("a carriage return within a line", "a 1\rb 2\n", "is no value"),
    ])
    .await;
}

#[tokio::test]
async fn lines_that_make_no_metric() {
    check(vec![
        bad(
            "the same sample twice",
            "a 1\na 2",
            "metrics: line 2: a: this sample is already there; its series begins at line 1",
        ),
        bad(
            "twice in another order of labels",
            "a{b=\"1\",c=\"2\"} 1\na{c=\"2\",b=\"1\"} 1",
            "already there",
        ),
        bad("twice, once with an empty label", "a 1\na{b=\"\"} 1", "already there"),
        bad("twice once shard_id is added", "a 1\na{shard_id=\"3\"} 1", "already there"),
        bad(
            "a label twice",
            "a{b=\"1\",b=\"2\"} 1",
            "metrics: line 1: a: label \"b\" stands twice in one set",
        ),
        bad("__name__ as a label", "a{__name__=\"b\"} 1", "label \"__name__\" is reserved here"),
        bad("a label that Prometheus drops", "a{__x=\"b\"} 1", "label \"__x\" is reserved here"),
        bad(
            "one that it drops once escaped",
            "a{\"_.x\"=\"b\"} 1",
            "begins with __ once its name is escaped",
        ),
        bad(
            "labels alike once escaped",
            "a{\"b.c\"=\"1\",b_c=\"2\"} 1",
            "are the same once their names are escaped",
        ),
        bad(
            "a label like shard_id once escaped",
            "a{\"shard.id\"=\"1\"} 1",
            "are the same once their names are escaped",
        ),
        bad(
            "TYPE twice",
            "# TYPE a gauge\n# TYPE a gauge\na 1",
            "metrics: line 2: a: a second TYPE line",
        ),
        bad("HELP twice", "# HELP a x\n# HELP a y\na 1", "metrics: line 2: a: a second HELP line"),
        bad(
            "TYPE after a sample",
            "a 1\n# TYPE a gauge",
            "metrics: line 2: a: TYPE after the first sample",
        ),
    ])
    .await;
}

#[tokio::test]
async fn values_that_cannot_be() {
    check(vec![
        bad(
            "a histogram's plain sample",
            "# TYPE a histogram\na 1",
            "a histogram has no sample of this name",
        ),
        bad(
            "a bucket without le",
            "# TYPE a histogram\na_bucket 1",
            "a sample of a histogram without label le",
        ),
        bad(
            "le that is no number",
            "# TYPE a histogram\na_bucket{le=\"x\"} 1",
            "le=\"x\" is no number",
        ),
        bad(
            "le twice",
            "# TYPE a histogram\na_bucket{le=\"1\",le=\"2\"} 1",
            "label \"le\" is reserved here",
        ),
        bad(
            "le on a sum",
            "# TYPE a histogram\na_sum{le=\"1\"} 1",
            "label \"le\" is reserved here",
        ),
        bad(
            "le is NaN",
            "# TYPE a histogram\na_bucket{le=\"NaN\"} 1\na_sum 1\na_count 1",
            "bound NaN is not finite",
        ),
        bad(
            "a bound spelled twice",
            "# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"1.0\"} 1\na_sum 1\na_count 1",
            "bounds must rise",
        ),
        bad(
            "no sum",
            "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_count 1",
            "a histogram without _sum",
        ),
        bad(
            "no count",
            "# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1",
            "a histogram without _count",
        ),
        bad(
            "+Inf is not the count",
            "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2",
            "the +Inf bucket holds 1, but _count is 2",
        ),
        bad(
            "buckets fall",
            "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"2\"} 1\na_sum 1\na_count 2",
            "cumulative bucket counts fall from 2 to 1",
        ),
        bad(
            "a bucket above the count",
            "# TYPE a histogram\na_bucket{le=\"1\"} 3\na_sum 1\na_count 2",
            "cumulative bucket counts fall from 3 to 2",
        ),
        bad(
            "a negative bucket",
            "# TYPE a histogram\na_bucket{le=\"1\"} -1\na_sum 1\na_count 2",
            "a count is -1, not a number from 0 up",
        ),
        bad("a count that is NaN", "# TYPE a summary\na_sum 1\na_count NaN", "a count is NaN"),
        bad(
            "a quantile above 1",
            "# TYPE a summary\na{quantile=\"1.1\"} 1\na_sum 1\na_count 1",
            "quantile=\"1.1\" is no number from 0 to 1",
        ),
        bad(
            "a quantile without its label",
            "# TYPE a summary\na 1",
            "a sample of a summary without label quantile",
        ),
        bad(
            "a negative counter",
            "# TYPE a_total counter\na_total -1",
            "metrics: line 2: a_total{}: a count is -1, not a number from 0 up",
        ),
        bad("a counter that is NaN", "# TYPE a_total counter\na_total NaN", "a count is NaN"),
        bad("an infinite counter", "# TYPE a_total counter\na_total +Inf", "a count is inf"),
        bad(
            "a counter beyond all numbers",
            "# TYPE a_total counter\na_total 1e999",
            "a count is inf",
        ),
    ])
    .await;
}

#[tokio::test]
async fn openmetrics_that_is_none() {
    check(vec![
        bad(
            "something behind # EOF",
            "a 1\n# EOF\nb 1\n# EOF\n",
            "metrics: line 2: something follows # EOF",
        ),
        bad(
            "a counter without _total",
            "# TYPE a counter\na 1\n# EOF",
            "a counter has no sample of this name",
        ),
        bad(
            "an exemplar of a gauge",
            "# TYPE a gauge\na 1 # {} 1\n# EOF",
            "only counters and buckets of histograms have some",
        ),
        bad(
            "an exemplar without braces",
            "# TYPE a counter\na_total 1 # 1\n# EOF",
            "an exemplar has no labels in braces",
        ),
        bad(
            "an exemplar without a value",
            "# TYPE a counter\na_total 1 # {}\n# EOF",
            "no value after the exemplar's labels",
        ),
        bad(
            "a name in an exemplar",
            "# TYPE a counter\na_total 1 # {\"b\"} 1\n# EOF",
            "label b has no value in double quotes",
        ),
        bad(
            "a timestamp that is NaN",
            "a 1 NaN\n# EOF",
            "\"NaN\" is no timestamp (seconds since 1970)",
        ),
        bad(
            "UNIT twice",
            "# UNIT a x\n# UNIT a x\n# EOF",
            "metrics: line 2: a: a second UNIT line",
        ),
        bad(
            "two families of one name",
            "# TYPE a_total gauge\n# TYPE a counter\n# EOF",
            "its samples are called a_total, and another family is too",
        ),
        text(
            "a unit that is no suffix",
            "# TYPE a gauge\n# UNIT a seconds\na 1\n# EOF",
            Taken(&["a{shard_id=\"3\"} 1", "!# UNIT a "]),
        ),
        text(
            "a unit of two words",
            "# TYPE a_b_c gauge\n# UNIT a_b_c b c\na_b_c 1\n# EOF",
            Taken(&["a_b_c{shard_id=\"3\"} 1", "!# UNIT a_b_c "]),
        ),
        text(
            "# EOF in a label",
            "eof{b=\"# EOF\"} 1\n",
            Taken(&["eof{shard_id=\"3\",b=\"# EOF\"} 1"]),
        ),
    ])
    .await;
}
