//! What a shard's instances say of label sets that are parts of merged series.

use hashbrown::HashSet;

use super::Shard;
use crate::registry::{
    Family, ReportedSeries,
    change::PartValues,
    limits::merged_bounds,
    parts::PartId,
    store::{Series, SeriesId},
};

impl Shard {
    /// Values of parts of merged series, over all instances.
    pub(in crate::registry) fn parts(&self) -> usize {
        self.instances.iter().map(|instance| instance.parts.len()).sum()
    }

    /// Takes what instance `at` says of parts of merged series.
    pub(in crate::registry) fn take_parts(
        &mut self,
        at: usize,
        said: &PartValues<'_>,
        may_fall: bool,
    ) {
        let mut rest = &said.values[..];
        let mut more = Vec::new();
        let mut changed: Vec<_> = said.left.iter().map(|(merged, _)| *merged).collect();
        for (merged, part) in said.merged.iter().zip(said.parts.iter()) {
            if changed.last() != Some(merged) {
                changed.push(*merged);
            }
            let merged = SeriesId::new(*merged);
            let width = self.store.get(merged).map_or(0, Series::width);
            let Some((values, after)) = rest.split_at_checked(width) else {
                break;
            };
            rest = after;
            self.take_part(at, merged, *part, values, may_fall, &mut more);
        }
        if let Some(instance) = self.instances.get_mut(at) {
            said.left
                .iter()
                .for_each(|(merged, part)| instance.parts.set_gauge(*merged, *part, None));
        }
        changed.sort_unstable();
        changed.dedup();
        changed.into_iter().for_each(|merged| self.refresh_merged(at, SeriesId::new(merged)));
    }

    /// `more` is kept for its memory.
    fn take_part(
        &mut self,
        at: usize,
        merged: SeriesId,
        part: PartId,
        values: &[f64],
        may_fall: bool,
        more: &mut Vec<f64>,
    ) {
        let (Some(series), Some(instance)) = (self.store.get(merged), self.instances.get_mut(at))
        else {
            return;
        };
        instance.hold(merged);
        let Some(count_at) = series.kind.count_at(series.bounds.len()) else {
            instance.parts.set_gauge(merged.index() as u32, part, values.first().copied());
            return;
        };
        let begins_anew = |before: &[f64]| may_fall && values.get(count_at) < before.get(count_at);
        instance.parts.count(part, values, begins_anew, more);
        for (slot, more) in (series.slot()..).zip(&*more) {
            instance.add(slot, *more);
        }
    }

    /// Parts of a merged series changed.
    fn refresh_merged(&mut self, at: usize, merged: SeriesId) {
        let first = self.store.count(merged);
        let family = self.store.get(merged).and_then(|series| self.store.family_of(series));
        let combine = family.and_then(|family| family.treatment.gauges);
        let slot = self.store.get(merged).map(Series::slot);
        if let (Some(combine), Some(slot), Some(instance)) =
            (combine, slot, self.instances.get_mut(at))
        {
            match instance.parts.combined(merged.index() as u32, combine) {
                Some(value) => instance.assign(merged, slot, &[value]),
                None => instance.remove(merged),
            }
        }
        if first {
            self.store.touch(merged);
        }
        self.refresh(merged);
    }

    /// The same of gauges that are parts of merged series.
    pub(in crate::registry) fn parts_left_out(
        &self,
        at: usize,
        present: &HashSet<(u32, PartId)>,
        families: Option<&HashSet<&str>>,
    ) -> Vec<(u32, PartId)> {
        let Some(instance) = self.instances.get(at) else {
            return Vec::new();
        };
        let parts = instance.parts.gauges().filter(|part| !present.contains(part));
        let is_named = |(merged, _): &(u32, PartId)| {
            let series = self.store.get(SeriesId::new(*merged));
            let family = series.and_then(|series| self.store.family_of(series));
            families.is_none_or(|named| family.is_some_and(|family| named.contains(&*family.name)))
        };
        parts.filter(is_named).collect()
    }

    /// Whether instance `at` said exactly this last of a part of a merged series.
    pub(in crate::registry) fn has_reported_part(
        &self,
        at: usize,
        merged: SeriesId,
        part: PartId,
        values: &[f64],
    ) -> bool {
        let Some(instance) = self.instances.get(at).filter(|instance| instance.has(merged)) else {
            return false;
        };
        let is_same =
            |last: &[f64]| last.iter().map(|v| v.to_bits()).eq(values.iter().map(|v| v.to_bits()));
        let gauge = instance.parts.gauge(merged.index() as u32, part);
        instance.parts.counted(part, values.len()).is_some_and(is_same)
            || gauge.is_some_and(|last| is_same(&[last]))
    }

    /// Whether the count of a label set that is counted together with others fell below what the instance said last.
    pub(in crate::registry) fn part_fell(
        &self,
        at: usize,
        family: &Family,
        series: &ReportedSeries,
        count: f64,
    ) -> bool {
        let Some(instance) = self.instances.get(at).filter(|i| i.parts.len() > 0) else {
            return false;
        };
        let bounds = merged_bounds(family.kind, &series.bounds);
        let part = PartId::of(family, series.labels.as_str(), &bounds);
        let last = instance.parts.counted(part, family.kind.width(bounds.len()));
        let last = last.and_then(|last| last.get(family.kind.count_at(bounds.len())?));
        last.is_some_and(|last| count < *last)
    }
}
