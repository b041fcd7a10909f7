//! How a whole body of an HTTP sender is taken (design section 5): it replaces what that sender said before.

mod placing;
mod refused;
mod repeat;

use std::{cmp::Ordering, fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use parking_lot::MutexGuard;

use super::{
    Applied, BadSample, Departure, Family, Outcome, Reason, Registry, Rejected, ReportedExemplar,
    Transport, UnixTime,
    change::{About, Change, ReportStep, Step},
    check,
    instance::{Instance, InstanceKey},
    parts::AcceptedParts,
    shard::{MAX_INSTANCES, Shard},
    shared::SharedShard,
};
use crate::model::{Bounds, LabelSet, MetricType};
use placing::{Placed, check_body, news};
use repeat::Part;
pub use repeat::{NewValue, Placement, Repeat};

/// A report whose number is so much lower than the last is not late, but of a sender that numbers anew.
const LATE_WITHIN: u64 = 10;

/// Two runs of one sender begin this much apart at least.
const RUN_APART: Duration = Duration::from_secs(1);

/// One body of one sender.
#[derive(Debug)]
pub struct Report<'a> {
    /// The shard it reports for.
    pub shard_id: u32,
    /// Who reports.
    pub sender: InstanceKey,
    /// Its number, if the sender numbers its reports: one that is not above the last is late, and changes nothing.
    pub sequence: Option<u64>,
    /// When the sender began to count, if it said.
    pub started_at: Option<UnixTime>,
    /// How often the sender reports, if it said.
    pub interval: Option<Duration>,
    /// What the body stands for.
    pub scope: Scope,
    /// Everything it has, as far as the scope goes.
    pub families: &'a [ReportedFamily],
}

/// What a body replaces of what its sender said before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of it: a gauge that is not there has left.
    #[default]
    Everything,
    /// The families that it names; the others stay as they were.
    NamedFamilies,
}

/// One family of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportedFamily {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: MetricType,
    /// Its help text.
    pub help: String,
    /// Its unit; empty if none.
    pub unit: String,
    /// Its series.
    pub series: Vec<ReportedSeries>,
}

/// One series of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportedSeries {
    /// Its labels.
    pub labels: LabelSet,
    /// Its bounds or quantiles.
    pub bounds: Bounds,
    /// Its values, laid out as the type says.
    pub values: Vec<f64>,
    /// Its exemplars.
    pub exemplars: Vec<ReportedExemplar>,
    /// Where in the body it begins, for messages.
    pub place: BodyPlace,
}

/// Where something stands in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyPlace {
    /// On this line of a text, from 1.
    Line(usize),
    /// In this message of many, from 1.
    Message(usize),
}

impl fmt::Display for BodyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Message(number) => write!(f, "message {number}"),
        }
    }
}

/// Why nothing of a body was applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// A sample that cannot be.
    #[error("{place}: {family}{labels:?}: {problem}")]
    Bad {
        /// Where its series begins.
        place: BodyPlace,
        /// Its family.
        family: String,
        /// Its labels.
        labels: LabelSet,
        /// What is wrong.
        problem: BadSample,
    },
    /// Two series of the body are the same, or become so once the manager's labels are set.
    #[error("{place}: {family}{labels:?} is already there, see {first}")]
    Twice {
        /// Where the second begins.
        place: BodyPlace,
        /// Where the first begins.
        first: BodyPlace,
        /// Their family.
        family: String,
        /// Their labels.
        labels: LabelSet,
    },
    /// The sender's instance was folded, because many came after it.
    #[error(
        "this instance was silent while others came and went, and was closed; restart the sender, give it a new \
         X-Instance-Id, or DELETE its group"
    )]
    Closed,
    /// Without identity, two senders that post as one shard look like one that restarts all the time.
    #[error(
        "{place}: {family}{labels:?} fell again right after the sender of shard {shard_id} began anew: do two \
         processes post as this shard without an identity? Give each its own X-Instance-Id header, or send \
         process_start_time_seconds (prom-client: collectDefaultMetrics())"
    )]
    FellAgain {
        /// Where the series begins.
        place: BodyPlace,
        /// Its family.
        family: String,
        /// Its labels.
        labels: LabelSet,
        /// The shard.
        shard_id: u32,
    },
    /// The fleet has as many series as the manager takes, and the shard is new.
    #[error("the fleet has over {0} series, its limit (limits.series): no new shard is taken")]
    FleetFull(usize),
    /// As many instances as a shard may have are alive.
    #[error(
        "shard {0} has {MAX_INSTANCES} living instances, its limit; do all of them report for it?"
    )]
    TooManyInstances(u32),
    /// A gRPC client uses this identity.
    #[error("this instance already reports by gRPC; report one way only")]
    AlsoGrpc,
}

