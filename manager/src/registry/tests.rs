//! The registry alone, driven through its public surface with times that are passed in.

mod anonymous;
mod bounds;
mod escaped;
mod events;
mod exemplars;
mod explain;
mod groups;
mod overflow;
mod posts;
mod rejects;
mod retired;
mod rules;
mod status;
mod streams;

use std::collections::BTreeMap;

use super::*;
use crate::{
    exposition::{self, Format},
    model::{Bounds, FamilyHead, LabelSet, Samples},
};

pub(crate) const COUNTER: MetricType = MetricType::Counter;
pub(crate) const GAUGE: MetricType = MetricType::Gauge;
pub(crate) const HISTOGRAM: MetricType = MetricType::Histogram;
pub(crate) const SUMMARY: MetricType = MetricType::Summary;

/// Longer than `stale_after` of the default settings.
pub(crate) const STALE: u64 = 31;
/// Longer than an instance may be silent before it is folded.
pub(crate) const DEAD: u64 = 3601;

pub(crate) fn registry() -> Registry {
    Registry::new(Settings::default(), [])
}

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::from_duration(Duration::from_secs(1_700_000_000 + seconds))
}

pub(crate) fn labels(pairs: &[(&str, &str)], shard_id: u32) -> LabelSet {
    LabelSet::canonical(pairs.iter().copied(), shard_id, None).unwrap()
}

/// Label names and values.
pub(crate) type Pairs<'a> = &'a [(&'a str, &'a str)];
/// Ids or labels, and values.
pub(crate) type Values<'a, T> = &'a [(T, &'a [f64])];

/// One stream of one instance, as a client would run it.
pub(crate) struct Stream<'r> {
    pub(crate) registry: &'r Registry,
    pub(crate) shard_id: u32,
    /// When it began, and defines.
    now: UnixTime,
    pub(crate) writer: Writer,
}

/// Instance `instance` says Hello for `shard_id` of `shard_count` shards.
pub(crate) fn attach(
    registry: &Registry,
    shard_id: u32,
    shard_count: u32,
    instance: u8,
    now: UnixTime,
) -> Result<Attached, AttachError> {
    let hello = Hello {
        shard_id,
        shard_count,
        instance_id: [instance; 16],
        started_at: now,
        client: "test 1",
    };
    registry.attach(hello, now)
}

/// A stream of `instance` of shard 0 of 1.
pub(crate) fn open(registry: &Registry, instance: u8, now: UnixTime) -> Stream<'_> {
    open_shard(registry, 0, instance, now)
}

pub(crate) fn open_shard(
    registry: &Registry,
    shard_id: u32,
    instance: u8,
    now: UnixTime,
) -> Stream<'_> {
    let writer = attach(registry, shard_id, 2, instance, now).unwrap().writer;
    Stream { registry, shard_id, now, writer }
}

