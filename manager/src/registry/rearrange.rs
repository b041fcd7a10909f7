//! A shard whose series are put in order anew, without those that nobody needs any more: because the store is full, a family
//! was retired, or an operator wants the shard forgotten.
//!
//! Series have other places afterwards. It is recorded as the shard's whole state; streams end, and define their series
//! again on the next; pages drop what they keep of the shard.

use std::{sync::Arc, time::Duration};

use hashbrown::HashSet;
use shardmeter_access::Seldom;

use super::{
    Family, Registry, ReportedFamily, UnixTime,
    change::{Change, Recorder, Step},
    instance::Instance,
    limits::merged_bounds,
    parts::PartId,
    shard::Shard,
    status::Tally,
    store::{OVERFLOW, Series, SeriesId, Store},
};
use crate::model::LabelSet;

/// What becomes of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays.
    Stays,
    /// What it counted goes to its family's overflow.
    Overflows,
    /// It goes, and what it counted with it.
    Goes,
}

/// Where the values of a series go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub(super) from: SeriesId,
    pub(super) from_slot: usize,
    pub(super) to: SeriesId,
    pub(super) to_slot: usize,
    /// How many.
    pub(super) width: usize,
    /// They are added to those of others.
    pub(super) merges: bool,
    /// As which part, unless they are already made of parts.
    pub(super) part: Option<PartId>,
}

/// What was forgotten of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Series that are no longer there.
    pub series: usize,
    /// It lives: its counts began anew.
    pub alive: bool,
}

/// A share of the limit that is made free at once, so that it need not be done for every new series.
const AT_ONCE: usize = 8;

/// Lines that shards can cause as often as they like.
#[derive(Debug)]
pub(super) struct Lines {
    full: Seldom,
    yields: Seldom,
}

impl Default for Lines {
    fn default() -> Self {
        let [full, yields] = [20; 2].map(Seldom::new);
        Self { full, yields }
    }
}