impl Registry {
    /// Takes a body, in parts by shard in rising order of id: what it says replaces what its sender said before. Families
    /// and series that conflict or are over a limit are rejected, the others applied. A late report is a
    /// [`Outcome::Duplicate`].
    ///
    /// # Errors
    /// If the body cannot be right; nothing of it was applied.
    pub fn report(
        &self,
        reports: &[Report<'_>],
        now: UnixTime,
    ) -> Result<Vec<Outcome>, ReportError> {
        self.report_placed(reports, now).map(|(outcomes, _)| outcomes)
    }

    /// The same, and where the series of the body stand now, if all of it was applied: what a [`Registry::repeat`] of it
    /// needs to know.
    ///
    /// # Errors
    /// As [`Registry::report`] has.
    pub fn report_placed(
        &self,
        reports: &[Report<'_>],
        now: UnixTime,
    ) -> Result<(Vec<Outcome>, Option<Placement>), ReportError> {
        for report in reports {
            check_body(report.families)?;
            if !self.may_have(report.shard_id) {
                return Err(ReportError::FleetFull(self.settings.max_series));
            }
        }
        let shared: Vec<_> = reports.iter().map(|report| self.shard(report.shard_id)).collect();
        // All at once, so that a body of several shards is applied as a whole. In order of id, so that two such bodies
        // cannot wait for each other.
        let mut shards: Vec<_> = shared.iter().map(|shard| shard.lock()).collect();
        for (report, shard) in reports.iter().zip(&mut shards) {
            self.check_sender(report, shard, now)?;
        }
        // Without identity, a fall anywhere in the body says that all of it is of a new sender.
        let fallen = reports.iter().zip(&shards).find_map(|(report, shard)| {
            let series = self.first_fall(report, shard)?;
            Some((report, shard, series))
        });
        if let Some((report, shard, fall)) = fallen {
            self.check_fall(report, shard, fall, now)?;
            for shard in &mut shards {
                self.end_anonymous(shard, now);
            }
        }
        let replace = |(report, shard): (&Report<'_>, &mut MutexGuard<'_, Shard>)| {
            self.replace(shard, report, now)
        };
        let (outcomes, parts): (_, Vec<_>) = reports.iter().zip(&mut shards).map(replace).unzip();
        let parts = parts.into_iter().collect::<Option<Vec<_>>>();
        Ok((outcomes, parts.map(Placement::new)))
    }

    /// Whether the sender may report at all.
    fn check_sender(
        &self,
        report: &Report<'_>,
        shard: &mut Shard,
        now: UnixTime,
    ) -> Result<(), ReportError> {
        if shard.closed_at(&report.sender).is_some() {
            return Err(ReportError::Closed);
        }
        let known = shard.position(&report.sender).and_then(|at| shard.instances.get(at));
        match known.map(|instance| instance.transport) {
            Some(Transport::Grpc) => Err(ReportError::AlsoGrpc),
            None if shard.is_full(now, self.settings.stale_after, &self.recorder) => {
                Err(ReportError::TooManyInstances(shard.id))
            }
            Some(Transport::Http) | None => Ok(()),
        }
    }

    /// The first series of a sender without identity whose count is lower than it was, if the report is not just late.
    fn first_fall<'a>(
        &self,
        report: &Report<'a>,
        shard: &Shard,
    ) -> Option<(&'a ReportedFamily, &'a ReportedSeries)> {
        if report.sender != InstanceKey::Anonymous {
            return None;
        }
        let at = shard.position(&report.sender)?;
        if is_late(report, shard.instances.get(at)?) {
            return None;
        }
        report.families.iter().find_map(|family| {
            let known = self.families.find(&family.name, family.kind)?;
            let fell = |series: &&ReportedSeries| {
                let count = family.kind.count_at(series.bounds.len());
                let Some(count) = count.and_then(|at| series.values.get(at)) else {
                    return false;
                };
                // Whatever its bounds.
                let id = shard.store.first_of(&known, &series.labels).map(|(id, _)| id);
                id.is_some_and(|id| shard.fell(at, id, *count))
                    || shard.part_fell(at, &known, series, *count)
            };
            family.series.iter().find(fell).map(|series| (family, series))
        })
    }

    /// Refuses a report without identity that fell soon after another: it looks like a second sender's rather than like
    /// the next run of the first.
    fn check_fall(
        &self,
        report: &Report<'_>,
        shard: &Shard,
        (family, series): (&ReportedFamily, &ReportedSeries),
        now: UnixTime,
    ) -> Result<(), ReportError> {
        let interval = report.interval.unwrap_or(self.settings.report_interval);
        if shard.fell_at.is_none_or(|at| now.since(at) >= interval * 3) {
            return Ok(());
        }
        Err(ReportError::FellAgain {
            place: series.place,
            family: family.name.clone(),
            labels: series.labels.clone(),
            shard_id: shard.id,
        })
    }

    fn end_anonymous(&self, shard: &mut Shard, now: UnixTime) {
        if let Some(at) = shard.position(&InstanceKey::Anonymous) {
            shard.close(at, Departure::Restarted, now, self.settings.stale_after, &self.recorder);
        }
    }

    /// Ends what `sender` reports for these shards: its counts stay, its gauges go. Returns the shards in which it did.
    pub fn end(
        &self,
        sender: &InstanceKey,
        shards: RangeInclusive<u32>,
        now: UnixTime,
    ) -> Vec<u32> {
        let known: Vec<_> = self.shards.read().range(shards).map(|(id, _)| *id).collect();
        let end = |id: &u32| {
            let shared = self.shard(*id);
            let mut shard = shared.lock();
            let open = shard.position(sender);
            let open = open.filter(|at| shard.instances.get(*at).is_some_and(|i| !i.closed));
            if let Some(at) = open {
                shard.close(at, Departure::Goodbye, now, self.settings.stale_after, &self.recorder);
            }
            // One that was folded while it was silent may begin anew from here.
            let was_folded = shard.forget_ended(sender);
            if was_folded {
                shard.record_all(&self.recorder);
            }
            open.is_some() || was_folded
        };
        known.into_iter().filter(end).collect()
    }

    /// Those of the shards `lowest` to `highest` that `sender` reports for.
    #[must_use]
    pub fn shards_of(&self, sender: &InstanceKey, lowest: u32, highest: u32) -> Vec<u32> {
        let shards = self.shards.read();
        let known = |shard: &Arc<SharedShard>| shard.peek().position(sender).is_some();
        shards
            .range(lowest..=highest)
            .filter(|(_, shard)| known(shard))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Replaces what a sender said before of one shard. Returns where the series of this part stand too, if all of it was
    /// taken.
    fn replace(
        &self,
        shard: &mut Shard,
        report: &Report<'_>,
        now: UnixTime,
    ) -> (Outcome, Option<Part>) {
        let known = shard.position(&report.sender).and_then(|at| shard.instances.get(at));
        if known.is_some_and(|instance| is_late(report, instance)) {
            return (Outcome::Duplicate, None);
        }
        let is_new_run =
            known.is_some_and(|instance| runs_apart(report, instance) == Ordering::Greater);
        self.make_way_for_body(shard, report, now);
        let placed = self.place_all(shard, report, now);
        let at = shard.join(report.sender.clone(), Transport::Http, now, &self.recorder);
        let news = news(shard, at, report, is_new_run, &placed);
        let durable = self.commit(shard, at, report, news, now);
        let Placed { series, parts, mut refused } = placed;
        for (id, series) in &series {
            for reported in &series.exemplars {
                if let Err(rejected) = shard.exemplify(*id, reported, now) {
                    refused.say(rejected, 1);
                }
            }
        }
        let samples = series.len() + parts.len();
        // What is counted together with others, or not at all, is looked up every time.
        let is_plain = parts.is_empty() && refused.samples == [0; Reason::COUNTED.len()];
        let part = is_plain && refused.list.is_empty();
        let part = part.then(|| series.iter().map(|(id, _)| *id).collect());
        let part = part.and_then(|series| Part::new(shard, at, series));
        (Outcome::Applied(Applied { samples, rejected: refused.list, durable }), part)
    }

    /// Records and applies what a report of instance `at` comes to. Returns whether it is durable.
    fn commit(
        &self,
        shard: &mut Shard,
        at: usize,
        report: &Report<'_>,
        news: News,
        now: UnixTime,
    ) -> bool {
        let is_new_run = news.is_new_run;
        let sessions = shard.sessions_among(&news.series, &news.values);
        let stale_after = self.settings.stale_after;
        let mut events = shard.arrival(at, is_new_run, now, stale_after);
        events.extend(shard.session_events(at, &sessions, is_new_run, now));
        let steps = steps(shard, at, report, news, now);
        // As one record: a report without what it says of itself would be judged by what the one before it said.
        let changes: Vec<_> = steps.into_iter().map(|step| Change::Shard(shard.id, step)).collect();
        let durable = shard.record_events(&self.recorder, &changes, events);
        for change in changes {
            if let Change::Shard(_, step) = change {
                shard.follow(at, step);
            }
        }
        shard.settle(now, stale_after);
        durable
    }
}

/// What of a report changes something.
#[derive(Debug, Default)]
struct News {
    /// What it counts comes on top of what the sender counted before.
    is_new_run: bool,
    /// Series with other values than the sender reported last.
    series: Vec<u32>,
    /// Their values, one series after the other.
    values: Vec<f64>,
    /// Series that it no longer has.
    left: Vec<u32>,
    /// What it says of parts of merged series.
    parts: AcceptedParts,
    /// Samples that are not taken, by [`Reason::COUNTED`].
    rejected: [u64; Reason::COUNTED.len()],
}

/// What a report of instance `at` comes to.
fn steps(
    shard: &Shard,
    at: usize,
    report: &Report<'_>,
    news: News,
    now: UnixTime,
) -> Vec<Step<'static>> {
    let Some(instance) = shard.instances.get(at) else {
        return Vec::new();
    };
    let ordinal = instance.ordinal;
    let (started_at, interval) = (report.started_at, report.interval);
    let about = About { client: "".into(), started_at, interval };
    let mut steps: Vec<_> = shard.description(at, about).into_iter().collect();
    if news.is_new_run {
        steps.push(Step::Anew { ordinal });
    }
    steps.push(Step::Report(ReportStep {
        ordinal,
        sequence: report.sequence.unwrap_or(instance.last_sequence),
        at: now,
        series: news.series.into(),
        values: news.values.into(),
        left: news.left.into(),
        parts: news.parts.into_values(),
        rejected: news.rejected,
    }));
    steps
}

/// Whether a report was sent before the last one that was applied: by an earlier run of the sender, or with a number that is
/// a little lower. One that is much lower is of a sender that was restarted and numbers from 1 again.
fn is_late(report: &Report<'_>, instance: &Instance) -> bool {
    match runs_apart(report, instance) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => report.sequence.is_some_and(|sequence| {
            let behind = instance.last_sequence.checked_sub(sequence);
            behind.is_some_and(|behind| behind < LATE_WITHIN)
        }),
    }
}

/// Whether the report is of a later run of the sender than the last one, an earlier one, or, as far as is known, the same.
fn runs_apart(report: &Report<'_>, instance: &Instance) -> Ordering {
    let (Some(now), Some(before)) = (report.started_at, instance.about.started_at) else {
        return Ordering::Equal;
    };
    // Some clients compute their start anew each time, and are some milliseconds off.
    if now.since(before).max(before.since(now)) < RUN_APART {
        Ordering::Equal
    } else {
        now.cmp(&before)
    }
}

/// Why a sample of a family that gave way is not taken.
pub(super) fn gave_way(family: &Family) -> Rejected {
    Rejected {
        family: family.name.clone(),
        reason: Reason::TypeConflict,
        message: "another family that claims this name reported before it".to_owned(),
        series: 0,
    }
}
