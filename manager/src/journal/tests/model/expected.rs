//! The model: what senders said, and what is exposed of it. It knows no files, no sequences of bytes, no slots; that
//! instances are folded it is told, and no count that is exposed differs by it.

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use super::counted::labels;
use crate::{
    clock::UnixTime,
    registry::{InstanceKey, ShardState, ShardStatus, Transport},
};

pub(super) const SHARDS: u32 = 2;
/// How many the bot is said to have at least: the others never report.
pub(super) const SHARD_COUNT: u32 = SHARDS + 1;
/// Name and label of the counters. The first counts whole numbers, and is told to followers; of the others the order of
/// additions matters.
pub(super) const COUNTERS: [(&str, (&str, &str)); 3] = [
    ("gateway_sessions_total", ("outcome", "resumed")),
    ("f_total", ("k", "")),
    ("l_total", ("k", "v")),
];
pub(super) const GAUGE: &str = "temperature";
pub(super) const HISTOGRAM: &str = "h";
/// What senders may have as the histogram's bounds.
pub(super) const BOUNDS: [&[f64]; 3] = [&[1.0, 5.0], &[2.0], &[1.0, 2.0, 5.0]];

pub(super) const STALE_AFTER: Duration = Duration::from_secs(30);
const FOLD_AFTER: Duration = Duration::from_secs(3600);
/// Instances a shard has at most.
pub(super) const CROWD: usize = 16;

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
    ShardCount(u32),
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
    /// The gauge has left, and the histogram if it names it.
    pub(super) removed: bool,
    /// The process that reports over HTTP, by its start.
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
    /// The histogram has not left since it reported it.
    has_histogram: bool,
    /// How often it had other bounds, or began anew, without a lower count: nobody can know how much it says again then.
    blurred: u32,
    pub(super) sequence: u64,
    run: Option<UnixTime>,
    interval: Duration,
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
    /// Which bounds are exposed: those of the newest instance that has the histogram, when it last had news of it.
    shown: Option<usize>,
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
    /// When the manager last recorded something.
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
            has_histogram: false,
            blurred: 0,
            sequence: 0,
            run: None,
            interval: Duration::ZERO,
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

    /// Whether a body was sent before the last that was taken, or is that: it is of an earlier process, or its number is
    /// less than ten lower.
    pub(super) fn is_after(&self, sequence: Option<u64>, run: Option<UnixTime>) -> bool {
        let recent =
            |sequence| (self.sequence.saturating_sub(9)..=self.sequence).contains(&sequence);
        match self.compare_run(run) {
            Ordering::Less => true,
            Ordering::Equal => sequence.is_some_and(recent),
            Ordering::Greater => false,
        }
    }

    /// Whether a process is another than the last, as far as is known: then it started a second before or after that.
    fn compare_run(&self, run: Option<UnixTime>) -> Ordering {
        let (Some(run), Some(last)) = (run, self.run) else {
            return Ordering::Equal;
        };
        let apart = run.max(last).since(run.min(last)) >= Duration::from_secs(1);
        if apart { run.cmp(&last) } else { Ordering::Equal }
    }

    /// A count that falls began anew, all that a later process counts did: what was reached stays. Returns whether there
    /// is news of the histogram.
    fn report(&mut self, report: &Report) -> bool {
        let said = &report.said;
        if self.compare_run(report.run) == Ordering::Greater {
            for (before, last) in self.before.iter_mut().zip(&mut self.said.counters) {
                *before += last.as_mut().map_or(0.0, std::mem::take);
            }
            self.before_histogram.extend(self.said.histogram.take());
        }
        // Of a report that says everything, what was reported before is no news.
        let known = report.whole && self.has_histogram && said.histogram == self.said.histogram;
        let news = said.histogram.is_some() && !known;
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
        if said.gauge.is_some() || report.whole || report.removed {
            self.said.gauge = said.gauge.filter(|_| !report.removed);
        }
        if said.histogram.is_some() {
            self.has_histogram = !report.removed;
        }
        (self.sequence, self.run, self.interval) = (report.sequence, report.run, report.interval);
        (self.reported, self.last_report, self.seen) = (true, report.at, report.at);
        news
    }

    fn silent(&self, now: UnixTime) -> bool {
        now.since(self.seen) > STALE_AFTER.max(self.interval * 3)
    }

    /// Silent, or alive only because the manager was started anew.
    fn unheard(&self, now: UnixTime) -> bool {
        self.silent(now) || now.since(self.last_report) > STALE_AFTER.max(self.interval * 3)
    }

    /// It never reported anything, so nobody needs to know that it was folded.
    fn is_forgotten(&self) -> bool {
        self.folded && !self.reported && !self.closed
    }

    fn alive(&self, now: UnixTime) -> bool {
        self.reported && !self.closed && !self.folded && !self.silent(now)
    }
}

