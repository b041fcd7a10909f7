//! The manager's own families: those it keeps of each shard, and those of its `prometheus` registry.

use prometheus::proto;

use crate::{
    clock::UnixTime,
    model::{Bounds, LabelSet, MetricType},
    registry::{Reason, SeriesView, ShardState, ShardSummary, Transport},
};

/// A family that the manager itself exposes.
#[derive(Debug, Clone)]
pub struct OwnFamily {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: MetricType,
    /// Its help text.
    pub help: String,
    /// Its series.
    pub series: Vec<OwnSeries>,
}

/// A series of an [`OwnFamily`].
#[derive(Debug, Clone)]
pub struct OwnSeries {
    /// The shard it is about, if any.
    pub shard_id: Option<u32>,
    /// Other labels.
    pub labels: LabelSet,
    /// Its buckets.
    pub bounds: Bounds,
    /// Its values.
    pub values: Vec<f64>,
}

impl OwnSeries {
    pub(super) fn view(&self) -> SeriesView<'_> {
        SeriesView {
            labels: self.labels.as_str(),
            bounds: &self.bounds,
            values: &self.values,
            created: None,
            owned: true,
            exemplars: &[],
        }
    }
}

/// The families the manager keeps of every shard (design section 6): name, type, help.
pub(super) const OF_SHARDS: [(&str, MetricType, &str); 5] = [
    (
        "shard_up",
        MetricType::Gauge,
        "Whether the shard reported within stale-after (1) or not (0).",
    ),
    (
        "shard_last_report_timestamp_seconds",
        MetricType::Gauge,
        "When the shard's last report was applied, by the manager's clock.",
    ),
    (
        "shard_instance_start_timestamp_seconds",
        MetricType::Gauge,
        "When the shard's newest instance began to count, by its own clock.",
    ),
    (
        "shard_reports_total",
        MetricType::Counter,
        "Reports of the shard that were applied, by transport.",
    ),
    (
        "shard_rejected_samples_total",
        MetricType::Counter,
        "Samples of the shard that were not applied, by reason.",
    ),
];

/// Names that shards cannot report, and their types: the manager's own.
pub fn reserved(own: &[OwnFamily]) -> Vec<(String, MetricType)> {
    let of_shards = OF_SHARDS.iter().map(|(name, kind, _)| ((*name).to_owned(), *kind));
    of_shards.chain(own.iter().map(|f| (f.name.clone(), f.kind))).collect()
}

/// What the manager keeps of a shard: the family, by its place in [`OF_SHARDS`], and the labels of each series.
#[derive(Debug)]
pub(super) struct OfShards([(usize, LabelSet); SERIES_OF_SHARD]);

/// Series the manager keeps of a shard.
const SERIES_OF_SHARD: usize = 3 + Transport::ALL.len() + Reason::COUNTED.len();

impl OfShards {
    pub(super) fn new() -> Self {
        let plain = [0, 1, 2].map(|family| (family, LabelSet::default()));
        let reports = Transport::ALL.map(|t| (3, label("transport", t.as_str())));
        let rejected = Reason::COUNTED.map(|r| (4, label("reason", r.as_str())));
        let mut all = plain.into_iter().chain(reports).chain(rejected);
        Self(std::array::from_fn(|_| all.next().unwrap_or_default()))
    }

    /// Family and labels of each series.
    pub(super) fn series(&self) -> impl Iterator<Item = (usize, &LabelSet)> {
        self.0.iter().map(|(family, labels)| (*family, labels))
    }
}

/// The values of [`OfShards::series`], as far as they are exposed.
pub(super) type ValuesOfShard = [Option<f64>; SERIES_OF_SHARD];

/// What the manager keeps of this shard.
pub(super) fn of_shard(shard: &ShardSummary) -> ValuesOfShard {
    let up = if shard.state == ShardState::Up { 1.0 } else { 0.0 };
    let plain = [
        Some(up),
        shard.last_report.map(UnixTime::as_secs_f64),
        shard.started_at.map(UnixTime::as_secs_f64),
    ];
    let reports = shard.reports.map(|(_, n)| (n > 0).then_some(n as f64));
    // From zero, so that `increase()` sees the first.
    let rejected = shard.rejected.map(|(_, n)| shard.last_report.map(|_| n as f64));
    let mut all = plain.into_iter().chain(reports).chain(rejected);
    std::array::from_fn(|_| all.next().flatten())
}

/// What the manager keeps of every shard.
pub(super) fn of_shards(shards: &[ShardSummary]) -> Vec<OwnFamily> {
    let mut families = OF_SHARDS.map(|(name, kind, help)| OwnFamily {
        name: name.to_owned(),
        kind,
        help: help.to_owned(),
        series: Vec::new(),
    });
    let kept = OfShards::new();
    for shard in shards {
        for ((family, labels), value) in kept.series().zip(of_shard(shard)) {
            if let (Some(family), Some(value)) = (families.get_mut(family), value) {
                family.series.push(OwnSeries {
                    shard_id: Some(shard.id),
                    labels: labels.clone(),
                    bounds: Bounds::none(),
                    values: vec![value],
                });
            }
        }
    }
    families.into_iter().filter(|f| !f.series.is_empty()).collect()
}

fn label(name: &str, value: &str) -> LabelSet {
    // The names are literals of this module, so they are valid.
    LabelSet::canonical([(name, value)], 0, None).unwrap_or_default()
}

impl From<&proto::MetricFamily> for OwnFamily {
    fn from(family: &proto::MetricFamily) -> Self {
        let kind = match family.get_field_type() {
            proto::MetricType::COUNTER => MetricType::Counter,
            proto::MetricType::GAUGE => MetricType::Gauge,
            proto::MetricType::HISTOGRAM => MetricType::Histogram,
            proto::MetricType::SUMMARY => MetricType::Summary,
            proto::MetricType::UNTYPED => MetricType::Untyped,
        };
        let series = family.get_metric().iter().map(|metric| own_series(kind, metric)).collect();
        Self { name: family.name().to_owned(), kind, help: family.help().to_owned(), series }
    }
}

fn own_series(kind: MetricType, metric: &proto::Metric) -> OwnSeries {
    let labels = metric.get_label().iter().map(|pair| (pair.name(), pair.value()));
    let labels = LabelSet::canonical(labels, u32::MAX, None).unwrap_or_default();
    let mut bounds = Vec::new();
    let values = match kind {
        MetricType::Counter => vec![metric.get_counter().get_value()],
        MetricType::Gauge | MetricType::Untyped => vec![metric.get_gauge().get_value()],
        MetricType::Histogram | MetricType::Summary => {
            let histogram = metric.get_histogram();
            let mut values = Vec::new();
            for bucket in histogram.get_bucket().iter().filter(|b| b.upper_bound().is_finite()) {
                bounds.push(bucket.upper_bound());
                values.push(bucket.cumulative_count() as f64);
            }
            values.extend([histogram.get_sample_count() as f64, histogram.get_sample_sum()]);
            values
        }
    };
    let bounds = Bounds::new(&bounds).unwrap_or_else(|_| Bounds::none());
    OwnSeries { shard_id: None, labels, bounds, values }
}