impl Registry {
    /// Makes room for new series of a sender where its shard is full, if there are series that no living instance has: the
    /// oldest are put into overflow. `wanted` are families and label sets, `has` says which series the sender has already.
    /// Returns whether the shard's series have other places now.
    pub(super) fn make_way<'a>(
        &self,
        shard: &mut Shard,
        wanted: &[(Option<Arc<Family>>, Vec<&'a LabelSet>)],
        has: impl Fn(SeriesId) -> bool,
        now: UnixTime,
    ) -> bool {
        let all: usize = wanted.iter().map(|(_, labels)| labels.len()).sum();
        let is_near = |(family, labels): &(Option<Arc<Family>>, Vec<&'a LabelSet>)| {
            family.as_ref().is_some_and(|family| self.short_of(shard, family, labels.len()) > 0)
        };
        if self.short(shard, all) == 0 && !wanted.iter().any(is_near) {
            return false;
        }
        let mut named = HashSet::new();
        let mut short_families = HashSet::new();
        let (mut new, mut short_of_family) = (0, 0);
        for (family, labels) in wanted {
            let Some(family) = family else {
                new += labels.len();
                continue;
            };
            let known: Vec<_> =
                labels.iter().filter_map(|l| shard.store.first_of(family, l)).collect();
            let new_of_family = labels.len() - known.len();
            named.extend(known.into_iter().map(|(id, _)| id));
            new += new_of_family;
            let short = self.short_of(shard, family, new_of_family);
            if new_of_family > 0 && short > 0 {
                short_families.insert(family.id);
                short_of_family += short;
            }
        }
        let short = if new > 0 { self.short(shard, new) } else { 0 };
        if short == 0 && short_of_family == 0 {
            return false;
        }
        let stale_after = self.settings.stale_after;
        let is_needed = |id: &SeriesId| {
            named.contains(id)
                || has(*id)
                || shard.is_of_overflow(*id)
                || shard.is_of_living(*id, now, stale_after)
        };
        let is_left = |id: &SeriesId| {
            let family = shard.store.get(*id).and_then(|series| shard.store.family_of(series));
            // What all shards show together would fall.
            let may_go = |family: &Family| {
                !family.treatment.collapse_shards
                    && (short > 0 || short_families.contains(&family.id))
            };
            family.is_some_and(may_go) && !shard.store.alike(id).iter().any(is_needed)
        };
        let at_once = self.settings.max_series_per_shard / AT_ONCE;
        let left = shard.store.ids().filter(is_left);
        let left = left.take(short.max(short_of_family).max(at_once));
        // What a label set counted in other bounds goes with it: one series shows all of them together.
        let left: HashSet<_> = left.flat_map(|id| shard.store.alike(&id).to_vec()).collect();
        if left.is_empty() {
            return false;
        }
        self.lines.full.say(|left_out| {
            tracing::info!(
                shard_id = shard.id,
                series = left.len(),
                left_out,
                "the shard is full: what series without a living instance counted is in overflow=\"true\" now"
            );
        });
        let fate = |id| if left.contains(&id) { Fate::Overflows } else { Fate::Stays };
        shard.rearrange(fate, &self.families);
        shard.record_all(&self.recorder);
        true
    }

    /// Drops families, by id, and all that shards have of them: their names are free. Returns how many series that were.
    pub(super) fn retire(&self, families: &[u32]) -> usize {
        if families.is_empty() {
            return 0;
        }
        self.free_names(families);
        self.drop_series(&families.iter().copied().collect())
    }

    /// Frees the names of families, by id.
    fn free_names(&self, families: &[u32]) {
        self.recorder.record(&[Change::Retired(families.into())]);
        self.families.retire(families);
    }

    /// Drops all series that shards have of these families. Returns how many that were.
    fn drop_series(&self, families: &HashSet<u32>) -> usize {
        let mut dropped = 0;
        for shared in self.all() {
            let mut shard = shared.lock();
            let is_retired = |shard: &Shard, id| {
                let family = shard.store.get(id).and_then(|s| shard.store.family_of(s));
                family.is_some_and(|family| families.contains(&(family.id as u32)))
            };
            let gone: HashSet<_> = shard.store.ids().filter(|id| is_retired(&shard, *id)).collect();
            if !gone.is_empty() {
                dropped += gone.len();
                let fate = |id| if gone.contains(&id) { Fate::Goes } else { Fate::Stays };
                shard.rearrange(fate, &self.families);
                shard.record_all(&self.recorder);
            }
        }
        dropped
    }

    /// Drops families that rules treat otherwise now than when they were recorded: they begin anew. To be called once all
    /// is restored. Returns how many series that were.
    pub fn apply_rules(&self) -> usize {
        let changed = self.families.treated_otherwise();
        for family in self.families.all() {
            if changed.contains(&(family.id as u32)) {
                tracing::warn!(
                    family = &*family.name,
                    "a rule for this family changed: it begins anew"
                );
            }
        }
        // A manager that was killed while it retired families may have recorded that, and not what it made of each shard.
        self.drop_series(&self.families.without_names()) + self.retire(&changed)
    }

    /// Where shards reported a family with another type than it has: drops the one that it has, if no living instance reports
    /// it any more (E4). To be called every second or so. Returns how many series that were.
    pub fn yield_types(&self, now: UnixTime) -> usize {
        let contested = self.families.take_contested();
        let stale_after = self.settings.stale_after;
        let mut dropped = 0;
        for (id, shards) in contested {
            let is_reported = self.all().into_iter().any(|shard| {
                let shard = shard.peek();
                shard.reports_family(id, now, stale_after)
            });
            if is_reported {
                continue;
            }
            if let Some(family) = self.families.get(id as u32) {
                self.lines.yields.say(|left_out| {
                    tracing::warn!(
                        family = &*family.name,
                        kind = family.kind.as_str(),
                        left_out,
                        "no living shard reports this family so: it yields to the type that others report"
                    );
                });
            }
            dropped += self.retire(&[id as u32]);
            // Those who reported the other type are told to do so again.
            for shared in shards.iter().map(|id| self.shard(*id)) {
                shared.lock().end_streams();
            }
        }
        dropped
    }

    /// Forgets what a shard counted. One that lives begins anew from zero; instances that are silent cannot return. `None`:
    /// there is no such shard.
    pub fn forget(&self, shard_id: u32, now: UnixTime) -> Option<Forgotten> {
        let shared = self.shards.read().get(&shard_id).map(Arc::clone)?;
        let mut shard = shared.lock();
        if shard.tally.last_report.is_none() && shard.store.len() == 0 && shard.instances.is_empty()
        {
            return None;
        }
        let stale_after = self.settings.stale_after;
        let before = shard.store.len();
        let stays: HashSet<_> =
            shard.store.ids().filter(|id| shard.is_of_living(*id, now, stale_after)).collect();
        let living = |i: &Instance| i.is_alive(now, stale_after);
        let alive = shard.instances.iter().any(living);
        let is_open = |i: &Instance| living(i) || i.stream != 0;
        let (open, ended) =
            std::mem::take(&mut shard.instances).into_iter().partition::<Vec<_>, _>(is_open);
        shard.instances = open;
        ended.into_iter().for_each(|instance| shard.remember(instance));
        shard.base.clear();
        let fate = |id| if stays.contains(&id) { Fate::Stays } else { Fate::Goes };
        shard.rearrange(fate, &self.families);
        shard.begin_anew(now);
        let heard = if alive { (shard.tally.last_report, shard.tally.seen) } else { (None, None) };
        shard.tally = Tally::begun(heard);
        shard.settle(now, stale_after);
        let event = shard.forgotten(alive, now);
        shard.announce(&event);
        let state = Change::Shard(shard_id, Step::State(Box::new(shard.record())));
        self.recorder.record_with(&[state], &mut [event]);
        let series = before - shard.store.len();
        drop(shard);
        self.retire_unused();
        Some(Forgotten { series, alive })
    }

    /// Frees the names of families that no shard has any more.
    fn retire_unused(&self) {
        // Before shards are looked at: a family that is made meanwhile is not among them, and of one that was made before, the
        // series are there once its shard can be locked.
        let families = self.families.all();
        let mut used = HashSet::new();
        for shard in self.all() {
            let shard = shard.peek();
            used.extend(shard.store.ids().filter_map(|id| {
                let series = shard.store.get(id)?;
                shard.store.family_of(series).map(|family| family.id)
            }));
        }
        let unused = families.iter().filter(|f| !f.gave_way() && !used.contains(&f.id));
        let unused: Vec<_> = unused.map(|family| family.id as u32).collect();
        if !unused.is_empty() {
            self.free_names(&unused);
        }
    }
}

impl Shard {
    /// Whether a living instance ever counted anything in a series.
    fn is_of_living(&self, id: SeriesId, now: UnixTime, stale_after: Duration) -> bool {
        let Some(series) = self.store.get(id) else { return false };
        // One that was defined only may be reported next.
        if !series.counted && self.instances.iter().any(|i| i.stream != 0) {
            return true;
        }
        let mut living = self.instances.iter().filter(|i| i.is_alive(now, stale_after));
        living.any(|i| i.ever_had(id, series.slot(), series.width()))
    }

