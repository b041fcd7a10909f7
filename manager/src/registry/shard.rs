//! One shard: its series, its instances, and the rules by which they become what is exposed.

use std::{collections::VecDeque, time::Duration};

use super::{
    Family, Reason, Transport,
    instance::{Instance, InstanceKey},
    status::Tally,
    store::{Series, SeriesId, Store},
};
use crate::{
    clock::UnixTime,
    model::{Bounds, MetricType},
};

/// An instance silent for this long is taken for dead and folded.
pub(super) const FOLD_AFTER: Duration = Duration::from_secs(3600);
/// More silent instances than this are folded at once, so that a crash loop stays bounded.
const MAX_WAITING: usize = 4;
/// Instances a shard has at most: beyond, those that ended are folded out of order, and if all are alive, no other joins.
pub(super) const MAX_INSTANCES: usize = 16;
/// Closed instances remembered, so that one that returns is not counted twice.
const MAX_TOMBSTONES: usize = 256;

/// An instance that was folded: its id and the last sequence applied.
#[derive(Debug)]
pub(super) struct Tombstone {
    pub(super) key: InstanceKey,
    pub(super) last_sequence: u64,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: u32,
    pub(super) store: Store,
    /// What folded instances counted, by slot.
    base: Vec<f64>,
    /// What the page shows, by slot.
    exposed: Vec<f64>,
    /// In order of first Hello or post, which is the order their values are added in.
    pub(super) instances: Vec<Instance>,
    pub(super) tombstones: VecDeque<Tombstone>,
    /// Ordinal of the instance whose gauges are exposed.
    owner: Option<u64>,
    ordinals: u64,
    streams: u64,
    pub(super) tally: Tally,
}

