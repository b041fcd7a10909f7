//! Where the manager and Python's client differ on purpose. A difference that is in no row is a mistake of the one or the other.

use Side::{Refuses, Takes, Values};

/// How the two differ over a body: with the message of who refuses it, or the sample that they read differently.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    pub(super) manager: Side,
    pub(super) says: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// Takes what Python refuses.
    Takes,
    /// Refuses what Python takes.
    Refuses,
    /// Takes it as Python does, and reads another value.
    Values,
}

/// A difference on purpose.
pub(super) struct Row {
    manager: Side,
    /// What is said of it, in part.
    says: &'static str,
    /// A body over which they differ so.
    pub(super) example: &'static str,
    #[expect(dead_code, reason = "for whoever reads the table")]
    why: &'static str,
}

impl Row {
    pub(super) fn is_of(&self, difference: &Difference) -> bool {
        self.manager == difference.manager && difference.says.contains(self.says)
    }
}

const fn row(manager: Side, says: &'static str, example: &'static str, why: &'static str) -> Row {
    Row { manager, says, example, why }
}

pub(super) fn is_known(difference: &Difference) -> bool {
    DIFFERENCES.iter().any(|row| row.is_of(difference))
}

const ONCE: &str = "which of the two is meant nobody knows; the sender is told";
const COUNT: &str = "what cannot be counted cannot be added up over instances";
const PARTS: &str = "a series whose parts are missing cannot be shown as its type";
const FORMAT: &str = "not in the format; Python takes it as a carelessness of its own";
const ORDER: &str = "the order of lines makes no difference to what they say";
const LENIENT: &str = "blanks, line ends and comments as text format 0.0.4 has them do no harm";
const SHOWN: &str = "taken, and shown as what OpenMetrics allows";
const DEFENSE: &str = "Prometheus would drop it, or take it for another";