    /// Whether a living instance has a series of a family.
    fn reports_family(&self, family: usize, now: UnixTime, stale_after: Duration) -> bool {
        let of_family = self.store.blocks().iter().filter(|block| block.family.id == family);
        let series: Vec<_> = of_family.flat_map(|block| &block.series).collect();
        let mut living = self.instances.iter().filter(|i| i.is_alive(now, stale_after));
        living.any(|instance| series.iter().any(|id| instance.has(**id)))
    }

    /// The counts that instance `at` has of families which it reports with another type now: it no longer has those.
    pub(super) fn retyped(&self, at: usize, families: &[ReportedFamily]) -> Vec<u32> {
        let is_retyped = |family: &Family| {
            families.iter().any(|f| f.name == *family.name && f.kind != family.kind)
        };
        let blocks = self.store.blocks().iter().filter(|block| is_retyped(&block.family));
        let instance = self.instances.get(at);
        let has = |id: &SeriesId| instance.is_some_and(|instance| instance.has(*id));
        // What else there is has left by itself.
        let counts = |id: &SeriesId| {
            self.store.get(*id).is_some_and(|series| series.kind.owned(series.bounds.len()) == 0)
        };
        let series = blocks.flat_map(|block| block.series.iter().copied());
        series.filter(|id| has(id) && counts(id)).map(|id| id.index() as u32).collect()
    }

