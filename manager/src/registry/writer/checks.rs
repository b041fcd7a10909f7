//! Whether a frame can be what it claims to be. Nothing is changed by looking.

use super::{Target, Writer};
use crate::{
    model::Samples,
    registry::{
        BadSample, FrameError, ReportedExemplar, check, exemplars, shard::Shard, store::SeriesId,
    },
};

impl Writer {
    /// Checks the samples and changes nothing. Returns the first id that is not defined.
    pub(super) fn check(
        &mut self,
        shard: &Shard,
        at: usize,
        samples: Samples<'_>,
    ) -> Result<Option<u32>, FrameError> {
        let mut rest = samples.values;
        for &wire_id in samples.ids {
            let Some(defined) = self.ids.get(wire_id as usize) else {
                return Ok(Some(wire_id));
            };
            let (target, width) = (defined.target, defined.width());
            if self.name(wire_id) {
                return Err(FrameError::Twice(wire_id));
            }
            let Some((values, after)) = rest.split_at_checked(width) else {
                return Err(self.value_count(samples));
            };
            rest = after;
            if let Target::Series(id) = target
                && let (Some(series), Some(instance)) =
                    (shard.store.get(id), shard.instances.get(at))
            {
                let before = instance.reported_values(series.slot(), width);
                let same = check::check(series.kind, &series.bounds, before, values);
                same.and_then(|()| check_group(shard, at, id, values)).map_err(|problem| {
                    FrameError::Bad {
                        id: wire_id,
                        family: shard.store.family_of(series).map_or("", |f| &f.name).into(),
                        labels: format!("{{{}}}", shard.store.labels(series)),
                        problem,
                    }
                })?;
            }
            if let Target::Part(place) = target {
                self.check_part(shard, at, place, values).map_err(|(family, problem)| {
                    FrameError::BadPart { id: wire_id, family, problem }
                })?;
            }
        }
        if rest.is_empty() { Ok(None) } else { Err(self.value_count(samples)) }
    }

    /// Checks a sample of a part of a merged series.
    fn check_part(
        &self,
        shard: &Shard,
        at: usize,
        place: u32,
        values: &[f64],
    ) -> Result<(), (Box<str>, BadSample)> {
        let Some((merged, part)) = self.parts.get(place as usize).copied() else { return Ok(()) };
        let Some((series, instance)) = shard.store.get(merged).zip(shard.instances.get(at)) else {
            return Ok(());
        };
        let width = series.width();
        let values = values.get(values.len().saturating_sub(width)..).unwrap_or_default();
        let before = instance.parts.counted(part, width);
        check::check(series.kind, &series.bounds, before, values).map_err(|problem| {
            (shard.store.family_of(series).map_or("", |f| &f.name).into(), problem)
        })
    }

    /// Checks that all exemplars are of counters or buckets that are there. Of series that are rejected nothing more is known.
    pub(super) fn check_exemplars(
        &self,
        shard: &Shard,
        exemplars: &[(u32, ReportedExemplar)],
    ) -> Result<(), FrameError> {
        for &(id, ReportedExemplar { bucket, .. }) in exemplars {
            let wrong = |what| Err(FrameError::Exemplar { id, bucket, what });
            let Some(defined) = self.ids.get(id as usize) else {
                return wrong("the id is not defined on this stream");
            };
            let Target::Series(series) = defined.target else {
                continue;
            };
            let series = shard.store.get(series);
            if series.is_some_and(|s| !exemplars::has_bucket(s.kind, s.bounds.len(), bucket)) {
                return wrong("only counters (bucket 0) and buckets of histograms have exemplars");
            }
        }
        Ok(())
    }

    fn value_count(&self, samples: Samples<'_>) -> FrameError {
        let widths = samples.ids.iter().filter_map(|id| self.ids.get(*id as usize));
        FrameError::ValueCount {
            expected: widths.map(|t| t.width()).sum(),
            got: samples.values.len(),
        }
    }
}

/// Whether a count fell although the instance reports it with other bounds than before.
fn check_group(shard: &Shard, at: usize, id: SeriesId, values: &[f64]) -> Result<(), BadSample> {
    let grouped = shard.store.get(id).filter(|series| series.is_grouped());
    let Some(count) =
        grouped.and_then(|s| s.kind.count_at(s.bounds.len())).and_then(|at| values.get(at))
    else {
        return Ok(());
    };
    let before = shard.others(id).into_iter().filter_map(|other| shard.reported_count(at, other));
    match before.fold(0.0, f64::max) {
        before if *count < before => Err(BadSample::Fell(before, *count)),
        _ => Ok(()),
    }
}
