//! What a shard shows of its series: base and instances added up, gauges of the owner, one set of buckets a label set.

use super::{
    Family,
    fleet::FLEET,
    instance::Instance,
    shard::Shard,
    store::{Series, SeriesId},
};
use crate::{
    clock::UnixTime,
    model::{Bounds, Exemplar, MetricType},
};

impl Shard {
    /// Computes anew what is exposed of a series, or of the one shown in its place.
    pub(super) fn refresh(&mut self, id: SeriesId) {
        let Some(series) = self.store.get_mut(id) else {
            return;
        };
        let (slot, width) = (series.slot(), series.width());
        let owned = series.kind.owned(series.bounds.len());
        let Some(exposed) = self.exposed.get_mut(slot..slot + width) else {
            return;
        };
        let mut changed = false;
        if owned > 0 {
            let owner = self.instances.iter().rfind(|i| i.owns && i.has(id));
            let of_owner = owner.and_then(|i| i.values(slot, owned));
            changed = series.owned != of_owner.is_some();
            series.owned = of_owner.is_some();
            for (exposed, value) in exposed.iter_mut().zip(of_owner.unwrap_or_default()) {
                changed |= replace(exposed, *value);
            }
        }
        let (shows_owner, grouped) = (series.owned, series.is_grouped());
        for (at, exposed) in exposed.iter_mut().enumerate().skip(owned) {
            changed |= replace(exposed, total(&self.base, &self.instances, slot + at));
        }
        if changed {
            self.store.touch(id);
        }
        if grouped {
            if shows_owner {
                self.store.show(id); // of a summary the owner's quantiles, whoever else is newer
            }
            self.merge_group(id);
        }
    }

    /// Where instances of the shard count one label set in different buckets: the shown series adds up all of its group.
    fn merge_group(&mut self, changed: SeriesId) {
        let Some((shown, members)) = self.store.group(changed) else {
            return;
        };
        let Some(series) = self.store.get(shown) else {
            return;
        };
        let owned = series.kind.owned(series.bounds.len());
        let mut sum = vec![0.0; series.width()];
        let mut counted = false;
        // In the order the members came, whichever is shown: else a sum's last bit would move when another is.
        for member in members.iter().filter_map(|id| self.store.get(*id)) {
            let slots = member.slot()..member.slot() + member.width();
            let values: Vec<_> =
                slots.map(|slot| total(&self.base, &self.instances, slot)).collect();
            add_counts(series.kind, (&series.bounds, &mut sum), (&member.bounds, &values));
            counted |= member.counted;
        }
        if let (Some(exposed), Some(sum)) = (
            self.exposed.get_mut(series.slot() + owned..series.slot() + series.width()),
            sum.get(owned..),
        ) {
            exposed.copy_from_slice(sum);
        }
        let members = members.to_vec();
        if let Some(series) = self.store.get_mut(shown) {
            series.counted = counted;
        }
        // Another may be shown than before.
        members.into_iter().for_each(|id| self.store.touch(id));
    }
}

/// Whether `value` differs from what was there.
fn replace(place: &mut f64, value: f64) -> bool {
    std::mem::replace(place, value).to_bits() != value.to_bits()
}

impl Shard {
    /// What is exposed of a series.
    fn shown(&self, id: SeriesId) -> Option<SeriesView<'_>> {
        let series = self.store.get(id)?;
        let is_collapsed = || {
            let family = self.store.family_of(series);
            self.id != FLEET && family.is_some_and(|family| family.treatment.collapse_shards)
        };
        let hidden = self.store.group(id).is_some_and(|(shown, _)| shown != id) || is_collapsed();
        (!hidden && is_exposed(series)).then(|| SeriesView {
            labels: self.store.labels(series),
            bounds: &series.bounds,
            values: self
                .exposed
                .get(series.slot()..series.slot() + series.width())
                .unwrap_or_default(),
            created: Some(series.created()),
            owned: series.owned,
            exemplars: self.exemplars.of(id),
        })
    }
}

/// What all instances counted in `slot`, added in order of first Hello (E2: no re-ordering moves the last bit).
pub(super) fn total(base: &[f64], instances: &[Instance], slot: usize) -> f64 {
    let base = base.get(slot).copied().unwrap_or(0.0);
    instances.iter().fold(base, |sum, i| sum + i.value(slot))
}