    fn is_of_overflow(&self, id: SeriesId) -> bool {
        let family = self.store.get(id).and_then(|series| self.store.family_of(series));
        family.is_some_and(|family| self.store.overflow_of(family).contains(&id))
    }

    /// Ends all streams: what they defined has other places now, or could be taken if it were defined again.
    pub(super) fn end_streams(&mut self) {
        self.epoch += 1;
        for instance in &mut self.instances {
            instance.end_stream();
        }
    }

    /// Gives every series its fate, and those that stay new places.
    fn rearrange(
        &mut self,
        fate: impl Fn(SeriesId) -> Fate,
        families: &super::family::FamilyTable,
    ) {
        let before = std::mem::take(&mut self.store);
        let mut moves = Vec::with_capacity(before.len());
        let mut put = |store: &mut Store, id: SeriesId, series: &Series, overflows: bool| {
            let family = before.shared_family_of(series)?;
            let labels = if overflows { OVERFLOW } else { before.labels(series) };
            let labels = LabelSet::restore(labels);
            let bounds = match overflows {
                true => families.share(merged_bounds(family.kind, &series.bounds).into_owned()),
                false => Arc::clone(&series.bounds),
            };
            let to = store.find(family, &labels, &bounds);
            let to = to.unwrap_or_else(|| store.add(family, &labels, bounds, series.created()));
            if series.counted {
                store.count(to);
            }
            let (from_slot, from_width) = (series.slot(), series.width());
            let placed = store.get(to)?;
            let width = placed.width();
            let part = overflows && !family.treatment.merges();
            let part = part.then(|| PartId::of(family, before.labels(series), &placed.bounds));
            moves.push(Move {
                from: id,
                // Of a summary, the quantiles stay behind.
                from_slot: from_slot + from_width - width,
                to,
                to_slot: placed.slot(),
                width,
                merges: overflows,
                part,
            });
            Some(())
        };
        for (wanted, overflows) in [(Fate::Stays, false), (Fate::Overflows, true)] {
            for id in before.ids().filter(|id| fate(*id) == wanted) {
                if let Some(series) = before.get(id)
                    && (!overflows || series.kind.count_at(0).is_some())
                {
                    put(&mut self.store, id, series, overflows);
                }
            }
        }
        self.move_values(&before, &moves);
        if self.renumbered.is_none() {
            self.renumbered = Some(before.family_ids());
        }
        self.end_streams();
    }

    /// Brings all values to their new places.
    fn move_values(&mut self, before: &Store, moves: &[Move]) {
        let (slots, series) = (self.store.slots(), self.store.len());
        let base = std::mem::replace(&mut self.base, vec![0.0; slots]);
        for m in moves {
            let from = base.get(m.from_slot..m.from_slot + m.width).unwrap_or_default();
            if let Some(to) = self.base.get_mut(m.to_slot..m.to_slot + m.width) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
        let mut places = vec![None; before.len()];
        for m in moves.iter().filter(|m| !m.merges) {
            if let Some(place) = places.get_mut(m.from.index()) {
                *place = Some(m.to);
            }
        }
        let place = |id: SeriesId| places.get(id.index()).copied().flatten();
        for instance in &mut self.instances {
            instance.rearrange(moves, slots, series);
            instance.parts.renumber(|id| place(SeriesId::new(id)).map(|id| id.index() as u32));
        }
        self.exemplars.renumber(place);
        before.shown().filter_map(place).for_each(|id| self.store.show(id));
        self.exposed.clear();
        self.make_room();
        let all: Vec<_> = self.store.ids().collect();
        for id in all {
            self.refresh(id);
            self.store.touch(id);
        }
    }

    /// All that is counted begins at zero now.
    fn begin_anew(&mut self, now: UnixTime) {
        let all: Vec<_> = self.store.ids().collect();
        for id in all {
            let Some(series) = self.store.get_mut(id) else { continue };
            series.begin(now);
            let owned = series.kind.owned(series.bounds.len());
            let (slot, width) = (series.slot() + owned, series.width() - owned);
            for instance in &mut self.instances {
                instance.begin_anew(slot, width);
            }
            self.refresh(id);
        }
    }

    /// Records all of it.
    pub(super) fn record_all(&self, recorder: &Recorder) {
        recorder.record(&[Change::Shard(self.id, Step::State(Box::new(self.record())))]);
    }
}
