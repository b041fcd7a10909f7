//! What one gather of the `prometheus` crate says about a series, in the layout of the wire.
//!
//! Everything the wire would refuse is found here, so that one odd series cannot end a shard's session.

use prometheus::proto::{self, Metric, MetricFamily};
use shardmeter_proto::v1::MetricType;

/// A label set, sorted by name, without empty values. A series' key within its family.
pub(crate) type Labels = Vec<(String, String)>;

/// One series as gathered.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) labels: Labels,
    /// Histogram: finite upper bounds. Summary: quantiles.
    pub(super) bounds: Vec<f64>,
    /// As the .proto lays out `Samples`.
    pub(super) values: Vec<f64>,
}

/// Why a family, or series of it, stays out of the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeftOut {
    #[error("its name is no metric name")]
    Name,
    #[error(
        "it is untyped, and such values cannot be read through the prometheus crate's interface"
    )]
    Untyped,
    #[error("the name already stands for a family of another type")]
    Type,
    #[error("a label's name is malformed, reserved or repeated")]
    Labels,
    #[error("its buckets or quantiles are not rising numbers")]
    Bounds,
    #[error("the same name and labels came before, from this registry or another")]
    Duplicate,
    #[error("it does not fit into the longest message the manager takes")]
    TooLong,
    #[error("the manager's limit on series ids is reached")]
    OutOfIds,
}

/// A family's type on the wire.
pub(super) fn kind(family: &MetricFamily) -> Result<MetricType, LeftOut> {
    if !is_name(family.name(), true) {
        return Err(LeftOut::Name);
    }
    match family.get_field_type() {
        proto::MetricType::COUNTER => Ok(MetricType::Counter),
        proto::MetricType::GAUGE => Ok(MetricType::Gauge),
        proto::MetricType::HISTOGRAM => Ok(MetricType::Histogram),
        proto::MetricType::SUMMARY => Ok(MetricType::Summary),
        proto::MetricType::UNTYPED => Err(LeftOut::Untyped),
    }
}

/// Reads one series of a family of type `kind`.
pub(super) fn read(kind: MetricType, metric: &Metric) -> Result<Reading, LeftOut> {
    let labels = labels(kind, metric)?;
    let (bounds, values) = match kind {
        MetricType::Counter => (Vec::new(), vec![counter(metric.get_counter())]),
        MetricType::Histogram => histogram(metric.get_histogram()),
        MetricType::Summary => summary(metric.get_summary()),
        MetricType::Gauge | MetricType::Untyped | MetricType::Unspecified => {
            (Vec::new(), vec![gauge(metric.get_gauge())])
        }
    };
    if !are_bounds(kind, &bounds) {
        return Err(LeftOut::Bounds);
    }
    Ok(Reading { labels, bounds, values })
}

fn labels(kind: MetricType, metric: &Metric) -> Result<Labels, LeftOut> {
    let mut labels: Labels = metric
        .get_label()
        .iter()
        .map(|pair| (pair.name().to_owned(), pair.value().to_owned()))
        .collect();
    labels.sort_unstable();
    let reserved = match kind {
        MetricType::Histogram => "le",
        MetricType::Summary => "quantile",
        _ => "__name__",
    };
    let well_formed = labels
        .iter()
        .all(|(name, _)| is_name(name, false) && name != reserved && name != "__name__");
    let distinct = labels.windows(2).all(|pair| pair[0].0 != pair[1].0);
    if !(well_formed && distinct) {
        return Err(LeftOut::Labels);
    }
    labels.retain(|(_, value)| !value.is_empty());
    Ok(labels)
}

fn histogram(histogram: &proto::Histogram) -> (Vec<f64>, Vec<f64>) {
    // The `prometheus` crate leaves +Inf out; a collector of the bot's own may bring it.
    let finite =
        histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound() != f64::INFINITY);
    let bounds = finite.clone().map(proto::Bucket::upper_bound).collect();
    let mut values: Vec<f64> = finite.map(|bucket| bucket.cumulative_count() as f64).collect();
    values.push(histogram.get_sample_count() as f64);
    values.push(histogram.get_sample_sum());
    (bounds, values)
}

fn summary(summary: &proto::Summary) -> (Vec<f64>, Vec<f64>) {
    let quantiles = summary.get_quantile();
    let bounds = quantiles.iter().map(proto::Quantile::quantile).collect();
    let mut values: Vec<f64> = quantiles.iter().map(proto::Quantile::value).collect();
    values.push(summary.sample_count() as f64);
    values.push(summary.sample_sum());
    (bounds, values)
}

fn are_bounds(kind: MetricType, bounds: &[f64]) -> bool {
    let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    let within = bounds.iter().all(|bound| match kind {
        MetricType::Summary => (0.0..=1.0).contains(bound),
        _ => bound.is_finite(),
    });
    rising && within
}

fn is_name(name: &str, colons: bool) -> bool {
    let mut bytes = name.bytes();
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || (colons && byte == b':');
    bytes.next().is_some_and(first) && bytes.all(|byte| first(byte) || byte.is_ascii_digit())
}

fn counter(counter: &proto::Counter) -> f64 {
    counter.value()
}

fn gauge(gauge: &proto::Gauge) -> f64 {
    gauge.value()
}

/// The accessor of a counter's or gauge's value is `get_value` in the `prometheus` crate without its `protobuf`
/// feature, and `value` with it. Cargo unifies the feature with the bot's own choice, so both must compile: an inherent
/// method wins over a trait's, so the one that exists answers for the other.
#[allow(dead_code, reason = "which of the two is called depends on a dependency's feature")]
trait EitherAccessor {
    fn get_value(&self) -> f64;
    fn value(&self) -> f64;
}

impl EitherAccessor for proto::Counter {
    fn get_value(&self) -> f64 {
        self.value()
    }

    fn value(&self) -> f64 {
        self.get_value()
    }
}

impl EitherAccessor for proto::Gauge {
    fn get_value(&self) -> f64 {
        self.value()
    }

    fn value(&self) -> f64 {
        self.get_value()
    }
}
