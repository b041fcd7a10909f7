//! Random interleavings of everything that can happen to two shards, against a model that is short enough to believe: an
//! instance is a map of its series to the last applied value, an exposed count is the sum over all instances ever, a
//! gauge is the newest living instance's.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SHARDS: u32 = 2;
/// gRPC clients; client `n` is one of shard `n % SHARDS`.
const CLIENTS: usize = 4;
/// HTTP senders: of each shard two with names, and one without.
const SENDERS: usize = 6;
const COUNTERS: [&str; 2] = ["a_total", "b_total"];
const GAUGE_NAME: &str = "g";

/// Something happens.
#[derive(Debug, Clone)]
enum Event {
    /// A client opens a stream and defines its series; an older stream of it stays as it is.
    Open(usize),
    /// A client's process is replaced: a new instance, counting from 0.
    Restart(usize),
    /// A client counts and sends a frame on its newest stream, or an older one.
    Frame {
        client: usize,
        older: bool,
        kind: Kind,
        more: [u8; 2],
        gauge: Option<i8>,
    },
    /// An HTTP sender posts; `reset` starts some counters anew first.
    Post {
        sender: usize,
        reset: [bool; 2],
        more: [u8; 2],
        gauge: Option<i8>,
        repeat: bool,
    },
    Pass(u64),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Snapshot,
    Delta,
    /// Counters and gauge leave, with their final values.
    Removed,
    Duplicate,
    Gap,
    UndefinedId,
    Falls,
    Goodbye,
    GoodbyeTooLate,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    use Kind::{
        Delta, Duplicate, Falls, Gap, Goodbye, GoodbyeTooLate, Removed, Snapshot, UndefinedId,
    };
    let more = || [0..5_u8, 0..5_u8];
    let gauge = || prop::option::weighted(0.7, any::<i8>());
    let kind = prop_oneof![
        4 => Just(Snapshot), 8 => Just(Delta), 1 => Just(Removed), 1 => Just(Duplicate), 1 => Just(Gap),
        1 => Just(UndefinedId), 1 => Just(Falls), 1 => Just(Goodbye), 1 => Just(GoodbyeTooLate),
    ];
    let frame = (0..CLIENTS, prop::bool::weighted(0.1), kind, more(), gauge());
    let post = (
        0..SENDERS,
        [prop::bool::weighted(0.1), prop::bool::weighted(0.1)],
        more(),
        gauge(),
        any::<bool>(),
    );
    let event = prop_oneof![
        3 => (0..CLIENTS).prop_map(Event::Open),
        1 => (0..CLIENTS).prop_map(Event::Restart),
        12 => frame.prop_map(|(client, older, kind, more, gauge)| Event::Frame { client, older, kind, more, gauge }),
        4 => post.prop_map(|(sender, reset, more, gauge, repeat)| Event::Post { sender, reset, more, gauge, repeat }),
        3 => prop_oneof![3 => 1..20_u64, 2 => Just(STALE), 1 => Just(DEAD)].prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 1..80)
}

/// An instance as the model knows it.
#[derive(Debug, Clone, Default)]
struct Told {
    counts: [f64; 2],
    gauge: Option<f64>,
    /// When a report was last applied.
    last_report: Option<UnixTime>,
    last_sequence: u64,
    closed: bool,
}

/// All instances of a shard that ever were, in order of first Hello or post.
#[derive(Debug, Default)]
struct ModelShard(Vec<Told>);

impl ModelShard {
    fn join(&mut self) -> usize {
        self.0.push(Told::default());
        self.0.len() - 1
    }

    fn exposed(&self, shard_id: u32, now: UnixTime) -> BTreeMap<String, Vec<f64>> {
        let mut exposed = BTreeMap::new();
        if self.0.iter().any(|i| i.last_report.is_some()) {
            for (at, name) in COUNTERS.iter().enumerate() {
                let sum = self.0.iter().map(|i| i.counts[at]).sum();
                exposed.insert(format!("{name}{{}}@{shard_id}"), vec![sum]);
            }
        }
        let alive = |i: &&Told| {
            !i.closed && i.last_report.is_some_and(|at| now.since(at) <= Duration::from_secs(30))
        };
        let gauge = self.0.iter().rev().find(alive).and_then(|i| i.gauge);
        exposed.extend(gauge.map(|g| (format!("{GAUGE_NAME}{{}}@{shard_id}"), vec![g])));
        exposed
    }
}

/// A client, with what its own registry says.
struct Client<'r> {
    shard_id: u32,
    instance_id: u8,
    /// Its place in the model's shard, once it said Hello.
    told: Option<usize>,
    counts: [f64; 2],
    /// The next frame's.
    sequence: u64,
    /// Open streams, the newest last, and whether each had its snapshot.
    streams: Vec<(Stream<'r>, bool)>,
}

struct Sender {
    shard_id: u32,
    key: InstanceKey,
    told: Option<usize>,
    /// What its own registry says, and what it said before it started a counter anew.
    counts: [f64; 2],
    carried: [f64; 2],
}