impl Stream<'_> {
    pub(crate) fn define_bounded(
        &mut self,
        kind: MetricType,
        name: &str,
        pairs: &[(&str, &str)],
        bounds: &[f64],
    ) -> u32 {
        let id = self.writer.ids() as u32;
        let series = vec![SeriesDefinition {
            id,
            labels: labels(pairs, self.shard_id),
            bounds: Bounds::new(bounds).unwrap(),
        }];
        let head = FamilyHead { name, kind, help: "", unit: "" };
        let definition = FamilyDefinition { head, series };
        self.registry.define(&mut self.writer, definition, self.now).unwrap();
        id
    }

    pub(crate) fn define(&mut self, kind: MetricType, name: &str, pairs: &[(&str, &str)]) -> u32 {
        self.define_bounded(kind, name, pairs, &[])
    }

    pub(crate) fn send(
        &mut self,
        kind: FrameKind,
        sequence: u64,
        samples: &[(u32, &[f64])],
        removed: &[(u32, &[f64])],
        now: UnixTime,
    ) -> Result<Outcome, FrameError> {
        let columns = |samples: &[(u32, &[f64])]| -> (Vec<u32>, Vec<f64>) {
            (
                samples.iter().map(|(id, _)| *id).collect(),
                samples.iter().flat_map(|(_, values)| *values).copied().collect(),
            )
        };
        let (samples, removed) = (columns(samples), columns(removed));
        let frame = Frame {
            kind,
            sequence,
            samples: Samples { ids: &samples.0, values: &samples.1 },
            removed: Samples { ids: &removed.0, values: &removed.1 },
            exemplars: &[],
        };
        self.writer.apply(frame, now)
    }

    pub(crate) fn snapshot(
        &mut self,
        sequence: u64,
        samples: &[(u32, &[f64])],
        now: UnixTime,
    ) -> Result<Outcome, FrameError> {
        self.send(FrameKind::Snapshot, sequence, samples, &[], now)
    }

    pub(crate) fn delta(
        &mut self,
        sequence: u64,
        samples: &[(u32, &[f64])],
        now: UnixTime,
    ) -> Result<Outcome, FrameError> {
        self.send(FrameKind::Delta, sequence, samples, &[], now)
    }
}

fn applied(samples: usize) -> Result<Outcome, FrameError> {
    Ok(Outcome::Applied(Applied { samples, rejected: Vec::new(), durable: false }))
}

/// What is exposed: `name{labels}@shard` and its values.
pub(crate) fn exposed(registry: &Registry, now: UnixTime) -> BTreeMap<String, Vec<f64>> {
    let mut exposed = BTreeMap::new();
    registry.visit(now, |shard| {
        for (family, series) in shard.families() {
            for one in series {
                let key = format!("{}{{{}}}@{}", family.name, one.labels, shard.id());
                let owned = if one.owned { 0 } else { family.kind.owned(one.bounds.len()) };
                let twice = exposed.insert(key, one.values[owned..].to_vec());
                assert_eq!(twice, None, "a series is exposed twice");
            }
        }
    });
    exposed
}

/// The values of the one series with this key.
pub(crate) fn value(registry: &Registry, key: &str, now: UnixTime) -> Option<Vec<f64>> {
    exposed(registry, now).remove(key)
}

/// The whole page, to see that nothing changed at all.
pub(crate) fn page(registry: &Registry, now: UnixTime) -> String {
    let page = exposition::render(registry, &[], now, Format::TEXT);
    String::from_utf8(page.to_vec()).unwrap()
}

/// A body of one family, as an HTTP sender of shard 0 posts it.
pub(crate) fn family(
    kind: MetricType,
    name: &str,
    series: Values<'_, Pairs<'_>>,
) -> ReportedFamily {
    ReportedFamily {
        name: name.into(),
        kind,
        help: String::new(),
        unit: String::new(),
        series: (1..)
            .zip(series)
            .map(|(line, (pairs, values))| ReportedSeries {
                labels: labels(pairs, 0),
                bounds: Bounds::none(),
                values: values.to_vec(),
                exemplars: Vec::new(),
                place: BodyPlace::Line(line),
            })
            .collect(),
    }
}

pub(crate) fn named(name: &str) -> InstanceKey {
    InstanceKey::Named(name.into())
}

pub(crate) fn post(
    registry: &Registry,
    sender: InstanceKey,
    families: &[ReportedFamily],
    now: UnixTime,
) -> Result<Applied, ReportError> {
    match registry.report(&[report(sender, families)], now)?.remove(0) {
        Outcome::Applied(applied) => Ok(applied),
        other => panic!("{other:?}"),
    }
}

/// A report of shard 0 that says nothing of itself.
pub(crate) fn report(sender: InstanceKey, families: &[ReportedFamily]) -> Report<'_> {
    let scope = Scope::Everything;
    Report {
        shard_id: 0,
        sender,
        sequence: None,
        started_at: None,
        interval: None,
        scope,
        families,
    }
}