impl Shard {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            store: Store::default(),
            base: Vec::new(),
            exposed: Vec::new(),
            instances: Vec::new(),
            tombstones: VecDeque::new(),
            owner: None,
            ordinals: 0,
            streams: 0,
            tally: Tally::default(),
        }
    }

    pub(super) fn is_owner(&self, ordinal: u64) -> bool {
        self.owner == Some(ordinal)
    }

    /// Number of a new stream; greater than all before.
    pub(super) fn next_stream(&mut self) -> u64 {
        self.streams += 1;
        self.streams
    }

    /// The instance's place in `instances`. A closed one is found too, but not an anonymous one, which has no identity
    /// to return with.
    pub(super) fn position(&self, key: &InstanceKey) -> Option<usize> {
        self.instances
            .iter()
            .position(|i| i.key == *key && !(i.closed && *key == InstanceKey::Anonymous))
    }

    /// The last sequence of an instance that was folded, or said goodbye and waits for it.
    pub(super) fn closed_at(&self, key: &InstanceKey) -> Option<u64> {
        let folded = self.tombstones.iter().find(|t| t.key == *key).map(|t| t.last_sequence);
        folded.or_else(|| {
            let closed = self.instances.iter().find(|i| i.closed && i.key == *key);
            closed.filter(|_| *key != InstanceKey::Anonymous).map(|i| i.last_sequence)
        })
    }

    pub(super) fn position_of(&self, ordinal: u64) -> Option<usize> {
        self.instances.iter().position(|i| i.ordinal == ordinal)
    }

    /// Whether no instance can join, because as many as there may be are alive.
    pub(super) fn is_full(&mut self, now: UnixTime, stale_after: Duration) -> bool {
        self.fold(now, stale_after);
        self.instances.len() >= MAX_INSTANCES
    }

    /// Adds an instance, the newest now. The caller asked [`Shard::is_full`].
    pub(super) fn join(&mut self, key: InstanceKey, transport: Transport, now: UnixTime) -> usize {
        self.ordinals += 1;
        self.instances.push(Instance::new(self.ordinals, key, transport, now));
        self.instances.len() - 1
    }

    /// Grows the value columns to what the store needs.
    pub(super) fn make_room(&mut self) {
        self.base.resize(self.store.slots(), 0.0);
        self.exposed.resize(self.store.slots(), 0.0);
    }

    /// Takes `values` as what instance `at` reports for a series, and updates what is exposed. False: the series' family
    /// gave way to another before its first sample, and nothing was taken.
    pub(super) fn assign(&mut self, at: usize, id: SeriesId, values: &[f64]) -> bool {
        if !self.store.may_report(id) {
            self.tally.count_rejected(Reason::TypeConflict, 1);
            return false;
        }
        let Some(series) = self.store.get_mut(id) else {
            return false;
        };
        series.counted = true;
        let slot = series.slot;
        let grouped = series.is_grouped();
        let Some(instance) = self.instances.get_mut(at) else {
            return false;
        };
        instance.assign(id, slot, values);
        if grouped {
            self.replace_group(at, id);
            if at + 1 == self.instances.len() {
                self.store.show(id); // the newest instance's bounds
            }
        }
        self.refresh(id);
        true
    }

    /// Instance `at` reports a label set with other bounds than before: what it reported under those is replaced, or kept
    /// if the count began anew.
    fn replace_group(&mut self, at: usize, id: SeriesId) {
        let count = self.reported_count(at, id).unwrap_or(0.0);
        for other in self.others(id) {
            let before = self.reported_count(at, other).unwrap_or(0.0);
            if count < before {
                self.carry(at, other);
            }
            let (Some(series), Some(instance)) =
                (self.store.get(other), self.instances.get_mut(at))
            else {
                continue;
            };
            if before > 0.0 && count >= before {
                instance.take_back(series.slot, series.width());
            }
            instance.remove(other);
        }
    }

    /// Series of the same labels with other bounds.
    pub(super) fn others(&self, id: SeriesId) -> Vec<SeriesId> {
        let members = self.store.group(id).map(|(_, members)| members).unwrap_or_default();
        members.iter().copied().filter(|member| *member != id).collect()
    }

    /// The count that instance `at` reported last for a series: a counter's value, a histogram's or summary's `_count`.
    pub(super) fn reported_count(&self, at: usize, id: SeriesId) -> Option<f64> {
        let (series, instance) = (self.store.get(id)?, self.instances.get(at)?);
        Some(instance.reported(series.slot + series.kind.count_at(series.bounds.len())?))
    }

    /// The sender of instance `at` started a series anew; what it had counted is kept.
    pub(super) fn carry(&mut self, at: usize, id: SeriesId) {
        let Some(series) = self.store.get(id) else {
            return;
        };
        let owned = series.kind.owned(series.bounds.len());
        if let Some(instance) = self.instances.get_mut(at) {
            instance.carry(series.slot + owned, series.width() - owned);
        }
    }

    /// The series left instance `at`'s registry: a gauge goes, counts stay.
    pub(super) fn remove(&mut self, at: usize, id: SeriesId) {
        if let Some(instance) = self.instances.get_mut(at) {
            instance.remove(id);
            self.refresh(id);
        }
    }

    /// Removes from instance `at` every gauge that `keep` does not hold: what a whole report leaves out has left.
    pub(super) fn keep_only(&mut self, at: usize, keep: impl Fn(SeriesId) -> bool) {
        let Some(instance) = self.instances.get(at) else {
            return;
        };
        let left: Vec<_> = self
            .store
            .with_owned()
            .map(|(id, _)| id)
            .filter(|id| instance.has(*id) && !keep(*id))
            .collect();
        for id in left {
            self.remove(at, id);
        }
    }

    /// A report of instance `at` was applied.
    pub(super) fn reported(&mut self, at: usize, now: UnixTime, stale_after: Duration) {
        if let Some(instance) = self.instances.get_mut(at) {
            instance.last_report = now;
            instance.has_reported = true;
            self.tally.count_report(instance.transport, now);
        }
        self.settle(now, stale_after);
    }

    /// What time alone changes: who owns the gauges (E3).
    pub(super) fn settle(&mut self, now: UnixTime, stale_after: Duration) {
        let alive = self.instances.iter().rfind(|i| i.is_alive(now, stale_after));
        let owner = alive.map(|i| i.ordinal);
        if owner != self.owner {
            self.owner = owner;
            let owned: Vec<_> = self.store.with_owned().map(|(id, _)| id).collect();
            owned.into_iter().for_each(|id| self.refresh(id));
        }
    }

    /// Instance `at` ended for good.
    pub(super) fn close(&mut self, at: usize, now: UnixTime, stale_after: Duration) {
        if let Some(instance) = self.instances.get_mut(at) {
            instance.closed = true;
            instance.stream = 0;
        }
        self.fold(now, stale_after);
        self.settle(now, stale_after);
    }

    /// Makes instances that ended part of the base.
    fn fold(&mut self, now: UnixTime, stale_after: Duration) {
        while let Some(at) = self.foldable(now, stale_after) {
            self.fold_at(at);
        }
    }

    /// The next instance to fold: only ever the oldest, so that the order of additions, and with it the last bit of a sum,
    /// never changes; unless there are too many.
    fn foldable(&self, now: UnixTime, stale_after: Duration) -> Option<usize> {
        let silent = |i: &Instance| now.since(i.last_report);
        let is_waiting = |i: &&Instance| silent(i) > stale_after;
        // One without identity could not be told that it was folded, and would count everything again on its return.
        let may_end = |i: &Instance| i.key != InstanceKey::Anonymous;
        let oldest = self.instances.first()?;
        let dead = silent(oldest) > FOLD_AFTER
            || (is_waiting(&oldest)
                && self.instances.iter().filter(is_waiting).count() > MAX_WAITING);
        if oldest.closed || (dead && may_end(oldest)) {
            return Some(0);
        }
        if self.instances.len() < MAX_INSTANCES {
            return None;
        }
        // A gRPC client that lost its stream learns on its return that it was folded, and counts on from there.
        let may_return = |i: &Instance| i.transport == Transport::Grpc && i.stream == 0;
        self.instances
            .iter()
            .position(|i| i.closed || may_return(i) || (is_waiting(&i) && may_end(i)))
    }

    fn fold_at(&mut self, at: usize) {
        let slots = if at > 0 { 0..self.base.len() } else { 0..0 };
        let before: Vec<_> = slots.map(|slot| total(&self.base, &self.instances, slot)).collect();
        let ended = self.instances.remove(at);
        for (slot, base) in self.base.iter_mut().enumerate() {
            // Gauge slots of the base are never read.
            *base += ended.value(slot);
        }
        if !before.is_empty() {
            self.lift_base(&before);
        }
        // What has no identity cannot return under it.
        if ended.key != InstanceKey::Anonymous {
            self.tombstones
                .push_back(Tombstone { key: ended.key, last_sequence: ended.last_sequence });
        }
        if self.tombstones.len() > MAX_TOMBSTONES {
            self.tombstones.pop_front();
        }
    }

    /// After additions changed their order: no total may be lower than before, not by its last bit (E2). Whole numbers
    /// never are.
    fn lift_base(&mut self, before: &[f64]) {
        for (slot, before) in before.iter().enumerate() {
            let mut lift = before - total(&self.base, &self.instances, slot);
            while lift > 0.0 && total(&self.base, &self.instances, slot) < *before {
                if let Some(base) = self.base.get_mut(slot) {
                    *base += lift;
                }
                lift *= 2.0;
            }
        }
        let all: Vec<_> = self.store.ids().collect();
        all.into_iter().for_each(|id| self.refresh(id));
    }

    /// Computes anew what is exposed of a series, or of the one shown in its place.
    fn refresh(&mut self, id: SeriesId) {
        let owner =
            self.owner.and_then(|ordinal| self.instances.iter().find(|i| i.ordinal == ordinal));
        let Some(series) = self.store.get_mut(id) else {
            return;
        };
        let (slot, width) = (series.slot, series.width());
        let owned = series.kind.owned(series.bounds.len());
        let Some(exposed) = self.exposed.get_mut(slot..slot + width) else {
            return;
        };
        if owned > 0 {
            let of_owner = owner.filter(|i| i.has(id)).and_then(|i| i.values(slot, owned));
            series.owned = of_owner.is_some();
            if let (Some(values), Some(exposed)) = (of_owner, exposed.get_mut(..owned)) {
                exposed.copy_from_slice(values);
            }
        }
        let shows_owner = series.owned;
        for (at, exposed) in exposed.iter_mut().enumerate().skip(owned) {
            *exposed = total(&self.base, &self.instances, slot + at);
        }
        if shows_owner {
            self.store.show(id); // of a summary the owner's quantiles, whoever else is newer
        }
        self.merge_group(id);
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
            let slots = member.slot..member.slot + member.width();
            let values: Vec<_> =
                slots.map(|slot| total(&self.base, &self.instances, slot)).collect();
            add_counts(series.kind, (&series.bounds, &mut sum), (&member.bounds, &values));
            counted |= member.counted;
        }
        if let (Some(exposed), Some(sum)) = (
            self.exposed.get_mut(series.slot + owned..series.slot + series.width()),
            sum.get(owned..),
        ) {
            exposed.copy_from_slice(sum);
        }
        if let Some(series) = self.store.get_mut(shown) {
            series.counted = counted;
        }
    }

    /// Counts samples that were not applied.
    pub(super) fn count_rejected(&mut self, reason: Reason, samples: u64) {
        self.tally.count_rejected(reason, samples);
    }
}

