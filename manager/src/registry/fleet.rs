//! Families of which all shards are put together (rules with `collapse_shards`): what is shown of them, without `shard_id`.
//!
//! Nothing is counted here. What each shard shows is kept, and added up in order of shard: none of it falls, so the sum does
//! not either. It looks like a shard's to those who render.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashMap;

use super::{
    Family,
    family::FamilyTable,
    limits::merged_bounds,
    shard::Shard,
    store::{Series, SeriesId},
    view::{ShardView, add_counts, total},
};
use crate::{
    clock::UnixTime,
    model::{Bounds, LabelSet, MetricType},
};

/// The id that the fleet has where shards have theirs; greater than any.
pub(super) const FLEET: u32 = u32::MAX;

/// Bounds that histograms of different shards may have together; of more, those that came first stay.
const MAX_BOUNDS: usize = 500;

/// What all shards show together.
#[derive(Debug)]
pub(super) struct Fleet {
    /// Has the series that are shown.
    shown: Shard,
    sums: Vec<Sum>,
    /// Place in `sums` of the series of each shard, by their index.
    places: HashMap<u32, Vec<Option<u32>>>,
    /// The same by family and labels.
    by_labels: HashMap<(usize, Box<str>), u32>,
    /// Places in `sums` of those that changed.
    changed: Vec<u32>,
}

/// One label set of all shards.
#[derive(Debug)]
struct Sum {
    family: Arc<Family>,
    labels: LabelSet,
    /// Where it is shown, once it is.
    id: Option<SeriesId>,
    /// By shard and series: what a shard counted in other bounds stands by itself, so that nothing falls where they change.
    by_shard: BTreeMap<(u32, usize), Share>,
    is_changed: bool,
}

/// What a shard shows of it.
#[derive(Debug)]
struct Share {
    bounds: Arc<Bounds>,
    values: Box<[f64]>,
    created: UnixTime,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            shown: Shard::new(FLEET),
            sums: Vec::new(),
            places: HashMap::new(),
            by_labels: HashMap::new(),
            changed: Vec::new(),
        }
    }
}

impl Fleet {
    /// Takes what a shard shows of these series now, if they are of families that are put together.
    pub(super) fn take(&mut self, shard: &Shard, ids: &[SeriesId]) {
        for &id in ids {
            let Some(series) = shard.store.get(id) else { continue };
            let Some(family) = shard.store.shared_family_of(series) else { continue };
            if !family.treatment.collapse_shards {
                continue;
            }
            let place = self.place(shard, id, series, family);
            let Some(sum) = self.sums.get_mut(place as usize) else { continue };
            match share(shard, series) {
                Some(share) => sum.by_shard.insert((shard.id, id.index()), share),
                None => sum.by_shard.remove(&(shard.id, id.index())),
            };
            if !std::mem::replace(&mut sum.is_changed, true) {
                self.changed.push(place);
            }
        }
    }

    /// Forgets what a shard showed.
    pub(super) fn forget(&mut self, shard_id: u32) {
        for place in self.places.remove(&shard_id).into_iter().flatten().flatten() {
            let Some(sum) = self.sums.get_mut(place as usize) else { continue };
            let of_shard = sum.by_shard.range((shard_id, 0)..=(shard_id, usize::MAX));
            let of_shard: Vec<_> = of_shard.map(|(series, _)| *series).collect();
            for series in of_shard {
                sum.by_shard.remove(&series);
            }
            if !std::mem::replace(&mut sum.is_changed, true) {
                self.changed.push(place);
            }
        }
    }

    /// Adds up what changed, and says which series show something else now; or all there are.
    pub(super) fn settle(&mut self, families: &FamilyTable, all: bool) -> Vec<SeriesId> {
        for place in std::mem::take(&mut self.changed) {
            if let Some(sum) = self.sums.get_mut(place as usize) {
                sum.is_changed = false;
                sum.show(&mut self.shown, families);
            }
        }
        let mut touched = Vec::new();
        self.shown.store.take_touched(&mut touched);
        if all { self.shown.store.ids().collect() } else { touched }
    }

