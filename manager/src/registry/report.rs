//! How a whole body of an HTTP sender is taken (design section 5): it replaces what that sender said before.

use std::sync::Arc;

use hashbrown::HashSet;
use parking_lot::Mutex;

use super::{
    Applied, BadSample, Family, MAX_SAID, Reason, Registry, Rejected, Transport, UnixTime, check,
    instance::InstanceKey,
    shard::{MAX_INSTANCES, Shard},
    store::SeriesId,
};
use crate::model::{Bounds, FamilyHead, LabelSet, MetricType};

/// Sets of bounds one label set may be reported with, over all instances: a new version of a bot brings one more.
const MAX_BOUNDS_OF_SERIES: usize = 8;

/// One body of one sender.
#[derive(Debug)]
pub struct Report<'a> {
    /// The shard it reports for.
    pub shard_id: u32,
    /// Who reports.
    pub sender: InstanceKey,
    /// When the sender began to count, if it said.
    pub started_at: Option<UnixTime>,
    /// Everything it has.
    pub families: &'a [ReportedFamily],
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
    /// Line of the body on which it begins, for messages.
    pub line: usize,
}

/// Why nothing of a body was applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// A sample that cannot be.
    #[error("line {line}: {family}{labels:?}: {problem}")]
    Bad {
        /// Where its series begins.
        line: usize,
        /// Its family.
        family: String,
        /// Its labels.
        labels: LabelSet,
        /// What is wrong.
        problem: BadSample,
    },
    /// Two series of the body are the same, or become so once the manager's labels are set.
    #[error("line {line}: {family}{labels:?} is already there on line {first}")]
    Twice {
        /// Where the second begins.
        line: usize,
        /// Where the first begins.
        first: usize,
        /// Their family.
        family: String,
        /// Their labels.
        labels: LabelSet,
    },
    /// The sender's instance was folded after it had been silent.
    #[error(
        "this instance was silent for so long that it was closed; restart the sender, or give it a new X-Instance-Id"
    )]
    Closed,
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
    /// and series that conflict or are over a limit are rejected, the others applied.
    ///
    /// # Errors
    /// If the body cannot be right; nothing of it was applied.
    pub fn report(
        &self,
        reports: &[Report<'_>],
        now: UnixTime,
    ) -> Result<Vec<Applied>, ReportError> {
        for report in reports {
            check_body(report.families)?;
        }
        let shared: Vec<_> = reports.iter().map(|report| self.shard(report.shard_id)).collect();
        // All at once, so that a body of several shards is applied as a whole. In order of id, so that two such bodies
        // cannot wait for each other.
        let mut shards: Vec<_> = shared.iter().map(|shard| shard.lock()).collect();
        for (report, shard) in reports.iter().zip(&mut shards) {
            self.check_sender(report, shard, now)?;
        }
        Ok(reports
            .iter()
            .zip(&mut shards)
            .map(|(report, shard)| self.replace(shard, report, now))
            .collect())
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
            None if shard.is_full(now, self.settings.stale_after) => {
                Err(ReportError::TooManyInstances(shard.id))
            }
            Some(Transport::Http) | None => Ok(()),
        }
    }

    /// Those of the shards `lowest` to `highest` that `sender` reports for.
    #[must_use]
    pub fn shards_of(&self, sender: &InstanceKey, lowest: u32, highest: u32) -> Vec<u32> {
        let shards = self.shards.read();
        let known = |shard: &Arc<Mutex<Shard>>| shard.lock().position(sender).is_some();
        shards
            .range(lowest..=highest)
            .filter(|(_, shard)| known(shard))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Replaces what a sender said before of one shard.
    fn replace(&self, shard: &mut Shard, report: &Report<'_>, now: UnixTime) -> Applied {
        let stale_after = self.settings.stale_after;
        let mut known = shard.position(&report.sender);
        let mut rejected = Vec::new();
        let placed = self.place_all(shard, report.families, &mut rejected);

        if report.sender == InstanceKey::Anonymous
            && let Some(at) = known
            && placed.iter().any(|(id, series)| fell(shard, at, *id, &series.values))
        {
            shard.close(at, now, stale_after);
            known = None;
        }
        let at = known.unwrap_or_else(|| shard.join(report.sender.clone(), Transport::Http, now));
        let samples = assign_all(shard, at, report, &placed);
        shard.reported(at, now, stale_after);
        Applied { samples, rejected }
    }

    /// Finds or makes the series of a body.
    fn place_all<'a>(
        &self,
        shard: &mut Shard,
        families: &'a [ReportedFamily],
        rejected: &mut Vec<Rejected>,
    ) -> Vec<(SeriesId, &'a ReportedSeries)> {
        let (mut placed, mut own) = (Vec::new(), HashSet::new());
        for reported in families {
            let head = FamilyHead {
                name: &reported.name,
                kind: reported.kind,
                help: &reported.help,
                unit: "",
            };
            let mut refuse = |shard: &mut Shard, refused: Rejected, series: usize| {
                shard.count_rejected(refused.reason, series as u64);
                note(rejected, refused, series as u32);
            };
            let family =
                match self.families.resolve(head, &own, || self.check_shard(shard, head.name)) {
                    Ok(family) => family,
                    Err(refused) => {
                        refuse(shard, refused, reported.series.len());
                        continue;
                    }
                };
            own.insert(family.id);
            for series in &reported.series {
                let (labels, bounds) = (series.labels.clone(), series.bounds.clone());
                match self.place(shard, &family, labels, bounds) {
                    Ok(id) => placed.push((id, series)),
                    Err(refused) => refuse(shard, refused, 1),
                }
            }
        }
        placed
    }

    /// The place of a series in a shard, made now if there is room for it.
    pub(super) fn place(
        &self,
        shard: &mut Shard,
        family: &Arc<Family>,
        labels: LabelSet,
        bounds: Bounds,
    ) -> Result<SeriesId, Rejected> {
        if let Some(id) = shard.store.find(family, &labels, &bounds) {
            return Ok(id);
        }
        self.check_room(shard, family, &labels)?;
        Ok(shard.store.add(family, labels, self.families.share(bounds)))
    }

    /// Whether a shard can have one more series, of a family called `name`.
    pub(super) fn check_shard(&self, shard: &Shard, name: &str) -> Result<(), Rejected> {
        if shard.store.len() < self.settings.max_series_per_shard {
            return Ok(());
        }
        Err(over_limit(
            name,
            format!("shard {} has {} series, its limit", shard.id, shard.store.len()),
        ))
    }

    fn check_room(
        &self,
        shard: &Shard,
        family: &Family,
        labels: &LabelSet,
    ) -> Result<(), Rejected> {
        self.check_shard(shard, &family.name)?;
        let of_family = shard.store.len_of(family);
        if of_family >= self.settings.max_series_per_family {
            let message =
                format!("shard {} has {of_family} series of this family, its limit", shard.id);
            return Err(over_limit(&family.name, message));
        }
        let bounds = shard.store.first_of(family, labels).map_or(0, |(_, bounds)| bounds);
        if bounds >= MAX_BOUNDS_OF_SERIES {
            let message =
                format!("{labels:?} was reported with {bounds} sets of bounds, the limit");
            return Err(over_limit(&family.name, message));
        }
        Ok(())
    }
}