/// All of them.
pub(super) const DIFFERENCES: &[Row] = &[
    // Text 0.0.4 and OpenMetrics: what Python does not look at.
    row(Refuses, "this sample is already there", "a 1\na 2\n", ONCE),
    row(Refuses, "a second TYPE line", "# TYPE a gauge\n# TYPE a gauge\n", ONCE),
    row(Refuses, "a second HELP line", "# HELP a b\n# HELP a b\n", ONCE),
    row(Refuses, "TYPE after the first sample", "a 1\n# TYPE a gauge\n", ONCE),
    row(
        Refuses,
        "bounds must rise",
        "# TYPE a summary\na{quantile=\"0.5\"} 1\na{quantile=\"0.50\"} 1\na_sum 1\na_count 1\n",
        ONCE,
    ),
    row(Refuses, "not a number from 0 up", "# TYPE a counter\na -1\n", COUNT),
    row(
        Refuses,
        "cumulative bucket counts fall",
        "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_sum 1\na_count 1\n",
        COUNT,
    ),
    row(
        Refuses,
        "but _count is",
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
        COUNT,
    ),
    row(Refuses, "without _sum", "# TYPE a summary\na_count 1\n", PARTS),
    row(Refuses, "without _count", "# TYPE a summary\na_sum 1\n", PARTS),
    row(Refuses, "without label", "# TYPE a histogram\na_bucket 1\n", PARTS),
    row(
        Refuses,
        "is not finite (+Inf is implied)",
        "# TYPE a histogram\na_bucket{le=\"NaN\"} 1\na_sum 1\na_count 1\n",
        PARTS,
    ),
    row(
        Refuses,
        "is no number",
        "# TYPE a summary\na{quantile=\"x\"} 1\na_sum 1\na_count 1\n",
        PARTS,
    ),
    row(Refuses, "has no sample of this name", "# TYPE a histogram\na 1\n", PARTS),
    row(
        Refuses,
        "is reserved here",
        "# TYPE a summary\na_sum{quantile=\"1\"} 1\na_count{quantile=\"1\"} 1\n",
        DEFENSE,
    ),
    row(Refuses, "begins with __ once its name is escaped", "a{\"#ü\"=\"x\"} 1\n", DEFENSE),
    row(
        Refuses,
        "are the same once their names are escaped",
        "a{\"b.c\"=\"x\",b_c=\"y\"} 1\n",
        DEFENSE,
    ),
    row(Refuses, "it is empty or has a NUL", "a{\"b\0\"=\"x\"} 1\n", DEFENSE),
    row(Refuses, "is no metric name", "# TYPE a\u{a0} gauge\n", FORMAT),
    row(Refuses, "is no label name", "a{\u{c}b=\"x\"} 1\n", FORMAT),
    row(Refuses, "has no value in double quotes", "a{b:c=\"x\"} 1\n", FORMAT),
    row(Refuses, "has no closing quote", "# HELP \"a\\\"\n", FORMAT),
    row(Refuses, "expected a comma or closing brace", "a{b=\"x\"\u{c}} 1\n", FORMAT),
    row(Refuses, "is no escape", "a{b=\"\\q\"} 1\n", FORMAT),
    row(Refuses, "is no value", "a \u{661}\n", FORMAT),
    row(Refuses, "no value after", "NaN\n", FORMAT),
    row(Refuses, "is no timestamp", "a 1 0.5\n", FORMAT),
    row(Refuses, "after the sample", "a 1 2 3\n", FORMAT),
    row(Refuses, "is no metric type", "# TYPE a gaugehistogram\n", FORMAT),
    row(Refuses, "that ends in # EOF", "a_total 1 # {} 1 5\n", FORMAT),
    row(Refuses, "something follows # EOF", "# EOF\na 1\n", FORMAT),
    // OpenMetrics: what Python demands beyond what can be understood.
    row(
        Takes,
        "Mix of timestamp presence",
        "# TYPE a summary\na_sum 1\na_count 1 5\n# EOF\n",
        "timestamps are ignored",
    ),
    row(
        Takes,
        "Timestamps went backwards",
        "# TYPE a summary\na_sum 1 9\na_count 1 5\n# EOF\n",
        "timestamps are ignored",
    ),
    row(
        Takes,
        "Invalid metric grouping",
        "# TYPE a gaugehistogram\na_bucket{b=\"\",le=\"1\"} 1\na_gcount{c=\"\"} 1\na_gsum{b=\"\"} 1\n# EOF\n",
        ORDER,
    ),
    row(Takes, "Clashing name", "# TYPE a counter\n# TYPE b gauge\nb 1\na_total 1\n# EOF\n", ORDER),
    row(
        Takes,
        "Received metadata after samples",
        "# TYPE a gauge\na 1\n# HELP a b\n# EOF\n",
        ORDER,
    ),
    row(
        Takes,
        "Buckets out of order",
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 2\na_bucket{le=\"1\"} 1\na_sum 1\na_count 2\n# EOF\n",
        ORDER,
    ),
    row(
        Takes,
        "Bucket values out of order",
        "# TYPE a gaugehistogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\n# EOF\n",
        ORDER,
    ),
    row(
        Takes,
        "+Inf bucket missing",
        "# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 2\n# EOF\n",
        "it is the count",
    ),
    row(
        Takes,
        "must be present if",
        "# TYPE a gaugehistogram\na_bucket{le=\"+Inf\"} 1\na_gsum 1\n# EOF\n",
        "gauge histograms become gauges",
    ),
    row(
        Takes,
        "Count does not match +Inf value",
        "# TYPE a gaugehistogram\na_bucket{le=\"+Inf\"} 1\na_gcount 2\na_gsum 1\n# EOF\n",
        "gauge histograms become gauges",
    ),
    row(
        Takes,
        "negative _gsum",
        "# TYPE a gaugehistogram\na_bucket{le=\"+Inf\"} 1\na_gcount 1\na_gsum -1\n# EOF\n",
        "gauge histograms become gauges",
    ),
    row(
        Takes,
        "with negative buckets",
        "# TYPE a histogram\na_bucket{le=\"-1\"} 1\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n# EOF\n",
        SHOWN,
    ),
    row(
        Takes,
        "Counter-like samples cannot be NaN",
        "# TYPE a summary\na_sum NaN\na_count 1\n# EOF\n",
        "sums of what was observed may be anything",
    ),
    row(
        Takes,
        "Counter-like samples cannot be negative",
        "# TYPE a summary\na_sum -1\na_count 1\n# EOF\n",
        "sums of what was observed may be anything",
    ),
    row(
        Takes,
        "Quantile values cannot be negative",
        "# TYPE a summary\na{quantile=\"0.5\"} -1\na_sum 1\na_count 1\n# EOF\n",
        "what was observed may be anything",
    ),
    row(
        Takes,
        "Bucket value must be an integer",
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 0.5\na_sum 1\na_count 0.5\n# EOF\n",
        SHOWN,
    ),
    row(
        Takes,
        "Count value must be an integer",
        "# TYPE a summary\na_sum 1\na_count 0.5\n# EOF\n",
        SHOWN,
    ),
    row(
        Takes,
        "Invalid le label",
        "# TYPE a histogram\na_bucket{le=\"inf\"} 1\na_sum 1\na_count 1\n# EOF\n",
        SHOWN,
    ),
    row(
        Takes,
        "Unit does not match metric name",
        "# UNIT a b\n# EOF\n",
        "a unit that does not fit is not shown",
    ),
    row(
        Takes,
        "Units not allowed",
        "# TYPE a_b info\n# UNIT a_b b\n# EOF\n",
        "a unit that does not fit is not shown",
    ),
    row(
        Takes,
        "Stateset missing label",
        "# TYPE a stateset\na 1\n# EOF\n",
        "state sets become gauges",
    ),
    row(
        Takes,
        "Stateset samples can only have",
        "# TYPE a stateset\na{a=\"b\"} 2\n# EOF\n",
        "state sets become gauges",
    ),
    row(
        Takes,
        "Info samples can only have value one",
        "# TYPE a info\na_info 2\n# EOF\n",
        "infos become gauges",
    ),
    row(
        Takes,
        "Invalid TYPE for metric",
        "# TYPE a untyped\n# EOF\n",
        "text format 0.0.4's word for unknown",
    ),
    row(
        Takes,
        "Exemplar labels are too long",
        "# TYPE a counter\na_total 1 # {b=\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"} 1\n# EOF\n",
        "the exemplar alone is rejected",
    ),
    row(Takes, "Received blank line", "\na 1\n# EOF\n", LENIENT),
    row(Takes, "Received line after # EOF", "# EOF\n\n", LENIENT),
    row(Takes, "Invalid line:", "# a comment\n# EOF\n", LENIENT),
    row(
        Takes,
        "Invalid line only histogram",
        "# TYPE a counter\n# TYPE b gauge\na_total 1 # {} 1\n# EOF\n",
        ORDER,
    ),
    row(Takes, "Invalid value", "a 1\r\n# EOF\n", LENIENT),
    row(Takes, "Invalid timestamp", "a 1 5\r\n# EOF\n", LENIENT),
    row(Takes, "Invalid metric type", "# TYPE a gauge\r\n# EOF\n", LENIENT),
    row(Takes, "invalid metric name", "a\t1\n# EOF\n", LENIENT),
    row(
        Takes,
        "could not convert string to float",
        "a{}NaN\n# EOF\n",
        "Python passes over the letter behind the brace",
    ),
    row(Takes, "Invalid labels", "a{b=\"1\",} 1\n# EOF\n", LENIENT),
    row(Takes, "missing close quote", "# HELP \"a\"b c\n", "what a HELP line says is of no weight"),
    row(
        Takes,
        "metric name cannot be empty",
        "# TYPE _total counter\n",
        "it is a name like others",
    ),
    row(
        Takes,
        "a native histogram should have no suffixes",
        "# TYPE a histogram\na_bucket {le=\"+Inf\"} 1\na_sum 1\n# EOF\n",
        LENIENT,
    ),
    row(Takes, "IndexError", "# HELP \t a b\n# EOF\n", LENIENT),
    row(Takes, "KeyError", "# TYPE a histogram\na_buckets {le=\"1\"} 1\n# EOF\n", LENIENT),
    row(Takes, "metric name specified more than once", "\t{\"a\"} 1\n# EOF\n", LENIENT),
    row(
        Takes,
        "no reason",
        "{\"b.c\"} 1\n# EOF\n",
        "names beyond the legacy rule need no TYPE either",
    ),
    row(
        Values,
        "a value right behind a brace",
        "a{}15\n# EOF\n",
        "Python passes over the letter behind the brace",
    ),
];
