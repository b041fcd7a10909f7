//! The model: what senders said, and what is exposed of it. It knows no files, no sequences of bytes, no slots; that
//! instances are folded it is told, and it makes no difference to what is exposed.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    clock::UnixTime,
    registry::{InstanceKey, ShardState, ShardStatus, Transport},
};

pub(super) const SHARDS: u32 = 2;
/// How many the bot is said to have: one never reports.
pub(super) const SHARD_COUNT: u32 = SHARDS + 1;
/// Name and label value of the counters. The first counts whole numbers; of the others the order of additions matters.
pub(super) const COUNTERS: [(&str, &str); 3] = [("a_total", ""), ("f_total", ""), ("l_total", "v")];
pub(super) const GAUGE: &str = "g";
pub(super) const HISTOGRAM: &str = "h";
/// What senders may have as the histogram's bounds.
pub(super) const BOUNDS: [&[f64]; 3] = [&[1.0, 5.0], &[2.0], &[1.0, 2.0, 5.0]];

pub(super) const STALE_AFTER: Duration = Duration::from_secs(30);
const FOLD_AFTER: Duration = Duration::from_secs(3600);

/// What is known to be wrong: a fix makes one of these false, and then it can go.
pub(super) mod known {
    /// A second restart soon after the first one judges who is alive by their last reports alone.
    pub(in super::super) const RESUME_IS_FORGOTTEN: bool = true;
    /// A checkpoint does not say until when the manager lived: a restart right after it takes everybody for alive.
    pub(in super::super) const CHECKPOINT_FORGETS_TIME: bool = true;
    /// How many shards there are is shown before it is recorded.
    pub(in super::super) const SHARD_COUNT_IS_NOT_RECORDED_FIRST: bool = true;
    /// A numbered body of a process that was replaced since is not taken for late.
    pub(in super::super) const OLDER_RUN_IS_NOT_LATE: bool = true;
    /// That another process reports under a name is recorded before its report. After a kill between the two its numbers
    /// are taken for late until they are above those of the process before it.
    pub(super) const RUN_COMES_BEFORE_ITS_REPORT: bool = true;
    /// A sender without identity that falls again is not refused if only its histogram fell, which has new bounds.
    pub(in super::super) const NEW_BOUNDS_MAY_FALL_AGAIN: bool = true;
    /// Bounds that were defined first are exposed until the newest instance reports, though nobody may ever report them.
    pub(super) const DEFINED_BOUNDS_ARE_EXPOSED: bool = true;
}

/// What one report says.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) counters: [Option<f64>; COUNTERS.len()],
    pub(super) gauge: Option<f64>,
    pub(super) histogram: Option<Buckets>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Buckets {
    /// Which of [`BOUNDS`].
    pub(super) bounds: usize,
    /// The cumulative count of each bound, the count of all, their sum.
    pub(super) values: Vec<f64>,
}

impl Buckets {
    pub(super) fn count(&self) -> f64 {
        self.values[self.values.len() - 2]
    }
}

/// One thing that happens to the model, for one record of the journal.
#[derive(Debug, Clone)]
pub(super) enum Step {
    ShardCount,
    Join { shard: usize, key: InstanceKey, at: UnixTime },
    Close { shard: usize, instance: usize, at: UnixTime },
    Report { shard: usize, instance: usize, report: Report },
}

#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) at: UnixTime,
    pub(super) transport: Transport,
    pub(super) sequence: u64,
    /// A gauge that it does not name has left.
    pub(super) whole: bool,
    /// The gauge has left.
    pub(super) gauge_left: bool,
    pub(super) run: Option<UnixTime>,
    pub(super) interval: Duration,
    pub(super) said: Said,
}

