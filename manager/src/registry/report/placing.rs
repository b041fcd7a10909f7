//! Whether a body can be, where its series are counted, and what of it is new.

use std::sync::Arc;

use hashbrown::HashSet;

use super::{
    News, Report, ReportError, ReportedFamily, ReportedSeries, Scope, check, gave_way,
    refused::Refused,
};
use crate::{
    clock::UnixTime,
    model::FamilyHead,
    registry::{
        Family, Reason, Registry,
        family::Asking,
        limits::{Place, Sender},
        parts::PartId,
        shard::Shard,
        store::SeriesId,
    },
};

impl Registry {
    /// Makes room for the series of a body, if that is possible and they need it.
    pub(super) fn make_way_for_body(&self, shard: &mut Shard, report: &Report<'_>, now: UnixTime) {
        let series: usize = report.families.iter().map(|family| family.series.len()).sum();
        if self.has_room(shard, series) {
            return; // as nearly always
        }
        let at = shard.position(&report.sender);
        let wanted = report.families.iter().filter_map(|reported| {
            let family = self.families.find(&reported.name, reported.kind);
            // Merged series are few, and one that overflowed admits no new ones.
            let takes_none = |f: &Arc<Family>| f.treatment.merges() || shard.has_overflowed(at, f);
            let labels = reported.series.iter().map(|series| &series.labels).collect();
            (!family.as_ref().is_some_and(takes_none)).then_some((family, labels))
        });
        let wanted: Vec<_> = wanted.collect();
        self.make_way(shard, &wanted, |_| false, now);
    }

    /// Finds or makes the series of a body.
    pub(super) fn place_all<'a>(
        &self,
        shard: &mut Shard,
        report: &Report<'a>,
        now: UnixTime,
    ) -> Placed<'a> {
        let (mut placed, mut own) = (Placed::default(), HashSet::new());
        let refused = &mut placed.refused;
        let first_new = shard.store.len();
        let sender = Sender {
            at: shard.position(&report.sender),
            started_at: report.started_at.unwrap_or(now).min(now),
        };
        for reported in report.families {
            let head = FamilyHead {
                name: &reported.name,
                kind: reported.kind,
                help: &reported.help,
                unit: &reported.unit,
            };
            let asking = Asking { head, own: &own, shard_id: shard.id, now };
            let room = || self.check_family(shard, head);
            let family = match self.families.resolve(&asking, &self.recorder, room) {
                Ok(family) => family,
                Err(rejected) => {
                    refused.note(rejected, reported.series.len());
                    continue;
                }
            };
            own.insert(family.id);
            for series in &reported.series {
                match self.place(shard, sender, &family, &series.labels, &series.bounds) {
                    Ok(Place::Series(id) | Place::Part { merged: id, .. })
                        if !shard.store.claim(id) =>
                    {
                        refused.note(gave_way(&family), 1);
                    }
                    Ok(Place::Series(id)) => placed.series.push((id, series)),
                    Ok(Place::Part { merged, part, is_over }) => {
                        if is_over {
                            refused.say_overflow(&family);
                        }
                        placed.parts.push((merged, part, series));
                    }
                    Err(rejected) => refused.note(rejected, 1),
                }
            }
        }
        shard.record_series(first_new, &self.recorder);
        placed
    }
}

/// Where the series of a body are counted.
#[derive(Debug, Default)]
pub(super) struct Placed<'a> {
    /// As series of their own.
    pub(super) series: Vec<(SeriesId, &'a ReportedSeries)>,
    /// As parts of merged series.
    pub(super) parts: Vec<(SeriesId, PartId, &'a ReportedSeries)>,
    pub(super) refused: Refused,
}

/// What of a body of instance `at` changes something.
pub(super) fn news(
    shard: &Shard,
    at: usize,
    report: &Report<'_>,
    is_new_run: bool,
    placed: &Placed<'_>,
) -> News {
    let Placed { series, parts, refused } = placed;
    let named: Option<HashSet<&str>> = match report.scope {
        Scope::Everything => None,
        Scope::NamedFamilies => Some(report.families.iter().map(|f| &*f.name).collect()),
    };
    let merged = parts.iter().map(|(merged, ..)| *merged);
    let present = series.iter().map(|(id, _)| *id).chain(merged).collect();
    let present_parts = parts.iter().map(|(id, part, _)| (id.index() as u32, *part)).collect();
    let mut news = News {
        is_new_run,
        left: shard.left_out(at, &present, named.as_ref()),
        rejected: refused.samples,
        ..News::default()
    };
    if refused.samples.get(Reason::TypeConflict as usize).is_some_and(|samples| *samples > 0) {
        news.left.extend(shard.retyped(at, report.families));
    }
    for (id, series) in series {
        if is_new_run || !shard.has_reported(at, *id, &series.values) {
            news.series.push(id.index() as u32);
            news.values.extend(&series.values);
        }
    }
    let known = (!is_new_run).then_some(at);
    for (merged, part, series) in parts {
        news.parts.take(shard, known, (*merged, *part), &series.values);
    }
    news.parts.left = shard.parts_left_out(at, &present_parts, named.as_ref());
    news
}

/// What can be said of a body without knowing the shard.
pub(super) fn check_body(families: &[ReportedFamily]) -> Result<(), ReportError> {
    let mut places = hashbrown::HashMap::new();
    for family in families {
        places.clear();
        for series in &family.series {
            check::check(family.kind, &series.bounds, None, &series.values).map_err(|problem| {
                ReportError::Bad {
                    place: series.place,
                    family: family.name.clone(),
                    labels: series.labels.clone(),
                    problem,
                }
            })?;
            if let Some(first) = places.insert(&series.labels, series.place) {
                return Err(ReportError::Twice {
                    place: series.place,
                    first,
                    family: family.name.clone(),
                    labels: series.labels.clone(),
                });
            }
        }
    }
    Ok(())
}
