//! The manager's own families: those it keeps of each shard, and those of its `prometheus` registry.

use prometheus::proto;

use crate::{
    model::{Bounds, LabelSet, MetricType},
    registry::{ShardState, ShardStatus},
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

/// The families the manager keeps of every shard (design section 6): name, type, help.
const OF_SHARDS: [(&str, MetricType, &str); 5] = [
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

/// What the manager keeps of every shard.
pub(super) fn of_shards(shards: &[ShardStatus]) -> Vec<OwnFamily> {
    let mut families = OF_SHARDS.map(|(name, kind, help)| OwnFamily {
        name: name.to_owned(),
        kind,
        help: help.to_owned(),
        series: Vec::new(),
    });
    let [up, last_report, started, reports, rejected] = &mut families;
    for shard in shards {
        let series = |labels: LabelSet, value: f64| OwnSeries {
            shard_id: Some(shard.id),
            labels,
            bounds: Bounds::none(),
            values: vec![value],
        };
        let alive = shard.state == ShardState::Up;
        up.series.push(series(LabelSet::default(), if alive { 1.0 } else { 0.0 }));
        if let Some(at) = shard.last_report {
            last_report.series.push(series(LabelSet::default(), at.as_secs_f64()));
        }
        if let Some(at) = shard.instances.last().and_then(|i| i.started_at) {
            started.series.push(series(LabelSet::default(), at.as_secs_f64()));
        }
        for (transport, count) in shard.reports.iter().filter(|(_, n)| *n > 0) {
            reports.series.push(series(label("transport", transport.as_str()), *count as f64));
        }
        // From zero, so that `increase()` sees the first.
        for (reason, count) in shard.rejected.iter().filter(|_| shard.last_report.is_some()) {
            rejected.series.push(series(label("reason", reason.as_str()), *count as f64));
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
