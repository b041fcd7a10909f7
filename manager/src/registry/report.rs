//! How a whole body of an HTTP sender is taken (design section 5): it replaces what that sender said before.

use std::sync::Arc;

use hashbrown::HashSet;

use super::{
    Applied, BadSample, Family, Reason, Registry, Rejected, Transport, UnixTime, check,
    instance::{Instance, InstanceKey},
    shard::Shard,
    store::SeriesId,
};
use crate::model::{Bounds, FamilyHead, LabelSet, MetricType};

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
        for (report, shard) in reports.iter().zip(&shards) {
            check_sender(report, shard)?;
        }
        Ok(reports
            .iter()
            .zip(&mut shards)
            .map(|(report, shard)| self.replace(shard, report, now))
            .collect())
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
        let at = known.unwrap_or_else(|| {
            shard.join(report.sender.clone(), Transport::Http, now, stale_after)
        });
        assign_all(shard, at, report, &placed);
        shard.reported(at, now, stale_after);
        Applied { samples: placed.len(), rejected }
    }

    /// Finds or makes the series of a body.
    fn place_all<'a>(
        &self,
        shard: &mut Shard,
        families: &'a [ReportedFamily],
        rejected: &mut Vec<Rejected>,
    ) -> Vec<(SeriesId, &'a ReportedSeries)> {
        let mut placed = Vec::new();
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
            let family = match self.families.resolve(head) {
                Ok(family) => family,
                Err(refused) => {
                    refuse(shard, refused, reported.series.len());
                    continue;
                }
            };
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
        self.check_room(shard, family)?;
        Ok(shard.store.add(family, labels, self.families.share(bounds)))
    }

    fn check_room(&self, shard: &Shard, family: &Family) -> Result<(), Rejected> {
        let message = if shard.store.len() >= self.settings.max_series_per_shard {
            format!("shard {} has {} series, its limit", shard.id, shard.store.len())
        } else if shard.store.len_of(family) >= self.settings.max_series_per_family {
            format!(
                "shard {} has {} series of this family, its limit",
                shard.id,
                shard.store.len_of(family)
            )
        } else {
            return Ok(());
        };
        Err(Rejected { family: family.name.clone(), reason: Reason::Limit, message, series: 0 })
    }
}

fn assign_all(
    shard: &mut Shard,
    at: usize,
    report: &Report<'_>,
    placed: &[(SeriesId, &ReportedSeries)],
) {
    shard.make_room();
    let (slots, series) = (shard.store.slots(), shard.store.len());
    if let Some(instance) = shard.instances.get_mut(at) {
        instance.make_room(slots, series);
        instance.started_at = report.started_at;
    }
    for (id, series) in placed {
        if fell(shard, at, *id, &series.values) {
            // The same identity with a lower count: that series alone began anew.
            shard.carry(at, *id);
        }
        shard.assign(at, *id, &series.values);
    }
    let present: HashSet<_> = placed.iter().map(|(id, _)| *id).collect();
    shard.keep_only(at, |id| present.contains(&id));
}

/// Whether the sender may report at all.
fn check_sender(report: &Report<'_>, shard: &Shard) -> Result<(), ReportError> {
    if shard.closed_at(&report.sender).is_some() {
        return Err(ReportError::Closed);
    }
    let known = shard.position(&report.sender).and_then(|at| shard.instances.get(at));
    match known {
        Some(instance) if instance.transport == Transport::Grpc => Err(ReportError::AlsoGrpc),
        _ => Ok(()),
    }
}

/// Whether a count of the series fell below what the instance reported last (a histogram is judged by its `_count`).
fn fell(shard: &Shard, at: usize, id: SeriesId, values: &[f64]) -> bool {
    let (Some(series), Some(instance)) = (shard.store.get(id), shard.instances.get(at)) else {
        return false;
    };
    let count = match series.kind {
        MetricType::Counter => 0,
        MetricType::Histogram | MetricType::Summary => series.bounds.len(),
        MetricType::Gauge | MetricType::Untyped => return false,
    };
    values
        .get(count)
        .is_some_and(|value| *value < Instance::reported(instance, series.slot + count))
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

/// Adds to the list of what was rejected, one entry a family and reason.
fn note(list: &mut Vec<Rejected>, rejected: Rejected, series: u32) {
    match list.iter_mut().find(|r| r.family == rejected.family && r.reason == rejected.reason) {
        Some(said) => said.series += series,
        None => list.push(Rejected { series, ..rejected }),
    }
}