impl Shard {
    /// The instance that a sender with this key goes on with, and its place.
    pub(super) fn find(&self, key: &InstanceKey) -> Option<(usize, &Told)> {
        self.find_any(key).filter(|(_, i)| !i.is_forgotten())
    }

    /// The same, if there is no memory of it either.
    pub(super) fn find_any(&self, key: &InstanceKey) -> Option<(usize, &Told)> {
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
        for (i, (name, _)) in COUNTERS.iter().enumerate() {
            if self.instances.iter().any(|told| told.said.counters[i].is_some()) {
                let told = |told: &Told| told.said.counters[i].unwrap_or_default() + told.before[i];
                let sum = self.instances.iter().map(told).fold(0.0, |sum, count| sum + count);
                let key = format!("{name}{{{}}}@{id}", labels(i).as_str());
                exposed.insert(key, (vec![], vec![sum]));
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
            Step::ShardCount(count) => {
                self.shard_count = count;
                return;
            }
            Step::Join { shard, key, at } => {
                assert!(self.shards[shard].waiting() < CROWD, "one too many joins");
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
                let news = shard.instances[instance].report(&report);
                let newer = &shard.instances[instance + 1..];
                if news && !newer.iter().any(|i| i.has_histogram && !i.folded) {
                    shard.shown = report.said.histogram.map(|histogram| histogram.bounds);
                }
                (shard.last_report, shard.seen) = (Some(report.at), Some(report.at));
                shard.reports[report.transport as usize] += 1;
                report.at
            }
        };
        self.until = at;
    }

    /// An instance became part of the base: that changes no count that is exposed, but it must have ended, be one of too
    /// many, or have been silent for so long that nobody expects it.
    pub(super) fn fold(&mut self, shard: usize, instance: usize, now: UnixTime) {
        let shard = &mut self.shards[shard];
        let crowd = shard.waiting() >= CROWD;
        let oldest = shard.instances[..instance].iter().all(|older| older.folded);
        let many = shard.instances.iter().filter(|i| !i.folded && i.silent(now)).count() > 4;
        shard.reordered |= !oldest;
        let told = &mut shard.instances[instance];
        let (dead, silent) = (now.since(told.seen) > FOLD_AFTER, told.silent(now));
        let ended = match told.key {
            _ if told.closed => oldest || crowd,
            InstanceKey::Id(_) => oldest && (dead || many && silent) || crowd,
            InstanceKey::Anonymous => false,
            _ => oldest && dead && many || crowd && told.unheard(now),
        };
        assert!(ended && !told.folded, "folded too early at {now:?}: {told:?}");
        told.folded = true;
    }

    /// The manager had ended and starts again now: who was heard of when it ended is heard of now. If the clock was set
    /// back, all else is as long ago as it was.
    pub(super) fn resume(&mut self, now: UnixTime) {
        let ended = std::mem::replace(&mut self.until, now);
        let past = |time| if ended > now { now - ended.since(time) } else { time };
        for shard in &mut self.shards {
            for told in &mut shard.instances {
                told.seen = if told.silent(ended) { past(told.seen) } else { now };
            }
            let heard = |seen| ended.since(seen) <= STALE_AFTER;
            shard.seen = shard.seen.map(|seen| if heard(seen) { now } else { past(seen) });
            shard.fell_at = shard.fell_at.map(past);
        }
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
        let never = (SHARDS..self.shard_count).map(|id| Shard::default().state(id as usize, now));
        let counted = |s: &State| s.state != ShardState::NeverSeen || s.id < self.shard_count;
        known.chain(never).filter(counted).collect()
    }
}
