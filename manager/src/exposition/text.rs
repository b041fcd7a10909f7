//! The two text formats: Prometheus' (0.0.4, 1.0.0) and OpenMetrics 1.0.0. They differ in the lines about a family and at
//! the end; sample lines are the same bytes.

use std::borrow::Cow;

use super::{Format, Syntax, encoder::Head, revalue::revalue};
use crate::{
    clock::UnixTime,
    model::{Escaping, MetricType, counter_stem, is_legacy_metric_name, pairs, put_quoted},
    registry::SeriesView,
};

/// Writes families and samples in one text format.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextEncoder {
    /// OpenMetrics 1.0.0, else Prometheus' text.
    is_openmetrics: bool,
    escaping: Escaping,
    /// Whether there are `_created` samples.
    created: bool,
}

impl TextEncoder {
    pub(super) const fn new(format: Format) -> Self {
        Self {
            is_openmetrics: matches!(format.syntax, Syntax::OpenMetrics),
            escaping: format.escaping,
            created: format.created,
        }
    }

    /// What ends a page.
    pub(super) fn end(self) -> &'static [u8] {
        if self.is_openmetrics { b"# EOF\n" } else { b"" }
    }

    /// The lines about a family. OpenMetrics names it by what its name has become, and takes no unit that does not fit that.
    pub(super) fn head(self, name: &str, kind: MetricType, help: &str, unit: &str) -> Head {
        let escaped = self.escaping.metric_name(name);
        let (name, shown) = if self.is_openmetrics {
            openmetrics_head(&escaped, kind)
        } else {
            (&*escaped, kind.as_str())
        };
        let fits = name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
        let quoted = quoted(name);
        let name = quoted.as_deref().unwrap_or(name);
        let mut text = Vec::with_capacity(2 * name.len() + help.len() + 32);
        if !help.is_empty() {
            put(&mut text, &["# HELP ", name, " "]);
            self.put_help(&mut text, help);
            text.push(b'\n');
        }
        put(&mut text, &["# TYPE ", name, " ", shown, "\n"]);
        if self.is_openmetrics && !unit.is_empty() && fits {
            put(&mut text, &["# UNIT ", name, " ", unit, "\n"]);
        }
        let name = match self::quoted(&escaped) {
            // A suffix comes before the closing quote.
            Some(mut quoted) => {
                quoted.pop();
                quoted.into()
            }
            None => escaped.into(),
        };
        Head { kind, name, text }
    }

    /// The sample lines of one series.
    pub(super) fn series(
        self,
        out: &mut Vec<u8>,
        head: &Head,
        shard_id: Option<u32>,
        series: &SeriesView<'_>,
    ) {
        let labels = self.labels(series.labels);
        let shard_id = shard_id.map(|id| (self.escaping.shard_label(), id));
        let line = Line { name: &head.name, shard_id, labels: &labels };
        match head.kind {
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => {
                for value in series.values {
                    line.put_open(out, "", None, *value);
                    // One that is `unknown` has none.
                    if head.kind == MetricType::Counter && counter_stem(&head.name).is_some() {
                        self.put_exemplar(out, series, 0);
                    }
                    out.push(b'\n');
                }
            }
            MetricType::Histogram => {
                if let [buckets @ .., count, sum] = series.values {
                    let bounds = series.bounds.spellings().chain(["+Inf"]);
                    let buckets = buckets.iter().chain([count]);
                    for (at, (le, bucket)) in bounds.zip(buckets).enumerate() {
                        line.put_open(out, "_bucket", Some(("le", le)), *bucket);
                        self.put_exemplar(out, series, at);
                        out.push(b'\n');
                    }
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
        if self.created {
            put_created(out, head.kind, line, series.created);
        }
    }

    /// The same where only the values differ from `before`, which is what was written at an earlier time. False: it must be
    /// written anew.
    pub(super) fn revalue(
        self,
        out: &mut Vec<u8>,
        before: &[u8],
        kind: MetricType,
        series: &SeriesView<'_>,
    ) -> bool {
        // A `_created` line would be taken for one with a value, and an exemplar for the value of a line.
        let ends_in_values = !self.created && (!self.is_openmetrics || series.exemplars.is_empty());
        ends_in_values && revalue(out, before, kind, series)
    }

    /// What stands behind the value of a counter or bucket that has an exemplar: only OpenMetrics has a place for it.
    fn put_exemplar(self, out: &mut Vec<u8>, series: &SeriesView<'_>, bucket: usize) {
        if !self.is_openmetrics {
            return;
        }
        let Some(exemplar) = series.exemplar(bucket) else { return };
        let Some(labels) = exemplar.escaped_labels(self.escaping) else { return };
        put(out, &[" # {", &labels, "} "]);
        put_value(out, exemplar.value);
        if let Some(at) = exemplar.at {
            out.push(b' ');
            put_value(out, at.as_secs_f64());
        }
    }

    /// Labels with their names escaped.
    fn labels(self, canonical: &str) -> Cow<'_, str> {
        if self.escaping.keeps(canonical) {
            return Cow::Borrowed(canonical);
        }
        let mut labels = String::with_capacity(2 * canonical.len());
        for (name, value) in pairs(canonical) {
            let separator = if labels.is_empty() { "" } else { "," };
            labels.extend([separator, &self.escaping.label_name(&name), "=\"", value, "\""]);
        }
        Cow::Owned(labels)
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

/// A name in double quotes, if it cannot stand without.
fn quoted(name: &str) -> Option<String> {
    if is_legacy_metric_name(name) {
        return None;
    }
    let mut quoted = String::with_capacity(name.len() + 2);
    put_quoted(&mut quoted, name);
    Some(quoted)
}

/// When the series began to be counted, in seconds.
fn put_created(out: &mut Vec<u8>, kind: MetricType, line: Line<'_>, created: Option<UnixTime>) {
    let of = match kind {
        MetricType::Counter => counter_stem(line.name),
        MetricType::Histogram | MetricType::Summary => Some(line.name),
        MetricType::Gauge | MetricType::Untyped => None,
    };
    if let Some((name, created)) = of.zip(created) {
        let milliseconds = (created.as_secs_f64() * 1e3).floor();
        Line { name, ..line }.put(out, "_created", None, milliseconds / 1e3);
    }
}

/// What the sample lines of one series share.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    /// It begins with a double quote if it needs quotes, and a suffix follows.
    name: &'a str,
    shard_id: Option<(&'a str, u32)>,
    labels: &'a str,
}

impl Line<'_> {
    fn put(&self, out: &mut Vec<u8>, suffix: &str, bound: Option<(&str, &str)>, value: f64) {
        self.put_open(out, suffix, bound, value);
        out.push(b'\n');
    }

    /// Without the end of the line.
    fn put_open(&self, out: &mut Vec<u8>, suffix: &str, bound: Option<(&str, &str)>, value: f64) {
        let mut open = "{";
        if self.name.starts_with('"') {
            put(out, &[open, self.name, suffix, "\""]);
            open = ",";
        } else {
            put(out, &[self.name, suffix]);
        }
        if let Some((label, id)) = self.shard_id {
            put(out, &[open, label, "=\"", itoa::Buffer::new().format(id), "\""]);
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
    const MINUS_ZERO: u64 = (-0.0_f64).to_bits();
    let whole = value as i64;
    if value.abs() < EXACT && whole as f64 == value && value.to_bits() != MINUS_ZERO {
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
        assert_eq!(spelled(-0.0), "-0.0");
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