/// Adds to `sum`, which has `bounds`, what was counted in `other_bounds`: at bound b all up to the greatest other bound
/// that is no greater. Count and sum, the last two, are exact.
pub(super) fn add_counts(
    kind: MetricType,
    (bounds, sum): (&Bounds, &mut [f64]),
    (other_bounds, values): (&Bounds, &[f64]),
) {
    if kind == MetricType::Histogram {
        for (bound, sum) in bounds.values().iter().zip(sum.iter_mut()) {
            let within = other_bounds.values().partition_point(|other| other <= bound);
            *sum += within.checked_sub(1).and_then(|at| values.get(at)).unwrap_or(&0.0);
        }
    }
    let tail = sum.iter_mut().rev().zip(values.iter().rev()).take(2);
    tail.for_each(|(sum, value)| *sum += value);
}

/// What a shard exposes. Lives while the shard is locked.
#[derive(Debug)]
pub struct ShardView<'a> {
    pub(super) shard: &'a Shard,
    before: Option<Box<[u32]>>,
}

/// One exposed series.
#[derive(Debug, Clone, Copy)]
pub struct SeriesView<'a> {
    /// Its labels without `shard_id`, in canonical form.
    pub labels: &'a str,
    /// Its bounds or quantiles.
    pub bounds: &'a Bounds,
    /// Its values, laid out as its type says.
    pub values: &'a [f64],
    /// Since when it is counted, if known; the same for as long as the manager keeps the series.
    pub created: Option<UnixTime>,
    /// Whether the values that belong to a living instance are shown: false for a summary whose instance died, of which
    /// only count and sum remain.
    pub owned: bool,
    /// Its exemplars with their buckets, in order: see [`SeriesView::exemplar`].
    pub exemplars: &'a [(u32, Exemplar)],
}

impl<'a> SeriesView<'a> {
    /// The exemplar of a histogram's bucket, by the place of its bound (the number of bounds: `+Inf`); of a counter at 0.
    #[must_use]
    pub fn exemplar(&self, bucket: usize) -> Option<&'a Exemplar> {
        let at = self.exemplars.binary_search_by_key(&bucket, |(bucket, _)| *bucket as usize);
        self.exemplars.get(at.ok()?).map(|(_, exemplar)| exemplar)
    }
}

impl<'a> ShardView<'a> {
    pub(super) const fn new(shard: &'a Shard) -> Self {
        Self { shard, before: None }
    }

    /// The same; `before` is the family's id of each series by the place it had when the shard was last looked at.
    pub(super) const fn renumbered(shard: &'a Shard, before: Option<Box<[u32]>>) -> Self {
        Self { shard, before }
    }

    /// If series have other places than when the shard was last looked at: the family's id of each, by the place it had. What
    /// is kept of those is to be dropped; all that there is now counts as changed.
    #[must_use]
    pub fn before(&self) -> Option<&[u32]> {
        self.before.as_deref()
    }

    /// The shard's id; greater than any, where it is all shards together.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.shard.id
    }

    /// The label that it has on a page: none, where it is all shards together.
    #[must_use]
    pub const fn shard_id(&self) -> Option<u32> {
        if self.shard.id == FLEET { None } else { Some(self.shard.id) }
    }

    /// The family of one of its series.
    #[must_use]
    pub fn family(&self, id: SeriesId) -> Option<&'a Family> {
        self.shard.store.family_of(self.shard.store.get(id)?)
    }

    /// What is exposed of one of its series, if anything is.
    #[must_use]
    pub fn series(&self, id: SeriesId) -> Option<SeriesView<'a>> {
        self.shard.shown(id)
    }

    /// The families this shard has, each with its exposed series (which may be none).
    pub fn families(
        &self,
    ) -> impl Iterator<Item = (&'a Family, impl Iterator<Item = SeriesView<'a>>)> {
        let shard = self.shard;
        shard.store.blocks().iter().map(move |block| {
            let series = block.series.iter().filter_map(move |id| shard.shown(*id));
            (&*block.family, series)
        })
    }
}

fn is_exposed(series: &Series) -> bool {
    match series.kind {
        MetricType::Gauge | MetricType::Untyped => series.owned,
        MetricType::Counter | MetricType::Histogram | MetricType::Summary => series.counted,
    }
}
