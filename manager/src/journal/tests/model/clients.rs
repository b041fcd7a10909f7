//! Who reports on streams, and what the manager must answer.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Body, Kind,
    counted::{Counted, labels},
    expected::{
        BOUNDS, COUNTERS, CROWD, GAUGE, HISTOGRAM, Report, SHARD_COUNT, SHARDS, Said, Step,
    },
    world::World,
};
use crate::{
    clock::UnixTime,
    model::{Bounds, FamilyHead, LabelSet, MetricType, Samples},
    registry::{
        AttachError, FamilyDefinition, Frame, FrameError, FrameKind, Hello, InstanceKey,
        NotApplied, Outcome, Registry, SeriesDefinition, Transport, Writer,
    },
};

/// gRPC clients; client `n` is one of shard `n % SHARDS`.
pub(super) const CLIENTS: usize = 4;
/// A process with a registry that a client sends.
pub(super) struct Client {
    shard: usize,
    instance_id: u32,
    started_at: UnixTime,
    counted: Counted,
    /// What it counted before the instance began (an instance before it was closed there).
    base: Counted,
    /// What the manager was told last, and with each frame that may have been applied.
    told: Counted,
    told_at: BTreeMap<u64, Counted>,
    /// The next frame's number, if it is not a delta right after the last applied.
    sequence: u64,
    bounds: usize,
    /// Open streams, the newest last, and whether each had its snapshot.
    streams: Vec<(Writer, bool)>,
}

impl Client {
    pub(super) fn all() -> Vec<Self> {
        (0..CLIENTS)
            .map(|n| Self::new(n % SHARDS as usize, n as u32, UnixTime::default()))
            .collect()
    }

    fn new(shard: usize, instance_id: u32, started_at: UnixTime) -> Self {
        Self {
            shard,
            instance_id,
            started_at,
            counted: Counted::default(),
            base: Counted::default(),
            told: Counted::default(),
            told_at: BTreeMap::new(),
            sequence: 1,
            bounds: 0,
            streams: Vec::new(),
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.streams.clear();
    }

    fn key(&self) -> InstanceKey {
        InstanceKey::Id(self.id())
    }

    fn id(&self) -> [u8; 16] {
        u128::from(self.instance_id).to_le_bytes()
    }

    fn hello(&self) -> Hello<'static> {
        Hello {
            shard_id: self.shard as u32,
            shard_count: SHARD_COUNT + self.instance_id % 2,
            instance_id: self.id(),
            started_at: self.started_at,
            client: "test 1",
        }
    }

    /// The instance was closed at a frame: a new one goes on from the values it had there.
    fn go_on_after(&mut self, closed_at: u64, instance_id: u32) {
        self.base = self.told_at.get(&closed_at).copied().unwrap_or(self.base);
        (self.told, self.told_at) = (self.base, BTreeMap::new());
        (self.instance_id, self.sequence) = (instance_id, 1);
        self.streams.clear();
    }
}

impl World {
    /// The process ends without a word and another takes its place; its streams end with it.
    pub(super) fn restart_client(&mut self, n: usize) {
        let id = CLIENTS as u32 + self.new_name();
        self.clients[n] = Client::new(self.clients[n].shard, id, self.now);
    }

    pub(super) fn open(&mut self, n: usize, bounds: usize) {
        let (now, registry) = (self.now, self.registry());
        let client = &mut self.clients[n];
        let (shard, key) = (client.shard, client.key());
        let (mut closed_at, mut last_sequence) = (None, 0);
        {
            let mut kept = self.kept.lock();
            match kept.model.shards[shard].find(&key) {
                Some((_, told)) => {
                    last_sequence = told.sequence;
                    closed_at = (told.closed || told.folded).then_some(told.sequence);
                }
                None => {
                    client.streams.clear(); // if there are any, they are of an instance that was forgotten
                    let count = client.hello().shard_count;
                    if kept.model.shard_count != count {
                        kept.plan.push_back(Step::ShardCount(count));
                    }
                    kept.plan.push_back(Step::Join { shard, key, at: now });
                }
            }
        }
        let attached = match registry.attach(client.hello(), now) {
            Ok(attached) => attached,
            Err(error) => {
                assert_eq!(error, AttachError::TooManyInstances(shard as u32));
                let mut kept = self.kept.lock();
                assert!(kept.model.shards[shard].waiting() >= CROWD);
                return kept.plan.clear();
            }
        };
        assert_eq!((attached.last_sequence, attached.closed_at), (last_sequence, closed_at));
        let id = CLIENTS as u32 + self.new_name();
        let client = &mut self.clients[n];
        if let Some(closed_at) = closed_at {
            return client.go_on_after(closed_at, id);
        }
        client.sequence = client.sequence.max(last_sequence + 1);
        client.bounds = bounds;
        let mut writer = attached.writer;
        define(&registry, &mut writer, bounds, now);
        client.streams.push((writer, false));
    }