    pub(super) const fn view(&self) -> ShardView<'_> {
        ShardView::new(&self.shown)
    }

    /// The place of a shard's series.
    fn place(&mut self, shard: &Shard, id: SeriesId, series: &Series, family: &Arc<Family>) -> u32 {
        let places = self.places.entry(shard.id).or_default();
        if places.len() <= id.index() {
            places.resize(id.index() + 1, None);
        }
        let next = self.sums.len() as u32;
        let place = places.get(id.index()).copied().flatten().unwrap_or_else(|| {
            let labels = shard.store.labels(series);
            *self.by_labels.entry((family.id, labels.into())).or_insert(next)
        });
        if let Some(known) = places.get_mut(id.index()) {
            *known = Some(place);
        }
        if place == next {
            self.sums.push(Sum {
                family: Arc::clone(family),
                labels: LabelSet::restore(shard.store.labels(series)),
                id: None,
                by_shard: BTreeMap::new(),
                is_changed: false,
            });
        }
        place
    }
}

/// What a shard shows of a series; of a summary, without quantiles.
fn share(shard: &Shard, series: &Series) -> Option<Share> {
    let counts = series.kind.count_at(0).is_some();
    if !(if counts { series.counted } else { series.owned }) {
        return None;
    }
    let bounds = if series.kind == MetricType::Summary {
        Arc::new(Bounds::none())
    } else {
        Arc::clone(&series.bounds)
    };
    let end = series.slot() + series.width();
    let slots = end - series.kind.width(bounds.len())..end;
    let values = if series.is_grouped() {
        slots.map(|slot| total(&shard.base, &shard.instances, slot)).collect()
    } else {
        shard.exposed.get(slots)?.into()
    };
    Some(Share { bounds, values, created: series.created() })
}

impl Sum {
    /// Shows what the shards show together.
    fn show(&mut self, shown: &mut Shard, families: &FamilyTable) {
        let bounds = self.bounds();
        let id = shown.store.find(&self.family, &self.labels, &bounds).unwrap_or_else(|| {
            let bounds = families.share(merged_bounds(self.family.kind, &bounds).into_owned());
            shown.store.add(&self.family, &self.labels, bounds, UnixTime::MAX)
        });
        shown.make_room();
        if let Some(before) = self.id.replace(id).filter(|before| *before != id) {
            shown.store.touch(before);
        }
        shown.store.show(id);
        let values = self.values(&bounds);
        let created = self.by_shard.values().map(|share| share.created).min();
        let Some(series) = shown.store.get_mut(id) else { return };
        series.counted = values.is_some();
        series.owned = values.is_some();
        if let Some(created) = created {
            series.begin(created);
        }
        let slots = series.slot()..series.slot() + series.width();
        if let Some((values, to)) = values.zip(shown.exposed.get_mut(slots)) {
            to.copy_from_slice(&values);
        }
        shown.store.touch(id);
    }

    /// All bounds that shards have.
    fn bounds(&self) -> Bounds {
        let mut all: Vec<f64> = Vec::new();
        let mut last: Option<&Arc<Bounds>> = None;
        for share in self.by_shard.values() {
            // Nearly always they are all the same.
            if last.replace(&share.bounds).is_some_and(|last| Arc::ptr_eq(last, &share.bounds)) {
                continue;
            }
            for bound in share.bounds.values() {
                let at = all.partition_point(|known| known < bound);
                if all.get(at) != Some(bound) && all.len() < MAX_BOUNDS {
                    all.insert(at, *bound);
                }
            }
        }
        Bounds::new(&all).unwrap_or_else(|_| Bounds::none())
    }

    /// What shards count together, or what their gauges make; `None`: no shard shows it.
    fn values(&self, bounds: &Bounds) -> Option<Vec<f64>> {
        if let Some(combine) = self.family.treatment.gauges {
            let gauges = self.by_shard.values().filter_map(|share| share.values.first());
            return combine.of(gauges.copied()).map(|gauge| vec![gauge]);
        }
        let kind = self.family.kind;
        let mut sum = vec![0.0; kind.width(bounds.len())];
        for share in self.by_shard.values() {
            if kind == MetricType::Counter {
                sum.iter_mut().zip(&share.values).for_each(|(sum, value)| *sum += value);
            } else {
                add_counts(kind, (bounds, &mut sum), (&share.bounds, &share.values));
            }
        }
        (!self.by_shard.is_empty()).then_some(sum)
    }
}
