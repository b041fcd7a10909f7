//! One shard: its series, its instances, and the rules by which they become what is exposed.

mod parts;

use std::{collections::VecDeque, time::Duration};

use hashbrown::HashSet;

use super::{
    ShardState, Transport,
    change::{About, Change, Recorder, ReportStep, Step},
    exemplars::Exemplars,
    fold::Tombstone,
    instance::{Instance, InstanceKey},
    status::Tally,
    store::{Series, SeriesId, Store},
};
use crate::clock::UnixTime;

/// Instances a shard has at most: beyond, those that ended are folded out of order, and if all are alive, no other joins.
pub(super) const MAX_INSTANCES: usize = 16;

/// All of one shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: u32,
    pub(super) store: Store,
    /// What folded instances counted, by slot; slots past the end are 0.
    pub(super) base: Vec<f64>,
    /// What the page shows, by slot.
    pub(super) exposed: Vec<f64>,
    pub(super) exemplars: Exemplars,
    /// In order of first Hello or post, which is the order their values are added in.
    pub(super) instances: Vec<Instance>,
    pub(super) tombstones: VecDeque<Tombstone>,
    /// The greatest ordinal given.
    pub(super) ordinals: u64,
    streams: u64,
    /// How often its series got other places, or its streams had to begin anew.
    pub(super) epoch: u32,
    /// If series got other places since they were last looked at: the family's id of each before.
    pub(super) renumbered: Option<Box<[u32]>>,
    /// When a sender without identity last began anew.
    pub(super) fell_at: Option<UnixTime>,
    /// How followers know it.
    pub(super) announced: ShardState,
    pub(super) tally: Tally,
}