    pub(super) fn frame(&mut self, n: usize, older: bool, kind: Kind, body: &Body) {
        let now = self.now;
        let client = &mut self.clients[n];
        let Some(last) = client.streams.len().checked_sub(1) else {
            return;
        };
        let at = if older { 0 } else { last };
        let newest = at == last;
        let (shard, key) = (client.shard, client.key());
        let Some((writer, has_snapshot)) = client.streams.get_mut(at) else {
            return;
        };
        client.counted.count(body);
        let mut kept = self.kept.lock();
        let (instance, told) = kept.model.shards[shard].find_any(&key).unwrap();
        let ended = if told.closed || told.folded {
            Some(FrameError::Closed)
        } else {
            (!newest).then_some(FrameError::Superseded)
        };
        let last = told.sequence;
        if let Kind::Goodbye | Kind::GoodbyeTooLate = kind {
            let late = matches!(kind, Kind::GoodbyeTooLate);
            if ended.is_none() && !late {
                kept.plan.push_back(Step::Close { shard, instance, at: now });
            }
            drop(kept);
            let said = writer.goodbye(last + u64::from(late), now);
            return assert_eq!(said, ended.map_or(Ok(!late), Err));
        }
        let snapshot =
            matches!(kind, Kind::Snapshot) || matches!(kind, Kind::Duplicate) && body.more[0] > 2;
        let sequence = match kind {
            Kind::Snapshot => client.sequence + u64::from(body.more[0]),
            Kind::Duplicate => last,
            Kind::Gap => last + 2 + u64::from(body.more[1]),
            _ => last + 1,
        };
        let mut said = client.counted.since(&client.base).said(body, client.bounds);
        let fell = matches!(kind, Kind::Falls) && told.said.counters[0] > Some(0.0);
        if fell {
            said.counters[0] = Some(0.0);
        }
        let columns =
            Columns::new(&said, matches!(kind, Kind::Removed), matches!(kind, Kind::UndefinedId));
        let refused = match ended {
            Some(error) => Some(Err(error)),
            None => refusal(kind, snapshot, *has_snapshot, sequence, last),
        };
        if refused.is_none() && !fell {
            client.told.update(&client.counted, body);
            client.told_at.insert(sequence, client.told);
            client.sequence = client.sequence.max(sequence + 1);
            let report = Report {
                at: now,
                transport: Transport::Grpc,
                sequence,
                whole: snapshot,
                removed: matches!(kind, Kind::Removed),
                run: None,
                interval: Duration::ZERO,
                said,
            };
            kept.plan.push_back(Step::Report { shard, instance, report });
        }
        drop(kept);
        let frame = Frame {
            kind: if snapshot { FrameKind::Snapshot } else { FrameKind::Delta },
            sequence,
            samples: columns.samples.as_samples(),
            removed: columns.removed.as_samples(),
            exemplars: &[],
        };
        match (writer.apply(frame, now), refused) {
            (outcome, Some(refused)) => assert_eq!(outcome, refused, "{kind:?} {sequence}"),
            (Err(FrameError::Bad { .. }), None) => assert!(fell),
            (Ok(Outcome::Applied(applied)), None) => {
                assert!(!fell && applied.rejected.is_empty());
                *has_snapshot |= snapshot;
                self.check_durable(applied.durable);
            }
            (outcome, None) => panic!("{outcome:?}"),
        }
    }

    /// What is said to be durable is.
    pub(super) fn check_durable(&self, durable: bool) {
        assert_eq!(durable, self.is_durable());
    }

    /// Every client comes back on a new stream and says everything; returns what they say together, by what is exposed.
    pub(super) fn all_report(&mut self) -> BTreeMap<String, f64> {
        let (now, registry) = (self.now, self.registry());
        let body =
            Body { more: [0; 3], observed: [0; 4], names: [true; 4], gauge: Some(1), bounds: 0 };
        let mut all = BTreeMap::new();
        for n in 0..CLIENTS {
            let id = CLIENTS as u32 + self.new_name();
            let client = &mut self.clients[n];
            let mut attached = match registry.attach(client.hello(), now) {
                Err(AttachError::TooManyInstances(_)) => continue,
                attached => attached.unwrap(),
            };
            if let Some(closed_at) = attached.closed_at {
                client.go_on_after(closed_at, id);
                attached = registry.attach(client.hello(), now).unwrap();
                assert_eq!((attached.last_sequence, attached.closed_at), (0, None));
            }
            let mut writer = attached.writer;
            define(&registry, &mut writer, client.bounds, now);
            let said = client.counted.since(&client.base).said(&body, client.bounds);
            client.sequence = client.sequence.max(attached.last_sequence + 1);
            client.told = client.counted;
            client.told_at.insert(client.sequence, client.told);
            let columns = Columns::new(&said, false, false);
            let samples = columns.samples.as_samples();
            let removed = Samples::default();
            let frame = Frame {
                kind: FrameKind::Snapshot,
                sequence: client.sequence,
                samples,
                removed,
                exemplars: &[],
            };
            assert!(matches!(writer.apply(frame, now), Ok(Outcome::Applied(_))));
            client.sequence += 1;
            client.streams.push((writer, true));
            let count = said.counters[0].unwrap_or_default();
            *all.entry(first_counter(client.shard)).or_default() += count;
        }
        all
    }