/// An instance: the last value of each series, and what it had reached when it last began anew (HTTP only).
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) key: InstanceKey,
    pub(super) said: Said,
    before: [f64; COUNTERS.len()],
    before_histogram: Vec<Buckets>,
    /// How often it had other bounds, or began anew, without a lower count: nobody can know how much it says again then.
    blurred: u32,
    pub(super) sequence: u64,
    /// The process that reports, by its start.
    pub(super) run: Option<UnixTime>,
    interval: Duration,
    transport: Option<Transport>,
    reported: bool,
    last_report: UnixTime,
    /// The same, or when the manager started if it was alive when the manager ended.
    seen: UnixTime,
    pub(super) closed: bool,
    pub(super) folded: bool,
}

/// All instances of a shard that ever were, in order of first Hello or post.
#[derive(Debug, Clone, Default)]
pub(super) struct Shard {
    pub(super) instances: Vec<Told>,
    /// Which bounds are exposed, and which were ever defined.
    shown: Option<usize>,
    pub(super) defined: Vec<usize>,
    last_report: Option<UnixTime>,
    seen: Option<UnixTime>,
    reports: [u64; 2],
    /// When a sender without identity last began anew.
    pub(super) fell_at: Option<UnixTime>,
    /// An instance was folded before an older one: sums may have moved upwards by their last bit.
    pub(super) reordered: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) shards: [Shard; SHARDS as usize],
    pub(super) shard_count: u32,
    /// Until when the manager is known to have lived.
    pub(super) until: UnixTime,
}

/// Bounds and values by `name{labels}@shard`.
pub(super) type Exposed = BTreeMap<String, (Vec<f64>, Vec<f64>)>;

/// What a shard's status must say.
#[derive(Debug, PartialEq)]
pub(super) struct State {
    id: u32,
    state: ShardState,
    last_report: Option<UnixTime>,
    reports: [u64; 2],
    /// Those not folded: key, last report, last sequence, whether the gauges are its.
    instances: Vec<(InstanceKey, UnixTime, u64, bool)>,
}

impl State {
    pub(super) fn of(status: &ShardStatus) -> Self {
        let instances = status.instances.iter();
        Self {
            id: status.id,
            state: status.state,
            last_report: status.last_report,
            reports: status.reports.map(|(_, n)| n),
            instances: instances
                .map(|i| (i.key.clone(), i.last_report, i.last_sequence, i.owner))
                .collect(),
        }
    }
}

impl Told {
    fn join(key: InstanceKey, at: UnixTime) -> Self {
        Self {
            key,
            said: Said::default(),
            before: [0.0; COUNTERS.len()],
            before_histogram: Vec::new(),
            blurred: 0,
            sequence: 0,
            run: None,
            interval: Duration::ZERO,
            transport: None,
            reported: false,
            last_report: at,
            seen: at,
            closed: false,
            folded: false,
        }
    }

    /// Whether a count that `said` names is lower than the last one.
    pub(super) fn falls(&self, said: &Said) -> bool {
        let fell = |i: usize| said.counters[i] < self.said.counters[i];
        (0..COUNTERS.len()).any(|i| said.counters[i].is_some() && fell(i))
            || matches!((&said.histogram, &self.said.histogram), (Some(now), Some(last)) if now.count() < last.count())
    }

    /// A count that falls began anew: what it had reached stays.
    fn report(&mut self, report: &Report) {
        let said = &report.said;
        for (i, now) in said.counters.iter().enumerate().filter(|(_, now)| now.is_some()) {
            let last = &mut self.said.counters[i];
            if now < last {
                self.before[i] += last.unwrap_or_default();
            }
            *last = *now;
        }
        if let Some(now) = &said.histogram
            && let Some(last) = self.said.histogram.replace(now.clone())
        {
            if now.count() < last.count() {
                self.before_histogram.push(last);
            } else if now.bounds != last.bounds
                || (0..).zip(&now.values).any(|(i, n)| *n < last.values[i])
            {
                self.blurred += 1;
            }
        }
        if said.gauge.is_some() || report.whole || report.gauge_left {
            self.said.gauge = said.gauge.filter(|_| !report.gauge_left);
        }
        (self.sequence, self.run, self.interval) = (report.sequence, report.run, report.interval);
        (self.reported, self.last_report, self.seen) = (true, report.at, report.at);
        self.transport = Some(report.transport);
    }