fn over_limit(family: &str, message: String) -> Rejected {
    Rejected { family: family.into(), reason: Reason::Limit, message, series: 0 }
}

/// Assigns what was placed; returns how many series were taken.
fn assign_all(
    shard: &mut Shard,
    at: usize,
    report: &Report<'_>,
    placed: &[(SeriesId, &ReportedSeries)],
) -> usize {
    shard.make_room();
    let (slots, series) = (shard.store.slots(), shard.store.len());
    if let Some(instance) = shard.instances.get_mut(at) {
        instance.make_room(slots, series);
        instance.started_at = report.started_at;
    }
    let mut applied = 0;
    for (id, series) in placed {
        if fell(shard, at, *id, &series.values) {
            // The same identity with a lower count: that series alone began anew.
            shard.carry(at, *id);
        }
        applied += usize::from(shard.assign(at, *id, &series.values));
    }
    let present: HashSet<_> = placed.iter().map(|(id, _)| *id).collect();
    shard.keep_only(at, |id| present.contains(&id));
    applied
}

/// Whether a count of the series fell below what the instance reported last (a histogram is judged by its `_count`).
fn fell(shard: &Shard, at: usize, id: SeriesId, values: &[f64]) -> bool {
    let count_at = shard.store.get(id).and_then(|s| s.kind.count_at(s.bounds.len()));
    let Some(count) = count_at.and_then(|at| values.get(at)) else {
        return false;
    };
    let mut same_labels = shard.others(id);
    same_labels.push(id);
    same_labels.iter().any(|id| shard.reported_count(at, *id).is_some_and(|last| *count < last))
}

/// What can be said of a body without knowing the shard.
fn check_body(families: &[ReportedFamily]) -> Result<(), ReportError> {
    let mut lines = hashbrown::HashMap::new();
    for family in families {
        lines.clear();
        for series in &family.series {
            check::check(family.kind, &series.bounds, None, &series.values).map_err(|problem| {
                ReportError::Bad {
                    line: series.line,
                    family: family.name.clone(),
                    labels: series.labels.clone(),
                    problem,
                }
            })?;
            if let Some(first) = lines.insert(&series.labels, series.line) {
                return Err(ReportError::Twice {
                    line: series.line,
                    first,
                    family: family.name.clone(),
                    labels: series.labels.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Adds to the list of what was rejected: one entry a family, and no longer than anybody reads.
fn note(list: &mut Vec<Rejected>, rejected: Rejected, series: u32) {
    // A family's series come one after the other.
    if let Some(last) = list.last_mut().filter(|last| last.is_same(&rejected)) {
        last.series += series;
    } else if list.len() < MAX_SAID {
        list.push(Rejected { series, ..rejected });
    }
}