/// What all instances counted in `slot`, added in order of first Hello (E2: no re-ordering moves the last bit).
fn total(base: &[f64], instances: &[Instance], slot: usize) -> f64 {
    let base = base.get(slot).copied().unwrap_or(0.0);
    instances.iter().fold(base, |sum, i| sum + i.value(slot))
}

/// Adds to `sum`, which has `bounds`, what was counted in `other_bounds`: at bound b all up to the greatest other bound
/// that is no greater. Count and sum, the last two, are exact.
fn add_counts(
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
    /// Whether the values that belong to a living instance are shown: false for a summary whose instance died, of which
    /// only count and sum remain.
    pub owned: bool,
}

impl<'a> ShardView<'a> {
    pub(super) fn new(shard: &'a Shard) -> Self {
        Self { shard }
    }

    /// The shard's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.shard.id
    }

    /// The families this shard has, each with its exposed series (which may be none).
    pub fn families(
        &self,
    ) -> impl Iterator<Item = (&'a Family, impl Iterator<Item = SeriesView<'a>>)> {
        let shard = self.shard;
        shard.store.blocks().iter().map(move |block| {
            let series = block.series.iter().filter_map(move |id| {
                let series = shard.store.get(*id)?;
                let hidden = shard.store.group(*id).is_some_and(|(shown, _)| shown != *id);
                (!hidden && is_exposed(series)).then(|| SeriesView {
                    labels: series.labels.as_str(),
                    bounds: &series.bounds,
                    values: shard
                        .exposed
                        .get(series.slot..series.slot + series.width())
                        .unwrap_or_default(),
                    owned: series.owned,
                })
            });
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