impl Shard {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            store: Store::default(),
            base: Vec::new(),
            exposed: Vec::new(),
            exemplars: Exemplars::default(),
            instances: Vec::new(),
            tombstones: VecDeque::new(),
            ordinals: 0,
            streams: 0,
            epoch: 0,
            renumbered: None,
            fell_at: None,
            announced: ShardState::NeverSeen,
            tally: Tally::default(),
        }
    }

    /// Number of a new stream; greater than all before.
    pub(super) fn next_stream(&mut self) -> u64 {
        self.streams += 1;
        self.streams
    }

    /// The instance's place in `instances`: the newest's, should damage to the journal have left two of a key. A closed one
    /// is found too, unless it has no identity to return with.
    pub(super) fn position(&self, key: &InstanceKey) -> Option<usize> {
        self.instances.iter().rposition(|i| i.key == *key && !(i.closed && key.is_reused()))
    }

    /// The last sequence of an instance that was folded, or said goodbye and waits for it.
    pub(super) fn closed_at(&self, key: &InstanceKey) -> Option<u64> {
        let folded = self.tombstones.iter().find(|(folded, _)| folded == key).map(|(_, k)| *k);
        folded.or_else(|| {
            let closed = self.instances.iter().find(|i| i.closed && i.key == *key);
            closed.filter(|_| !key.is_reused()).map(|i| i.last_sequence)
        })
    }

    pub(super) fn position_of(&self, ordinal: u64) -> Option<usize> {
        self.instances.iter().position(|i| i.ordinal == ordinal)
    }

    /// The place of the instance with this key, which joins now if it is new.
    pub(super) fn join(
        &mut self,
        key: InstanceKey,
        transport: Transport,
        now: UnixTime,
        recorder: &Recorder,
    ) -> usize {
        self.position(&key).unwrap_or_else(|| {
            let ordinal = self.next_ordinal();
            let join = Step::Join { ordinal, key: key.clone(), transport, at: now };
            recorder.record(&[Change::Shard(self.id, join)]);
            self.add_instance(Instance::new(ordinal, key, transport, now));
            self.instances.len() - 1
        })
    }

    /// What makes instance `at` say this about itself, if it does not already.
    pub(super) fn description<'a>(&self, at: usize, about: About<'a>) -> Option<Step<'a>> {
        let instance = self.instances.get(at).filter(|instance| instance.about != about)?;
        Some(Step::Describe { ordinal: instance.ordinal, about })
    }

    /// When the instance began to count: since when a series that it brings is counted.
    pub(super) fn started_at(&self, ordinal: u64, now: UnixTime) -> UnixTime {
        let instance = self.instances.iter().find(|i| i.ordinal == ordinal);
        instance.and_then(|i| i.about.started_at).map_or(now, |started| started.min(now))
    }

    /// Records the series from `first` on.
    pub(super) fn record_series(&self, first: usize, recorder: &Recorder) {
        let steps = self.store.steps(first).map(|s| Change::Shard(self.id, Step::Series(s)));
        let steps: Vec<_> = steps.collect();
        if !steps.is_empty() {
            recorder.record(&steps);
        }
    }

    /// Ordinal of the next instance to join.
    pub(super) fn next_ordinal(&self) -> u64 {
        self.ordinals + 1
    }

    /// Adds an instance, the newest now.
    pub(super) fn add_instance(&mut self, instance: Instance) {
        self.ordinals = instance.ordinal;
        self.instances.reserve_exact(1); // most shards have one
        self.instances.push(instance);
    }

    /// Takes what instance `at` says about itself.
    pub(super) fn describe(&mut self, at: usize, about: About<'_>) {
        if let Some(instance) = self.instances.get_mut(at) {
            instance.about = about.into_owned();
        }
    }

    /// Grows the column of exposed values to what the store needs.
    pub(super) fn make_room(&mut self) {
        self.exposed.resize(self.store.slots(), 0.0);
    }

    /// Makes what happened to instance `at`.
    pub(super) fn follow(&mut self, at: usize, step: Step<'_>) {
        match step {
            Step::Describe { about, .. } => self.describe(at, about),
            Step::Anew { .. } => self.carry_all(at),
            Step::Parts { parts, .. } => {
                self.make_room_in(at);
                // By streams alone, whose counts were refused if they fell.
                self.take_parts(at, &parts, false);
            }
            Step::Report(report) => self.take(at, &report),
            Step::Close { at: when, .. } => self.end(at, when),
            Step::Fold { .. } => self.fold_at(at),
            // Those are of no instance that is there.
            Step::Series(_) | Step::Join { .. } | Step::State(_) => {}
        }
    }

    /// Grows the columns of instance `at` too.
    fn make_room_in(&mut self, at: usize) {
        self.make_room();
        let (slots, series) = (self.store.slots(), self.store.len());
        if let Some(instance) = self.instances.get_mut(at) {
            instance.make_room(slots, series);
        }
    }

    /// Takes a report, which fits the shard.
    pub(super) fn take(&mut self, at: usize, report: &ReportStep<'_>) {
        self.make_room_in(at);
        let Some(instance) = self.instances.get_mut(at) else {
            return;
        };
        instance.last_sequence = report.sequence;
        instance.reported_at(report.at);
        // A stream's counts were refused if they fell.
        let may_fall = instance.transport == Transport::Http;
        self.tally.count_report(instance.transport, report.at);
        self.tally.count_rejected(report.rejected);

        let mut rest = &report.values[..];
        for id in report.series.iter().map(|id| SeriesId::new(*id)) {
            let width = self.store.get(id).map_or(0, Series::width);
            let Some((values, after)) = rest.split_at_checked(width) else {
                break;
            };
            rest = after;
            if may_fall && self.count_of(id, values).is_some_and(|n| self.fell(at, id, n)) {
                // The same identity with a lower count: that series alone began anew.
                self.carry(at, id);
            }
            self.assign(at, id, values);
        }
        for id in report.left.iter() {
            self.remove(at, SeriesId::new(*id));
        }
        self.take_parts(at, &report.parts, may_fall);
    }

    /// Takes `values` as what instance `at` reports for a series, and updates what is exposed.
    fn assign(&mut self, at: usize, id: SeriesId, values: &[f64]) {
        let first = self.store.count(id);
        let Some(series) = self.store.get(id) else {
            return;
        };
        let slot = series.slot();
        let grouped = series.is_grouped();
        let Some(instance) = self.instances.get_mut(at) else {
            return;
        };
        instance.assign(id, slot, values);
        if grouped {
            self.replace_group(at, id);
            if self.is_newest_with(at, id) {
                self.store.show(id);
            }
        }
        if first {
            self.store.touch(id);
        }
        self.refresh(id);
    }

    /// Whether no newer instance than `at` has the label set, with whatever bounds: its bounds are exposed.
    fn is_newest_with(&self, at: usize, id: SeriesId) -> bool {
        let members = self.store.group(id).map(|(_, members)| members).unwrap_or_default();
        let newer = self.instances.iter().skip(at + 1);
        !newer.into_iter().any(|instance| members.iter().any(|member| instance.has(*member)))
    }

    /// The count among a series' values, if it has one.
    pub(super) fn count_of(&self, id: SeriesId, values: &[f64]) -> Option<f64> {
        let series = self.store.get(id)?;
        values.get(series.kind.count_at(series.bounds.len())?).copied()
    }

    /// Whether the count of a label set fell below what the instance reported last, with whatever bounds (a histogram is
    /// judged by its `_count`).
    pub(super) fn fell(&self, at: usize, id: SeriesId, count: f64) -> bool {
        let fell = |id| self.reported_count(at, id).is_some_and(|last| count < last);
        fell(id) || self.others(id).into_iter().any(fell)
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
                instance.take_back(series.slot(), series.width());
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
        Some(instance.reported(series.slot() + series.kind.count_at(series.bounds.len())?))
    }

    /// The sender of instance `at` started a series anew; what it had counted is kept.
    fn carry(&mut self, at: usize, id: SeriesId) {
        let Some(series) = self.store.get(id) else {
            return;
        };
        let owned = series.kind.owned(series.bounds.len());
        if let Some(instance) = self.instances.get_mut(at) {
            instance.carry(series.slot() + owned, series.width() - owned);
        }
    }

    /// The series left instance `at`'s registry: a gauge goes, counts stay.
    fn remove(&mut self, at: usize, id: SeriesId) {
        if let Some(instance) = self.instances.get_mut(at) {
            instance.remove(id);
            self.refresh(id);
        }
    }

    /// The sender of instance `at` started everything anew.
    pub(super) fn carry_all(&mut self, at: usize) {
        if let Some(instance) = self.instances.get_mut(at) {
            instance.parts.forget_counts();
        }
        let all: Vec<_> = self.store.ids().collect();
        all.into_iter().for_each(|id| self.carry(at, id));
    }

    /// The gauges of instance `at` that are not among those `present`: what a whole report leaves out has left. Of one that
    /// speaks of some families alone, those of them.
    pub(super) fn left_out(
        &self,
        at: usize,
        present: &HashSet<SeriesId>,
        families: Option<&HashSet<&str>>,
    ) -> Vec<u32> {
        let Some(instance) = self.instances.get(at) else {
            return Vec::new();
        };
        let is_named = |series: &Series| {
            let family = || self.store.family_of(series);
            families
                .is_none_or(|named| family().is_some_and(|family| named.contains(&*family.name)))
        };
        let owned = self.store.with_owned().filter(|(_, series)| is_named(series));
        let left = owned.filter(|(id, _)| instance.has(*id) && !present.contains(id));
        left.map(|(id, _)| id.index() as u32).collect()
    }

    /// Whether instance `at` reported exactly this last.
    pub(super) fn has_reported(&self, at: usize, id: SeriesId, values: &[f64]) -> bool {
        let (Some(instance), Some(series)) = (self.instances.get(at), self.store.get(id)) else {
            return false;
        };
        let reported = (series.slot()..).map(|slot| instance.reported(slot).to_bits());
        series.counted
            && instance.has(id)
            && values.iter().map(|value| value.to_bits()).eq(reported.take(values.len()))
    }

    /// Until when time alone changes nothing of what it shows, and of whether it is up.
    pub(super) fn unchanged_until(&self, now: UnixTime, stale_after: Duration) -> UnixTime {
        let alive = self.instances.iter().filter_map(|i| i.alive_until(now, stale_after));
        let seen = self.tally.seen.map(|seen| seen + stale_after).filter(|until| *until >= now);
        alive.chain(seen).min().unwrap_or(UnixTime::MAX)
    }

    /// What time alone changes: who owns the gauges (E3).
    pub(super) fn settle(&mut self, now: UnixTime, stale_after: Duration) {
        let mut changed = false;
        let mut is_owned = false;
        for instance in self.instances.iter_mut().rev() {
            let owns = instance.is_alive(now, stale_after)
                && (instance.key.is_group() || !std::mem::replace(&mut is_owned, true));
            changed |= std::mem::replace(&mut instance.owns, owns) != owns;
        }
        if changed {
            self.refresh_owned();
        }
    }

    /// Others own gauges than before.
    pub(super) fn refresh_owned(&mut self) {
        let owned: Vec<_> = self.store.with_owned().map(|(id, _)| id).collect();
        owned.into_iter().for_each(|id| self.refresh(id));
    }
}
