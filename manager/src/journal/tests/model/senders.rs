//! Who posts, and what the manager must answer.

use std::time::Duration;

use super::{
    Body, PostKind,
    counted::{Counted, labels},
    expected::{
        BOUNDS, Buckets, COUNTERS, GAUGE, HISTOGRAM, Report, SHARDS, Said, Step, Told, known,
    },
    world::World,
};
use crate::{
    clock::UnixTime,
    model::{Bounds, LabelSet, MetricType},
    registry::{
        self, InstanceKey, Outcome, ReportError, ReportedFamily, ReportedSeries, Transport,
    },
};

/// HTTP senders of a shard: by name, by the start of the process, by name and numbered, slow, and without identity.
const WAYS: usize = 5;
pub(super) const SENDERS: usize = WAYS * SHARDS as usize;

/// A process that posts.
pub(super) struct Sender {
    shard: usize,
    way: usize,
    key: InstanceKey,
    counted: Counted,
    /// When the process started, by its own word.
    started_at: Option<UnixTime>,
    /// Of the last body.
    sequence: u64,
    /// Bodies it sent, the newest last.
    sent: Vec<Posted>,
}

/// One body.
#[derive(Clone)]
struct Posted {
    key: InstanceKey,
    sequence: Option<u64>,
    started_at: Option<UnixTime>,
    said: Said,
}

impl Sender {
    pub(super) fn all() -> Vec<Self> {
        (0..SENDERS).map(|n| Self::new(n / WAYS, n % WAYS, n as u32, UnixTime::default())).collect()
    }

    fn new(shard: usize, way: usize, name: u32, now: UnixTime) -> Self {
        // Two processes never start at the very same time.
        let started_at = now + Duration::from_millis(name.into());
        let named = InstanceKey::Named(format!("sender {name}").into());
        Self {
            shard,
            way,
            key: match way {
                1 => InstanceKey::ProcessStart(started_at.as_secs_f64().to_bits()),
                4 => InstanceKey::Anonymous,
                _ => named,
            },
            counted: Counted::default(),
            started_at: matches!(way, 1 | 2).then_some(started_at),
            sequence: 0,
            sent: Vec::new(),
        }
    }

    fn interval(&self) -> Option<Duration> {
        (self.way == 3).then_some(Duration::from_secs(60))
    }
}

impl World {
    pub(super) fn post(&mut self, n: usize, kind: PostKind, body: &Body) {
        let (now, name) = (self.now, 100 + self.new_name());
        let sender = &mut self.senders[n];
        match kind {
            PostKind::Restart => {
                let old = Sender::new(sender.shard, sender.way, name, now);
                let old = std::mem::replace(sender, old);
                sender.sent = old.sent;
                if !matches!(sender.way, 1) {
                    sender.key = old.key; // a pod keeps its name
                }
            }
            PostKind::Reset(which) => sender.counted.counters[which] = 0.0,
            PostKind::ResetHistogram => sender.counted.observed = [0.0; 4],
            PostKind::Next | PostKind::Again | PostKind::Late(_) => {}
        }
        let again = match kind {
            PostKind::Again => sender.sent.last().cloned(),
            PostKind::Late(older) if sender.way == 2 => {
                sender.sent.iter().rev().nth(older).cloned()
            }
            _ => None,
        };
        let posted = again.unwrap_or_else(|| {
            sender.counted.count(body);
            sender.sequence += 1;
            for i in (0..COUNTERS.len()).filter(|i| !body.names[*i]) {
                sender.counted.counters[i] = 0.0; // its label set was removed
            }
            let posted = Posted {
                key: sender.key.clone(),
                sequence: (sender.way == 2).then_some(sender.sequence),
                started_at: sender.started_at,
                said: sender.counted.said(body, body.bounds),
            };
            sender.sent.push(posted.clone());
            posted
        });
        self.send_post(n, posted, name);
    }