struct World<'r> {
    registry: &'r Registry,
    now: UnixTime,
    shards: [ModelShard; SHARDS as usize],
    clients: Vec<Client<'r>>,
    senders: Vec<Sender>,
    names: u8,
}

impl<'r> World<'r> {
    fn new(registry: &'r Registry) -> Self {
        let shard_of = |n: usize| n as u32 % SHARDS;
        let client = |n| Client {
            shard_id: shard_of(n),
            instance_id: n as u8,
            told: None,
            counts: [0.0; 2],
            sequence: 1,
            streams: Vec::new(),
        };
        let sender = |n| Sender {
            shard_id: shard_of(n),
            key: if n < 4 { named(&format!("sender {n}")) } else { InstanceKey::Anonymous },
            told: None,
            counts: [0.0; 2],
            carried: [0.0; 2],
        };
        Self {
            registry,
            now: at(0),
            shards: Default::default(),
            clients: (0..CLIENTS).map(client).collect(),
            senders: (0..SENDERS).map(sender).collect(),
            names: 100,
        }
    }

    fn new_name(&mut self) -> u8 {
        self.names = self.names.wrapping_add(1).max(100);
        self.names
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Pass(seconds) => self.now = self.now + Duration::from_secs(seconds),
            Event::Restart(client) => self.restart(client),
            Event::Open(client) => self.open(client),
            Event::Frame { client, older, kind, more, gauge } => {
                self.frame(client, older, kind, more, gauge);
            }
            Event::Post { sender, reset, more, gauge, repeat } => {
                self.post(sender, reset, more, gauge);
                if repeat {
                    self.post(sender, [false; 2], [0; 2], gauge);
                }
            }
        }
        let exposed = exposed(self.registry, self.now);
        let expected: BTreeMap<_, _> =
            (0..).zip(&self.shards).flat_map(|(id, shard)| shard.exposed(id, self.now)).collect();
        assert_eq!(exposed, expected, "after {event:?}");
    }

    /// The process ends without a word and starts anew; its streams end with it.
    fn restart(&mut self, client: usize) {
        let instance_id = self.new_name();
        let client = &mut self.clients[client];
        client.instance_id = instance_id;
        client.told = None;
        client.counts = [0.0; 2];
        client.sequence = 1;
        client.streams.clear();
    }

    fn open(&mut self, n: usize) {
        let client = &mut self.clients[n];
        let shard = &mut self.shards[client.shard_id as usize];
        let attached =
            attach(self.registry, client.shard_id, SHARDS, client.instance_id, self.now).unwrap();
        if let Some(closed_at) = attached.closed_at {
            // The registry closed it, by its goodbye or because it was silent: what it counted up to there stays.
            let told = &mut shard.0[client.told.expect("it was never there")];
            assert_eq!(closed_at, told.last_sequence);
            told.closed = true;
            return self.restart(n);
        }
        let told = *client.told.get_or_insert_with(|| shard.join());
        assert!(!shard.0[told].closed, "a closed instance goes on");
        assert_eq!(attached.last_sequence, shard.0[told].last_sequence);
        client.sequence = attached.last_sequence + 1;
        let mut stream =
            Stream { registry: self.registry, shard_id: client.shard_id, writer: attached.writer };
        for name in COUNTERS {
            stream.define(COUNTER, name, &[]);
        }
        stream.define(GAUGE, GAUGE_NAME, &[]);
        client.streams.push((stream, false));
    }

    fn frame(&mut self, n: usize, older: bool, kind: Kind, more: [u8; 2], gauge: Option<i8>) {
        let now = self.now;
        let client = &mut self.clients[n];
        let newest = client.streams.len().wrapping_sub(1);
        let at = if older { 0 } else { newest };
        let Some((stream, has_snapshot)) = client.streams.get_mut(at) else {
            return;
        };
        let told = &mut self.shards[client.shard_id as usize].0[client.told.unwrap()];
        let counts = [0, 1].map(|i| client.counts[i] + f64::from(more[i]));
        let gauge_value = gauge.map(f64::from);
        let gauge_column = [gauge_value.unwrap_or_default()];
        let [a, b] = [[counts[0]], [counts[1]]];
        let mut samples: Vec<(u32, &[f64])> = vec![(0, &a), (1, &b)];
        if gauge.is_some() {
            samples.push((2, &gauge_column));
        }
        let next = client.sequence;
        let (is_snapshot, sequence, removed) = match kind {
            Kind::Snapshot => (true, next + u64::from(more[0]), vec![]),
            Kind::Delta | Kind::UndefinedId | Kind::Falls => (false, next, vec![]),
            Kind::Removed => {
                let removed = vec![samples[0], (2, &gauge_column[..])];
                samples = vec![samples[1]];
                (false, next, removed)
            }
            Kind::Duplicate => (more[0] > 2, told.last_sequence, vec![]),
            Kind::Gap => (false, next + 1 + u64::from(more[0]), vec![]),
            Kind::Goodbye | Kind::GoodbyeTooLate => {
                let late = u64::from(matches!(kind, Kind::GoodbyeTooLate));
                let ended = stream.writer.goodbye(told.last_sequence + late, now);
                match ended {
                    Ok(true) => told.closed = true,
                    Ok(false) => assert_eq!(late, 1),
                    Err(FrameError::Superseded) => assert!(at != newest),
                    Err(FrameError::Closed) => told.closed = true,
                    Err(other) => panic!("{other}"),
                }
                return;
            }
        };
        match kind {
            Kind::UndefinedId => samples.push((3, &[1.0])),
            Kind::Falls if told.counts[0] > 0.0 => samples[0] = (0, &[0.0]),
            _ => {}
        }
        let frame_kind = if is_snapshot { FrameKind::Snapshot } else { FrameKind::Delta };
        let outcome = stream.send(frame_kind, sequence, &samples, &removed, now);
        match outcome {
            Err(FrameError::Superseded) => return assert!(at != newest),
            // It was silent for so long that it was folded; the sender learns it, and what it told stays.
            Err(FrameError::Closed) => return told.closed = true,
            Err(FrameError::SequenceZero) => return assert_eq!(sequence, 0),
            _ => assert!(at == newest && !told.closed, "{outcome:?}"),
        }
        let applies = match kind {
            Kind::Snapshot => true,
            Kind::Delta | Kind::Removed => *has_snapshot,
            Kind::Falls => *has_snapshot && told.counts[0] == 0.0, // nothing to fall from
            _ => false,
        };
        match &outcome {
            Ok(Outcome::Applied(_)) => assert!(applies),
            Ok(Outcome::Duplicate) => assert!(matches!(kind, Kind::Duplicate)),
            Ok(Outcome::NotApplied(_)) => {
                assert!(!*has_snapshot || matches!(kind, Kind::Gap | Kind::UndefinedId));
            }
            Err(_) => assert!(matches!(kind, Kind::Falls)),
        }
        if !applies {
            return;
        }
        *has_snapshot |= is_snapshot;
        client.counts = counts;
        client.sequence = sequence + 1;
        told.counts = counts;
        told.gauge = match kind {
            Kind::Removed => None,
            Kind::Snapshot => gauge_value,
            _ => gauge_value.or(told.gauge),
        };
        told.last_sequence = sequence;
        told.last_report = Some(now);
    }

    fn post(&mut self, n: usize, reset: [bool; 2], more: [u8; 2], gauge: Option<i8>) {
        let sender = &mut self.senders[n];
        let shard = &mut self.shards[sender.shard_id as usize];
        let before = sender.counts;
        let counts = [0, 1].map(|i| {
            let from = if reset[i] { 0.0 } else { before[i] };
            from + f64::from(more[i])
        });
        let gauge = gauge.map(f64::from);
        let mut families: Vec<_> = COUNTERS
            .iter()
            .zip(counts)
            .map(|(name, count)| family(COUNTER, name, &[(&[], &[count])]))
            .collect();
        families.extend(gauge.map(|g| family(GAUGE, GAUGE_NAME, &[(&[], &[g])])));
        let status = self.registry.status(self.now);
        let of_shard = status.iter().filter(|s| s.id == sender.shard_id);
        let known = of_shard.flat_map(|s| &s.instances).any(|i| i.key == sender.key);
        if sender.key == InstanceKey::Anonymous && !known {
            // A sender without identity looks new once 15 others came after it.
            let told = sender.told.take();
            assert!(told.is_none_or(|told| shard.0.len() - told > 15));
        }
        let report = Report { shard_id: sender.shard_id, ..report(sender.key.clone(), &families) };
        if let Err(error) = self.registry.report(&[report], self.now) {
            assert_eq!(error, ReportError::Closed);
            shard.0[sender.told.unwrap()].closed = true;
            let name = self.new_name();
            let sender = &mut self.senders[n];
            sender.key = named(&format!("sender {name}"));
            (sender.told, sender.counts, sender.carried) = (None, [0.0; 2], [0.0; 2]);
            return;
        }
        let fell = [0, 1].map(|i| sender.told.is_some() && counts[i] < before[i]);
        if sender.key == InstanceKey::Anonymous {
            if fell != [false; 2] {
                let told = &mut shard.0[sender.told.unwrap()];
                told.closed = true;
                sender.told = None;
            }
        } else {
            for i in [0, 1].into_iter().filter(|i| fell[*i]) {
                sender.carried[i] += before[i];
            }
        }
        sender.counts = counts;
        let told = *sender.told.get_or_insert_with(|| shard.join());
        let told = &mut shard.0[told];
        told.counts = [0, 1].map(|i| sender.carried[i] + counts[i]);
        told.gauge = gauge;
        told.last_report = Some(self.now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(512),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_the_registry_counts_as_the_model(events in events()) {
        let registry = registry();
        let mut world = World::new(&registry);
        for event in &events {
            world.happens(event);
        }
    }
}
