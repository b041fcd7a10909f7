//! Who posts, and what the manager must answer.

use std::{ops::Range, time::Duration};

use super::{
    Body, PostKind,
    counted::{Counted, labels},
    expected::{
        BOUNDS, Buckets, COUNTERS, CROWD, GAUGE, HISTOGRAM, Report, SHARDS, Said, Step, Told,
    },
    kept::Kept,
    world::World,
};
use crate::{
    clock::UnixTime,
    model::{Bounds, LabelSet, MetricType},
    registry::{
        self, InstanceKey, Outcome, ReportError, ReportedFamily, ReportedSeries, Transport,
    },
};

/// Ways to post: by name, by the start of the process, by name with the start, slowly by name, and without identity.
const WAYS: usize = 5;
/// For shard 0, for shard 1 with numbers, and for both with numbers.
pub(super) const SENDERS: usize = WAYS * 3;

/// A process that posts.
pub(super) struct Sender {
    shards: Range<usize>,
    way: usize,
    key: InstanceKey,
    counted: Counted,
    /// When the process started, by its own word.
    started_at: Option<UnixTime>,
    /// Of the last body, if it numbers them.
    sequence: Option<u64>,
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
        let shards = [0..1, 1..2, 0..SHARDS as usize];
        let all = (0..SENDERS).map(|n| (shards[n / WAYS].clone(), n % WAYS, n as u32));
        all.map(|(shards, way, name)| Self::new(shards, way, name, UnixTime::default())).collect()
    }

    fn new(shards: Range<usize>, way: usize, name: u32, now: UnixTime) -> Self {
        // Two processes never start at the very same time.
        let started_at = now + Duration::from_millis(name.into());
        let named = InstanceKey::Named(format!("sender {name}").into());
        Self {
            sequence: (shards.end > 1).then_some(0),
            shards,
            way,
            key: match way {
                1 => InstanceKey::ProcessStart(started_at.as_secs_f64().to_bits()),
                4 => InstanceKey::Anonymous,
                _ => named,
            },
            counted: Counted::default(),
            started_at: matches!(way, 1 | 2).then_some(started_at),
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
                let new = Sender::new(sender.shards.clone(), sender.way, name, now);
                let old = std::mem::replace(sender, new);
                sender.sent = old.sent;
                if sender.way != 1 {
                    sender.key = old.key; // a pod keeps its name
                }
            }
            PostKind::Reset(which) => sender.counted.counters[which] = 0.0,
            PostKind::ResetHistogram => sender.counted.observed = [0.0; 4],
            PostKind::Next | PostKind::Again | PostKind::Late(_) => {}
        }
        let again = match kind {
            PostKind::Again => sender.sent.last().cloned(),
            PostKind::Late(older) => sender.sent.iter().rev().nth(older).cloned(),
            _ => None,
        };
        let posted = again.unwrap_or_else(|| {
            sender.counted.count(body);
            let skipped = u64::from(body.more[0]);
            sender.sequence = sender.sequence.map(|sequence| sequence + 1 + skipped);
            for i in (0..COUNTERS.len()).filter(|i| !body.names[*i]) {
                sender.counted.counters[i] = 0.0; // its label set was removed
            }
            let posted = Posted {
                key: sender.key.clone(),
                sequence: sender.sequence,
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
        let (shards, interval) = (self.senders[n].shards.clone(), self.senders[n].interval());
        let Posted { key, sequence, started_at, said } = posted;
        let mut kept = self.kept.lock();
        let Kept { model, plan, .. } = &mut *kept;
        let told = |shard: usize| model.shards[shard].find(&key);
        let is = |shard, is: &dyn Fn(&Told) -> bool| told(shard).is_some_and(|(_, told)| is(told));
        let late = |shard| is(shard, &|told| told.is_after(sequence, started_at));
        let closed = shards.clone().any(|shard| is(shard, &|told| told.closed || told.folded));
        // Without identity, what falls in one shard is of a new process.
        let falls = |shard: &usize| !late(*shard) && is(*shard, &|told| told.falls(&said));
        let fell = shards.clone().find(falls).filter(|_| key == InstanceKey::Anonymous);
        let fell_before = fell.and_then(|shard| model.shards[shard].fell_at);
        let pause = interval.unwrap_or(Duration::from_secs(10)) * 3;
        let refused = fell_before.is_some_and(|at| now.since(at) < pause);
        let applies: Vec<_> = shards.clone().map(|shard| fell.is_some() || !late(shard)).collect();
        if !closed && !refused {
            for shard in shards.clone().filter(|_| fell.is_some()) {
                let close = |(instance, _)| Step::Close { shard, instance, at: now };
                plan.extend(told(shard).map(close));
            }
            for (shard, _) in shards.clone().zip(&applies).filter(|(_, applies)| **applies) {
                let known = told(shard).filter(|_| fell.is_none());
                let new = model.shards[shard].instances.len();
                let (instance, last) = known.map_or((new, 0), |(at, told)| (at, told.sequence));
                if known.is_none() {
                    plan.push_back(Step::Join { shard, key: key.clone(), at: now });
                }
                let report = Report {
                    at: now,
                    transport: Transport::Http,
                    sequence: sequence.unwrap_or(last),
                    whole: true,
                    removed: false,
                    run: started_at,
                    interval: interval.unwrap_or_default(),
                    said: said.clone(),
                };
                plan.push_back(Step::Report { shard, instance, report });
            }
        }
        drop(kept);
        let families = families(&said);
        let reports: Vec<_> = shards
            .map(|shard| registry::Report {
                shard_id: shard as u32,
                sender: key.clone(),
                sequence,
                started_at,
                interval,
                scope: registry::Scope::Everything,
                families: &families,
            })
            .collect();
        match self.registry().report(&reports, now) {
            Ok(outcomes) => {
                assert!(!closed && !refused);
                let applied = |outcome: &Outcome| match outcome {
                    Outcome::Applied(applied) => {
                        assert!(applied.rejected.is_empty(), "{applied:?}");
                        Some(applied.durable)
                    }
                    Outcome::Duplicate => None,
                    Outcome::NotApplied(_) => panic!("{outcome:?}"),
                };
                let durable: Vec<_> = outcomes.iter().map(applied).collect();
                assert!(durable.iter().map(Option::is_some).eq(applies));
                if let Some(durable) = durable.into_iter().flatten().last() {
                    self.check_durable(durable);
                }
            }
            Err(ReportError::FellAgain { shard_id, .. }) => {
                assert!(refused && fell == Some(shard_id as usize));
            }
            Err(ReportError::Closed) => {
                assert!(closed);
                // It does as it is told: a new process with a new name.
                let sender = &mut self.senders[n];
                *sender = Sender::new(sender.shards.clone(), sender.way, name, now);
            }
            Err(ReportError::TooManyInstances(shard)) => {
                let mut kept = self.kept.lock();
                let shard = &kept.model.shards[shard as usize];
                assert!(shard.find(&key).is_none() && shard.waiting() >= CROWD);
                kept.plan.clear();
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn families(said: &Said) -> Vec<ReportedFamily> {
    let mut families = Vec::new();
    let mut push = |name: &str, kind, labels, bounds: &[f64], values: Vec<f64>| {
        let series = vec![ReportedSeries {
            labels,
            bounds: Bounds::new(bounds).unwrap(),
            values,
            exemplars: Vec::new(),
            place: registry::BodyPlace::Line(1),
        }];
        families.push(ReportedFamily {
            name: name.to_owned(),
            kind,
            help: String::new(),
            unit: String::new(),
            series,
        });
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