    fn send_post(&mut self, n: usize, posted: Posted, name: u32) {
        let now = self.now;
        let sender = &mut self.senders[n];
        let (shard, interval) = (sender.shard, sender.interval());
        let Posted { key, sequence, started_at, said } = posted;
        let mut kept = self.kept.lock();
        let model = &kept.model.shards[shard];
        let told = model.find(&key);
        let anonymous = key == InstanceKey::Anonymous;
        let falls = anonymous && told.is_some_and(|(_, told)| told.falls(&said));
        let mut seen = said.clone();
        seen.histogram = seen
            .histogram
            .filter(|h| !known::NEW_BOUNDS_MAY_FALL_AGAIN || model.defined.contains(&h.bounds));
        let falls_again = anonymous && told.is_some_and(|(_, told)| told.falls(&seen));
        let fell_just_now = model.fell_at.is_some_and(|at| now.since(at) < Duration::from_secs(30));
        let closed = told.is_some_and(|(_, told)| told.closed || told.folded);
        let late = told.is_some_and(|(_, told)| is_late(told, sequence, started_at));
        let refused = falls_again && fell_just_now;
        let applies = !closed && !late && !refused;
        if applies {
            let (mut instance, last) =
                told.map_or((model.instances.len(), 0), |(at, told)| (at, told.sequence));
            let joins = told.is_none() || falls;
            if falls {
                let close = Step::Close { shard, instance, at: now };
                instance = model.instances.len();
                kept.plan.push_back(close);
            }
            if joins {
                kept.plan.push_back(Step::Join { shard, key: key.clone(), at: now });
            }
            let report = Report {
                at: now,
                transport: Transport::Http,
                sequence: sequence.unwrap_or(if joins { 0 } else { last }),
                whole: true,
                gauge_left: false,
                run: started_at,
                interval: interval.unwrap_or_default(),
                said: said.clone(),
            };
            kept.plan.push_back(Step::Report { shard, instance, report });
        }
        drop(kept);
        let families = families(&said);
        let report = registry::Report {
            shard_id: shard as u32,
            sender: key,
            sequence,
            started_at,
            interval,
            families: &families,
        };
        match self.registry().report(&[report], now).map(|mut outcomes| outcomes.remove(0)) {
            Ok(Outcome::Applied(applied)) => {
                assert!(applies && applied.rejected.is_empty(), "{applied:?}");
                self.check_durable(applied.durable);
            }
            Ok(Outcome::Duplicate) => assert!(!closed && late),
            Ok(other) => panic!("{other:?}"),
            Err(ReportError::FellAgain { .. }) => assert!(refused),
            Err(ReportError::Closed) => {
                assert!(closed);
                // It does as it is told: a new process with a new name.
                let sender = &mut self.senders[n];
                *sender = Sender::new(sender.shard, sender.way, name, now);
            }
            Err(ReportError::TooManyInstances(_)) => {
                let mut kept = self.kept.lock();
                assert!(applies && kept.model.shards[shard].waiting() >= 16);
                kept.plan.clear();
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Sent before what was applied last: by its number, or by a process that was replaced since.
fn is_late(told: &Told, sequence: Option<u64>, run: Option<UnixTime>) -> bool {
    let older = run < told.run && !known::OLDER_RUN_IS_NOT_LATE;
    sequence.is_some_and(|sequence| older || run == told.run && sequence <= told.sequence)
}

fn families(said: &Said) -> Vec<ReportedFamily> {
    let mut families = Vec::new();
    let mut push = |name: &str, kind, labels, bounds: &[f64], values: Vec<f64>| {
        let series =
            vec![ReportedSeries { labels, bounds: Bounds::new(bounds).unwrap(), values, line: 1 }];
        families.push(ReportedFamily { name: name.to_owned(), kind, help: String::new(), series });
    };
    for (i, count) in said.counters.iter().enumerate() {
        if let Some(count) = count {
            push(COUNTERS[i].0, MetricType::Counter, labels(i), &[], vec![*count]);
        }
    }
    if let Some(gauge) = said.gauge {
        push(GAUGE, MetricType::Gauge, LabelSet::default(), &[], vec![gauge]);
    }
    if let Some(Buckets { bounds, values }) = &said.histogram {
        push(
            HISTOGRAM,
            MetricType::Histogram,
            LabelSet::default(),
            BOUNDS[*bounds],
            values.clone(),
        );
    }
    families
}