    fn silent(&self, now: UnixTime) -> bool {
        now.since(self.seen) > STALE_AFTER.max(self.interval * 3)
    }

    fn alive(&self, now: UnixTime) -> bool {
        self.reported && !self.closed && !self.folded && !self.silent(now)
    }
}

impl Shard {
    /// The instance that a sender with this key goes on with, and its place.
    pub(super) fn find(&self, key: &InstanceKey) -> Option<(usize, &Told)> {
        let open = |i: &Told| *key != InstanceKey::Anonymous || !(i.closed || i.folded);
        self.instances.iter().enumerate().rfind(|(_, i)| i.key == *key && open(i))
    }

    /// The instance whose gauges are the shard's.
    fn owner(&self, now: UnixTime) -> Option<usize> {
        self.instances.iter().rposition(|i| i.alive(now))
    }

    pub(super) fn waiting(&self) -> usize {
        self.instances.iter().filter(|i| !i.folded).count()
    }

    fn exposed(&self, id: usize, now: UnixTime, exposed: &mut Exposed) {
        for (i, (name, label)) in COUNTERS.iter().enumerate() {
            if self.instances.iter().any(|told| told.said.counters[i].is_some()) {
                let told = |told: &Told| told.said.counters[i].unwrap_or_default() + told.before[i];
                let sum = self.instances.iter().map(told).fold(0.0, |sum, count| sum + count);
                let labels =
                    if label.is_empty() { String::new() } else { format!("k=\"{label}\"") };
                exposed.insert(format!("{name}{{{labels}}}@{id}"), (vec![], vec![sum]));
            }
        }
        if let Some(gauge) = self.owner(now).and_then(|owner| self.instances[owner].said.gauge) {
            exposed.insert(format!("{GAUGE}{{}}@{id}"), (vec![], vec![gauge]));
        }
        if let Some(shown) = self.shown {
            let mut sum = vec![0.0; BOUNDS[shown].len() + 2];
            let told = |i: &Told| {
                i.before_histogram.iter().chain(&i.said.histogram).cloned().collect::<Vec<_>>()
            };
            for buckets in self.instances.iter().flat_map(told) {
                for (bound, sum) in BOUNDS[shown].iter().zip(&mut sum) {
                    let below = BOUNDS[buckets.bounds].iter().rposition(|other| other <= bound);
                    *sum += below.map_or(0.0, |at| buckets.values[at]);
                }
                let tail = buckets.values.iter().rev().zip(sum.iter_mut().rev());
                tail.take(2).for_each(|(value, sum)| *sum += value);
            }
            exposed.insert(format!("{HISTOGRAM}{{}}@{id}"), (BOUNDS[shown].to_vec(), sum));
        }
    }

    fn state(&self, id: usize, now: UnixTime) -> State {
        let heard = self.seen.is_some_and(|seen| now.since(seen) <= STALE_AFTER);
        let state = match self.last_report {
            None => ShardState::NeverSeen,
            Some(_) if heard || self.owner(now).is_some() => ShardState::Up,
            Some(_) => ShardState::Stale,
        };
        let owner = self.owner(now);
        let instances = self.instances.iter().enumerate().filter(|(_, i)| !i.folded);
        State {
            id: id as u32,
            state,
            last_report: self.last_report,
            reports: self.reports,
            instances: instances
                .map(|(at, i)| (i.key.clone(), i.last_report, i.sequence, owner == Some(at)))
                .collect(),
        }
    }
}

