//! metrics.proto, as far as it is read here. What is left out is passed over: timestamps, when counting began, and native
//! histograms' buckets.

use prost_types::Timestamp;

use super::{ProtobufProblem, delimited, varint};

/// A `MetricFamily` without its metrics.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Head {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) help: String,
    #[prost(enumeration = "Type", tag = "3")]
    pub(super) kind: i32,
    #[prost(string, tag = "5")]
    pub(super) unit: String,
}

/// `MetricFamily.metric`.
const METRIC: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Type {
    Counter = 0,
    Gauge = 1,
    Summary = 2,
    Untyped = 3,
    Histogram = 4,
    GaugeHistogram = 5,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(super) label: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    pub(super) gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub(super) counter: Option<Number>,
    #[prost(message, optional, tag = "4")]
    pub(super) summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    pub(super) untyped: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// A `Counter`, `Gauge` or `Untyped`; of these, only the first has exemplars.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Number {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    #[prost(message, optional, tag = "2")]
    pub(super) exemplar: Option<Exemplar>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Summary {
    #[prost(uint64, tag = "1")]
    pub(super) count: u64,
    #[prost(double, tag = "2")]
    pub(super) sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(super) quantile: Vec<Quantile>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Quantile {
    #[prost(double, tag = "1")]
    pub(super) quantile: f64,
    #[prost(double, tag = "2")]
    pub(super) value: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub(super) count: u64,
    #[prost(double, tag = "2")]
    pub(super) sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(super) bucket: Vec<Bucket>,
    /// In place of `count`, if it is greater than 0.
    #[prost(double, tag = "4")]
    pub(super) count_float: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Bucket {
    #[prost(uint64, tag = "1")]
    pub(super) count: u64,
    #[prost(double, tag = "2")]
    pub(super) bound: f64,
    #[prost(message, optional, tag = "3")]
    pub(super) exemplar: Option<Exemplar>,
    /// In place of `count`, if it is greater than 0.
    #[prost(double, tag = "4")]
    pub(super) count_float: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub(super) label: Vec<Label>,
    #[prost(double, tag = "2")]
    pub(super) value: f64,
    #[prost(message, optional, tag = "3")]
    pub(super) timestamp: Option<Timestamp>,
}

impl Metric {
    /// The value of one that has but one.
    pub(super) fn value(&self) -> Option<f64> {
        let number = self.gauge.as_ref().or(self.counter.as_ref()).or(self.untyped.as_ref());
        number.map(|number| number.value)
    }
}

impl Histogram {
    pub(super) fn count(&self) -> f64 {
        count(self.count, self.count_float)
    }
}

impl Bucket {
    pub(super) fn count(&self) -> f64 {
        count(self.count, self.count_float)
    }
}

fn count(whole: u64, fraction: f64) -> f64 {
    // Also where it is NaN or negative, which is refused then.
    if fraction == 0.0 { whole as f64 } else { fraction }
}

/// The metrics of a `MetricFamily`, one after the other as they stand in its bytes.
pub(super) fn metrics(family: &[u8]) -> impl Iterator<Item = Result<&[u8], ProtobufProblem>> {
    let mut rest = family;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match field(&mut rest) {
                Ok((METRIC, Some(metric))) => return Some(Ok(metric)),
                Ok((METRIC, None)) => return Some(Err(ProtobufProblem::Field(METRIC))),
                Ok(_) => {}
                Err(problem) => {
                    rest = &[];
                    return Some(Err(problem));
                }
            }
        }
        None
    })
}

/// The field that `rest` begins with: its number, and its content if that has a length.
fn field<'a>(rest: &mut &'a [u8]) -> Result<(usize, Option<&'a [u8]>), ProtobufProblem> {
    let key = varint(rest)?;
    let fixed = match key & 7 {
        0 => return varint(rest).map(|_| (key >> 3, None)),
        1 => 8,
        2 => return Ok((key >> 3, Some(delimited(rest)?))),
        5 => 4,
        // Groups, which metrics.proto never had.
        _ => return Err(ProtobufProblem::Field(key >> 3)),
    };
    *rest = rest.get(fixed..).ok_or(ProtobufProblem::Length)?;
    Ok((key >> 3, None))
}
