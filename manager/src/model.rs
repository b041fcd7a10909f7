//! The manager's own model of metrics, which every way in converts to and every way out reads: it knows nothing of
//! protobuf, HTTP or text formats.
//!
//! A **family** has a name, a type, a help text and a unit; a **series** is a label set of a family; a **sample** is a
//! series' values at one moment: 1 for a counter, gauge or untyped series; for a histogram the cumulative count of each
//! finite bound, the count of all, the sum; for a summary each quantile's value, the count, the sum.

mod bounds;
mod exemplar;
mod labels;
mod names;

use serde::{Deserialize, Serialize};

pub use bounds::{Bounds, BoundsError};
pub use exemplar::{Exemplar, ExemplarError, MAX_EXEMPLAR_CHARS};
pub use labels::{LabelError, LabelSet, pairs, unescape};
pub(crate) use labels::{closing_quote, put_quoted};
pub use names::{Escaping, is_legacy_label_name, is_legacy_metric_name, is_name};

/// How a family's values behave (Prometheus' term).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MetricType {
    /// Only rises while its instance lives; instances add up.
    Counter,
    /// A current value; belongs to the living instance.
    Gauge,
    /// Cumulative counts by bucket; instances add up.
    Histogram,
    /// Quantiles like gauges, count and sum like counters.
    Summary,
    /// Not known to the sender; treated as a gauge.
    Untyped,
}

impl MetricType {
    /// Every type.
    pub const ALL: [Self; 5] =
        [Self::Counter, Self::Gauge, Self::Histogram, Self::Summary, Self::Untyped];

    /// How many values a sample has, when the series has `bounds` bounds (or quantiles).
    #[must_use]
    pub const fn width(self, bounds: usize) -> usize {
        match self {
            Self::Counter | Self::Gauge | Self::Untyped => 1,
            Self::Histogram | Self::Summary => bounds + 2,
        }
    }

    /// How many of a sample's values, from its first, belong to the living instance alone. The others add up.
    #[must_use]
    pub const fn owned(self, bounds: usize) -> usize {
        match self {
            Self::Gauge | Self::Untyped => 1,
            Self::Summary => bounds,
            Self::Counter | Self::Histogram => 0,
        }
    }

    /// Which of a sample's values is its count of observations or events; gauges have none.
    #[must_use]
    pub const fn count_at(self, bounds: usize) -> Option<usize> {
        match self {
            Self::Counter => Some(0),
            Self::Histogram | Self::Summary => Some(bounds),
            Self::Gauge | Self::Untyped => None,
        }
    }

    /// The type's name in Prometheus' text format 0.0.4.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }
}

/// What a sender says of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyHead<'a> {
    /// Name of the family as in text format 0.0.4: a counter's ends in `_total` here too, if the sender's does.
    pub name: &'a str,
    /// Its type.
    pub kind: MetricType,
    /// Help text, unescaped.
    pub help: &'a str,
    /// Base unit; empty if none.
    pub unit: &'a str,
}

/// Some series' values: `ids` name the series in the order of their values.
#[derive(Debug, Clone, Copy, Default)]
pub struct Samples<'a> {
    /// The series, by the ids its sender gave them.
    pub ids: &'a [u32],
    /// All their values, as many for each as its type and bounds say.
    pub values: &'a [f64],
}

/// What OpenMetrics calls a counter named `name`: its samples end in `_total`, the family does not. `None` for a counter
/// whose name leaves no family so.
#[must_use]
pub fn counter_stem(name: &str) -> Option<&str> {
    name.strip_suffix("_total").filter(|stem| !stem.is_empty())
}

/// Names that a family called `name` and its samples have, in any format.
#[must_use]
pub fn sample_names(name: &str, kind: MetricType) -> Vec<String> {
    let with =
        |suffixes: &[&str]| suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect();
    match kind {
        MetricType::Histogram => with(&["", "_bucket", "_sum", "_count", "_created"]),
        MetricType::Summary => with(&["", "_sum", "_count", "_created"]),
        // OpenMetrics names the family without the suffix of its samples.
        MetricType::Counter => match counter_stem(name) {
            Some(stem) => vec![name.to_owned(), stem.to_owned(), format!("{stem}_created")],
            None => with(&[""]),
        },
        MetricType::Gauge | MetricType::Untyped => with(&[""]),
    }
}
