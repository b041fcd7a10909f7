//! The workload of the benchmarks, in the manager's model: what one shard reports is written once, in `bench/`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

#[path = "../../bench/src/workload.rs"]
mod shape;

use std::sync::Arc;

use shardmeter_manager::{
    clock::UnixTime,
    model::{Bounds, FamilyHead, LabelSet, MetricType, Samples},
    registry::{
        FamilyDefinition, Frame, FrameKind, Hello, Outcome, Registry, SeriesDefinition, Settings,
        Writer,
    },
};

pub(crate) use shape::SERIES_PER_SHARD;
use shape::{Family, Kind, families};

pub struct Fleet {
    pub registry: Arc<Registry>,
    pub shards: Vec<Shard>,
}

/// One shard's stream, and its values as its client would send them.
pub struct Shard {
    writer: Writer,
    sequence: u64,
    ids: Vec<u32>,
    /// First value of each id, and one past the last.
    starts: Vec<usize>,
    values: Vec<f64>,
}

pub fn now() -> UnixTime {
    UnixTime::from_secs_f64(1_800_000_000.0)
}

pub fn fleet(shards: u32) -> Fleet {
    fleet_on(Arc::new(Registry::new(Settings::default(), [])), shards)
}

/// A fleet that reports to this registry.
pub fn fleet_on(registry: Arc<Registry>, shards: u32) -> Fleet {
    let shards = (0..shards).map(|id| Shard::join(&registry, id, shards)).collect();
    Fleet { registry, shards }
}

impl Shard {
    fn join(registry: &Registry, shard_id: u32, shard_count: u32) -> Self {
        Self::join_with(registry, shard_id, shard_count, families(shard_id))
    }

    /// A shard of a bot in many guilds: `guilds` counters.
    pub fn of_guilds(registry: &Registry, guilds: u32) -> Self {
        let series = (0..guilds).map(|n| {
            let guild = (u64::from(n) * 7919 + (1 << 60)).to_string();
            vec![("command_name", "ping".to_owned()), ("guild_id", guild)]
        });
        let family = Family {
            name: "commands_executed_total",
            help: "",
            kind: Kind::Counter,
            series: series.collect(),
        };
        Self::join_with(registry, 0, 1, vec![family])
    }

    fn join_with(
        registry: &Registry,
        shard_id: u32,
        shard_count: u32,
        families: Vec<Family>,
    ) -> Self {
        let mut instance_id = [0; 16];
        instance_id[..4].copy_from_slice(&shard_id.to_be_bytes());
        let hello =
            Hello { shard_id, shard_count, instance_id, started_at: now(), client: "bench" };
        let mut writer = registry.attach(hello, now()).unwrap().writer;
        let mut next = 0;
        let mut starts = vec![0];
        for Family { name, help, kind, series } in families {
            let bounds = kind.bounds();
            let series: Vec<_> = (next..)
                .zip(series)
                .map(|(id, labels)| SeriesDefinition {
                    id,
                    labels: LabelSet::canonical(
                        labels.iter().map(|(n, v)| (*n, v.as_str())),
                        shard_id,
                        None,
                    )
                    .unwrap(),
                    bounds: Bounds::new(bounds).unwrap(),
                })
                .collect();
            for _ in &series {
                starts.push(starts.last().unwrap() + kind.width());
            }
            next += series.len() as u32;
            let kind = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let head = FamilyHead { name, kind, help, unit: "" };
            let definition = FamilyDefinition { head, series };
            registry.define(&mut writer, definition, now()).unwrap();
        }
        let mut shard = Self {
            writer,
            sequence: 0,
            ids: (0..next).collect(),
            values: vec![0.0; *starts.last().unwrap()],
            starts,
        };
        shard.report(FrameKind::Snapshot, usize::MAX);
        shard
    }

    /// Advances the first `changed` series by one and applies them as a frame.
    pub fn report(&mut self, kind: FrameKind, changed: usize) {
        self.sequence += 1;
        let ids = self.ids.get(..changed).unwrap_or(&self.ids);
        let values = &mut self.values[..self.starts[ids.len()]];
        values.iter_mut().for_each(|v| *v += 1.0);
        let samples = Samples { ids, values };
        let removed = Samples::default();
        let frame = Frame { kind, sequence: self.sequence, samples, removed, exemplars: &[] };
        assert!(matches!(self.writer.apply(frame, now()), Ok(Outcome::Applied(_))));
    }

    /// Advances one in ten series, others each time, and applies them as a frame.
    pub fn report_scattered(&mut self, turn: usize) {
        self.sequence += 1;
        let (mut ids, mut values) = (Vec::new(), Vec::new());
        for id in self.ids.iter().skip(turn % 10).step_by(10) {
            let slots = self.starts[*id as usize]..self.starts[*id as usize + 1];
            self.values[slots.clone()].iter_mut().for_each(|v| *v += 1.0);
            ids.push(*id);
            values.extend_from_slice(&self.values[slots]);
        }
        let samples = Samples { ids: &ids, values: &values };
        let frame = Frame {
            kind: FrameKind::Delta,
            sequence: self.sequence,
            samples,
            removed: Samples::default(),
            exemplars: &[],
        };
        assert!(matches!(self.writer.apply(frame, now()), Ok(Outcome::Applied(_))));
    }

    /// How many values a frame of `changed` series has.
    pub fn values_of(&self, changed: usize) -> usize {
        self.starts[changed.min(self.ids.len())]
    }
}