impl Model {
    pub(super) fn take(&mut self, step: Step) {
        let at = match step {
            Step::ShardCount => {
                self.shard_count = SHARD_COUNT;
                return;
            }
            Step::Join { shard, key, at } => {
                self.shards[shard].instances.push(Told::join(key, at));
                at
            }
            Step::Close { shard, instance, at } => {
                let shard = &mut self.shards[shard];
                shard.instances[instance].closed = true;
                if shard.instances[instance].key == InstanceKey::Anonymous {
                    shard.fell_at = Some(at);
                }
                at
            }
            Step::Report { shard, instance, report } => {
                let shard = &mut self.shards[shard];
                shard.instances[instance].report(&report);
                let newest = shard.instances[instance + 1..].iter().all(|i| i.folded);
                if let Some(Buckets { bounds, .. }) = report.said.histogram
                    && (newest || shard.shown.is_none())
                {
                    let defined = shard
                        .defined
                        .first()
                        .filter(|_| known::DEFINED_BOUNDS_ARE_EXPOSED && !newest);
                    shard.shown = defined.copied().or(Some(bounds));
                }
                (shard.last_report, shard.seen) = (Some(report.at), Some(report.at));
                shard.reports[report.transport as usize] += 1;
                report.at
            }
        };
        self.until = self.until.max(at);
    }

    /// Series of the histogram were defined.
    pub(super) fn define(&mut self, shard: usize, bounds: &[f64]) {
        let which = BOUNDS.iter().position(|known| *known == bounds);
        self.shards[shard].defined.extend(which);
    }

    /// An instance says which process it is now.
    pub(super) fn describe(&mut self, shard: usize, instance: usize, run: Option<UnixTime>) {
        if known::RUN_COMES_BEFORE_ITS_REPORT {
            self.shards[shard].instances[instance].run = run;
        }
    }

    /// An instance became part of the base: nothing that is exposed changes, but it must have ended, or be one of too many.
    pub(super) fn fold(&mut self, shard: usize, instance: usize, now: UnixTime) {
        let shard = &mut self.shards[shard];
        let crowd = shard.waiting() >= 16;
        let waiting = shard.instances.iter().filter(|i| !i.folded && i.silent(now)).count();
        shard.reordered |= shard.instances[..instance].iter().any(|older| !older.folded);
        let told = &mut shard.instances[instance];
        let grpc = matches!(told.key, InstanceKey::Id(_));
        let ended = told.closed
            || told.key != InstanceKey::Anonymous && told.silent(now) && (waiting > 4 || crowd)
            || grpc && (now.since(told.seen) > FOLD_AFTER || crowd);
        assert!(ended && !told.folded, "folded too early at {now:?}: {told:?}");
        told.folded = true;
    }

    /// The manager ended and starts again now.
    pub(super) fn restarted(mut self, now: UnixTime) -> Self {
        let until = self.until;
        for shard in &mut self.shards {
            for told in &mut shard.instances {
                if known::RESUME_IS_FORGOTTEN {
                    told.seen = told.last_report;
                }
                if !told.silent(until) {
                    told.seen = now;
                }
            }
            if known::RESUME_IS_FORGOTTEN {
                shard.seen = shard.last_report;
            }
            if shard.seen.is_some_and(|seen| until.since(seen) <= STALE_AFTER) {
                shard.seen = Some(now);
            }
        }
        self
    }

    pub(super) fn exposed(&self, now: UnixTime) -> Exposed {
        let mut exposed = Exposed::new();
        for (id, shard) in self.shards.iter().enumerate() {
            shard.exposed(id, now, &mut exposed);
        }
        exposed
    }

    /// How often buckets may have fallen though no count did.
    pub(super) fn blurred(&self) -> u32 {
        self.shards.iter().flat_map(|shard| &shard.instances).map(|told| told.blurred).sum()
    }

    pub(super) fn reports(&self) -> u64 {
        self.shards.iter().flat_map(|shard| shard.reports).sum()
    }

    pub(super) fn states(&self, now: UnixTime) -> Vec<State> {
        let known = self.shards.iter().enumerate().map(|(id, shard)| shard.state(id, now));
        let never = Shard::default().state(SHARDS as usize, now);
        let counted = |s: &State| s.state != ShardState::NeverSeen || s.id < self.shard_count;
        known.chain([never]).filter(counted).collect()
    }
}