    /// Every client of shard 0 that can sends a frame.
    pub(super) fn deltas_of_shard_0(&mut self) {
        let body =
            Body { more: [1; 3], observed: [1; 4], names: [true; 4], gauge: Some(1), bounds: 0 };
        for n in (0..CLIENTS).step_by(SHARDS as usize) {
            self.frame(n, false, Kind::Delta, &body);
        }
    }
}

/// As what the first counter of a shard is exposed.
pub(super) fn first_counter(shard: usize) -> String {
    format!("{}{{{}}}@{shard}", COUNTERS[0].0, labels(0).as_str())
}

const UNDEFINED: u32 = 99;

/// What is said of a frame that cannot be applied, on a stream that may write an instance with `last` as its last
/// sequence.
fn refusal(
    kind: Kind,
    snapshot: bool,
    has_snapshot: bool,
    sequence: u64,
    last: u64,
) -> Option<Result<Outcome, FrameError>> {
    if sequence == 0 {
        return Some(Err(FrameError::SequenceZero));
    }
    if sequence <= last {
        return Some(Ok(Outcome::Duplicate));
    }
    let problem = if !snapshot && !has_snapshot {
        NotApplied::NoSnapshotYet
    } else if !snapshot && sequence != last + 1 {
        NotApplied::Gap { expected: last + 1, got: sequence }
    } else if matches!(kind, Kind::UndefinedId) {
        NotApplied::UndefinedId(UNDEFINED)
    } else {
        return None;
    };
    Some(Ok(Outcome::NotApplied(problem)))
}

/// Introduces all series: the counters, the gauge, the histogram.
fn define(registry: &Registry, writer: &mut Writer, bounds: usize, now: UnixTime) {
    let mut one = |kind, name, labels, bounds: &[f64]| {
        let id = writer.ids() as u32;
        let series = vec![SeriesDefinition { id, labels, bounds: Bounds::new(bounds).unwrap() }];
        let head = FamilyHead { name, kind, help: "", unit: "" };
        registry.define(writer, FamilyDefinition { head, series }, now).unwrap();
    };
    for (i, (name, _)) in COUNTERS.iter().enumerate() {
        one(MetricType::Counter, name, labels(i), &[]);
    }
    one(MetricType::Gauge, GAUGE, LabelSet::default(), &[]);
    one(MetricType::Histogram, HISTOGRAM, LabelSet::default(), BOUNDS[bounds]);
}

#[derive(Default)]
struct Column {
    ids: Vec<u32>,
    values: Vec<f64>,
}

impl Column {
    fn as_samples(&self) -> Samples<'_> {
        Samples { ids: &self.ids, values: &self.values }
    }
}

/// A frame's samples by id: the counters, the gauge, the histogram.
#[derive(Default)]
struct Columns {
    samples: Column,
    removed: Column,
}

impl Columns {
    /// `removed`: the first counter, the gauge and the histogram leave, as far as they are named.
    fn new(said: &Said, removed: bool, undefined: bool) -> Self {
        let mut columns = Self::default();
        let mut push = |id: usize, values: &[f64], may_leave: bool| {
            let column =
                if removed && may_leave { &mut columns.removed } else { &mut columns.samples };
            column.ids.push(id as u32);
            column.values.extend_from_slice(values);
        };
        for (id, count) in said.counters.iter().enumerate() {
            if let Some(count) = count {
                push(id, &[*count], id == 0);
            }
        }
        if let Some(gauge) = said.gauge.or(removed.then_some(0.0)) {
            push(COUNTERS.len(), &[gauge], true);
        }
        if let Some(buckets) = &said.histogram {
            push(COUNTERS.len() + 1, &buckets.values, true);
        }
        if undefined {
            push(UNDEFINED as usize, &[1.0], false);
        }
        columns
    }
}
