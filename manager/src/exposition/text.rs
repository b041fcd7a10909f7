//! The two text formats: Prometheus 0.0.4 and OpenMetrics 1.0.0. They differ in the lines about a family and at the end;
//! sample lines are the same bytes.

use crate::{
    model::{MetricType, counter_stem},
    registry::SeriesView,
};

/// Writes families and samples in one text format.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextEncoder {
    /// OpenMetrics 1.0.0, else Prometheus 0.0.4.
    is_openmetrics: bool,
}

impl TextEncoder {
    pub(super) const fn new(is_openmetrics: bool) -> Self {
        Self { is_openmetrics }
    }

    /// What ends a page.
    pub(super) fn end(self) -> &'static [u8] {
        if self.is_openmetrics { b"# EOF\n" } else { b"" }
    }

    /// The lines about a family.
    pub(super) fn head(self, name: &str, kind: MetricType, help: &str, unit: &str) -> Vec<u8> {
        let (name, kind) =
            if self.is_openmetrics { openmetrics_head(name, kind) } else { (name, kind.as_str()) };
        let mut out = Vec::with_capacity(2 * name.len() + help.len() + 32);
        if !help.is_empty() {
            put(&mut out, &["# HELP ", name, " "]);
            self.put_help(&mut out, help);
            out.push(b'\n');
        }
        put(&mut out, &["# TYPE ", name, " ", kind, "\n"]);
        if self.is_openmetrics && !unit.is_empty() {
            put(&mut out, &["# UNIT ", name, " ", unit, "\n"]);
        }
        out
    }

    /// The sample lines of one series.
    pub(super) fn series(
        self,
        out: &mut Vec<u8>,
        name: &str,
        kind: MetricType,
        shard_id: Option<u32>,
        series: &SeriesView<'_>,
    ) {
        let line = Line { name, shard_id, labels: series.labels };
        match kind {
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => {
                for value in series.values {
                    line.put(out, "", None, *value);
                }
            }
            MetricType::Histogram => {
                if let [buckets @ .., count, sum] = series.values {
                    for (le, bucket) in series.bounds.spellings().zip(buckets) {
                        line.put(out, "_bucket", Some(("le", le)), *bucket);
                    }
                    line.put(out, "_bucket", Some(("le", "+Inf")), *count);
                    line.put(out, "_sum", None, *sum);
                    line.put(out, "_count", None, *count);
                }
            }
            MetricType::Summary => {
                if let [quantiles @ .., count, sum] = series.values {
                    let shown = if series.owned { quantiles } else { &[] };
                    for (quantile, value) in series.bounds.spellings().zip(shown) {
                        line.put(out, "", Some(("quantile", quantile)), *value);
                    }
                    line.put(out, "_sum", None, *sum);
                    line.put(out, "_count", None, *count);
                }
            }
        }
    }

    /// HELP escapes backslash and line feed; OpenMetrics the double quote too.
    fn put_help(self, out: &mut Vec<u8>, help: &str) {
        for &byte in help.as_bytes() {
            match byte {
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'"' if self.is_openmetrics => out.extend_from_slice(b"\\\""),
                byte => out.push(byte),
            }
        }
    }
}

/// OpenMetrics names a counter's family without `_total`, which its samples must have. A counter whose name lacks it is
/// `unknown` there, so that its series keep their name in every format.
fn openmetrics_head(name: &str, kind: MetricType) -> (&str, &'static str) {
    match (kind, counter_stem(name)) {
        (MetricType::Counter, Some(stem)) => (stem, "counter"),
        (MetricType::Counter, None) | (MetricType::Untyped, _) => (name, "unknown"),
        _ => (name, kind.as_str()),
    }
}

/// What the sample lines of one series share.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    name: &'a str,
    shard_id: Option<u32>,
    labels: &'a str,
}

impl Line<'_> {
    fn put(&self, out: &mut Vec<u8>, suffix: &str, bound: Option<(&str, &str)>, value: f64) {
        put(out, &[self.name, suffix]);
        let mut open = "{";
        if let Some(id) = self.shard_id {
            put(out, &[open, "shard_id=\"", itoa::Buffer::new().format(id), "\""]);
            open = ",";
        }
        if !self.labels.is_empty() {
            put(out, &[open, self.labels]);
            open = ",";
        }
        if let Some((label, bound)) = bound {
            put(out, &[open, label, "=\"", bound, "\""]);
            open = ",";
        }
        out.extend_from_slice(if open == "{" { b" " } else { b"} " });
        put_value(out, value);
        out.push(b'\n');
    }
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// A sample's value: whole numbers without point or exponent, others by the shortest digits that read back the same.
pub(super) fn put_value(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    let whole = value as i64;
    if value.abs() < EXACT && whole as f64 == value {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_the_same() {
        let spelled = |value| {
            let mut out = Vec::new();
            put_value(&mut out, value);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(spelled(0.0), "0");
        assert_eq!(spelled(-3.0), "-3");
        assert_eq!(spelled(9_007_199_254_740_991.0), "9007199254740991");
        assert_eq!(spelled(0.1), "0.1");
        assert_eq!(spelled(f64::INFINITY), "+Inf");
        assert_eq!(spelled(f64::NEG_INFINITY), "-Inf");
        assert_eq!(spelled(f64::NAN), "NaN");
        for value in [1e300, 5e-324, 9_007_199_254_740_992.0, 1.0 / 3.0, 1e21] {
            assert_eq!(
                spelled(value).parse::<f64>().unwrap().to_bits(),
                value.to_bits(),
                "{value}"
            );
        }
    }
}
