//! The registry from its recorded changes, and a checkpoint of it.

use super::{
    FleetSize, MAX_SHARD_COUNT, Registry,
    change::{Change, Misfit, PartValues, ReportStep, SeriesStep, ShardRecord, Sink, Step},
    family::FamilyTable,
    instance::Instance,
    shard::Shard,
    status::Tally,
    store::{Series, SeriesId, Store},
};
use crate::{
    clock::UnixTime,
    model::{Bounds, LabelSet},
};

impl Registry {
    /// From now on every change goes to `sink` before it is applied. Only the first call counts.
    pub fn record_to(&self, sink: Sink) {
        self.recorder.record_to(sink);
    }

    /// Makes a change again that was recorded.
    ///
    /// # Errors
    /// If it does not fit what was restored before; nothing is changed then.
    pub fn restore(&self, change: Change<'_>) -> Result<(), Misfit> {
        match change {
            Change::Family(family) => self.families.restore(family),
            Change::Retired(families) => {
                self.families.retire(&families);
                Ok(())
            }
            Change::FleetSize { shard_count, .. } if shard_count > MAX_SHARD_COUNT => {
                Err(Misfit("size of the bot"))
            }
            Change::FleetSize { shard_count, said_at } => {
                *self.fleet.lock() = FleetSize { shard_count, said_at };
                Ok(())
            }
            Change::Time(at) => {
                *self.recorded_until.lock() = at;
                Ok(())
            }
            Change::Resumed(at) => {
                self.count_as_heard(at);
                Ok(())
            }
            Change::Shard(id, step) => {
                let shard = self.shard(id);
                let mut shard = shard.lock();
                if let Step::Report(ReportStep { at, .. })
                | Step::Join { at, .. }
                | Step::Close { at, .. } = &step
                {
                    *self.recorded_until.lock() = *at;
                }
                let is_all = matches!(step, Step::State(_));
                shard.restore(step, &self.families)?;
                if is_all {
                    self.recorder.events.know(id, shard.announced);
                }
                Ok(())
            }
            Change::Event(event) => {
                *self.recorded_until.lock() = event.at;
                self.shard(event.shard_id).lock().announce(&event);
                self.recorder.events.restore(event)
            }
            Change::Events(record) => {
                self.recorder.events.restore_all(record);
                Ok(())
            }
        }
    }

    /// All was restored, and it is `now`: whoever was alive when the last change was recorded counts as heard of now, so
    /// that it keeps its state until it reports or has had the time to.
    pub fn resume(&self, now: UnixTime) {
        self.recorder.record(&[Change::Resumed(now)]);
        let events = &self.recorder.events;
        events.record_epoch(|all| self.recorder.record(&[Change::Events(all)]));
        self.count_as_heard(now);
    }

    fn count_as_heard(&self, now: UnixTime) {
        let ended = std::mem::replace(&mut *self.recorded_until.lock(), now);
        let stale_after = self.settings.stale_after;
        // The clock may have been set back: who was silent stays so for as long as it was.
        let set_back = |time: UnixTime| if ended > now { now - ended.since(time) } else { time };
        for shard in self.all() {
            let mut shard = shard.lock();
            for instance in &mut shard.instances {
                let silent = instance.is_silent(ended, stale_after);
                instance.seen = if silent { set_back(instance.seen) } else { now };
            }
            shard.fell_at = shard.fell_at.map(set_back);
            let heard = |seen| ended.since(seen) <= stale_after;
            let seen = shard.tally.seen;
            shard.tally.seen = seen.map(|seen| if heard(seen) { now } else { set_back(seen) });
            shard.settle(now, stale_after);
        }
        let mut fleet = self.fleet.lock();
        fleet.said_at = fleet.said_at.min(now);
    }

    /// Gives `record` everything there is, so that with what is recorded from now on it makes the registry again. Shards
    /// are locked one at a time.
    pub fn checkpoint(&self, mut record: impl FnMut(&[Change<'_>])) {
        self.families.record_all(&mut record);
        {
            let fleet = self.fleet.lock();
            record(&[fleet.change()]);
        }
        self.recorder.events.checkpoint(|all| record(&[Change::Events(all)]));
        for shard in self.all() {
            let shard = shard.peek();
            let state = Step::State(Box::new(shard.record()));
            record(&[Change::Shard(shard.id, state)]);
        }
    }
}

impl Shard {
    fn restore(&mut self, step: Step<'_>, families: &FamilyTable) -> Result<(), Misfit> {
        match step {
            Step::Series(series) => self.store.restore(&series, families),
            Step::Join { ordinal, .. } if ordinal < self.next_ordinal() => Err(Misfit("join")),
            Step::Join { ordinal, key, transport, at } => {
                self.add_instance(Instance::new(ordinal, key, transport, at));
                Ok(())
            }
            Step::State(record) => {
                *self = Self::from_record(self.id, *record, families)?;
                Ok(())
            }
            step => {
                let at = step.instance().and_then(|ordinal| self.position_of(ordinal));
                match &step {
                    Step::Report(report) => self.check_fit(report)?,
                    Step::Parts { parts, .. } => self.check_parts(parts)?,
                    _ => {}
                }
                self.follow(at.ok_or(Misfit("step of an instance"))?, step);
                Ok(())
            }
        }
    }

    /// Whether a report names series that exist, with as many values as they have.
    fn check_fit(&self, report: &ReportStep<'_>) -> Result<(), Misfit> {
        let width = |id: &u32| self.store.get(SeriesId::new(*id)).map(Series::width);
        let known = report.left.iter().all(|id| width(id).is_some());
        let values = report.series.iter().map(width).sum::<Option<usize>>();
        self.check_parts(&report.parts)?;
        if known && values == Some(report.values.len()) { Ok(()) } else { Err(Misfit("report")) }
    }

    /// The same of parts of merged series.
    fn check_parts(&self, said: &PartValues<'_>) -> Result<(), Misfit> {
        let width = |id: &u32| self.store.get(SeriesId::new(*id)).map(Series::width);
        let values = said.merged.iter().map(width).sum::<Option<usize>>();
        let fits = said.merged.len() == said.parts.len() && values == Some(said.values.len());
        if fits { Ok(()) } else { Err(Misfit("parts")) }
    }

    /// All of it.
    pub(super) fn record(&self) -> ShardRecord<'_> {
        let (reports, rejected) = self.tally.counts();
        let index = |id: SeriesId| id.index() as u32;
        let counted = |id: &SeriesId| self.store.get(*id).is_some_and(|series| series.counted);
        ShardRecord {
            series: self.store.steps(0).collect(),
            shown: self.store.shown().map(index).collect(),
            counted: self.store.ids().filter(counted).map(index).collect(),
            base: (&self.base[..]).into(),
            instances: self.instances.iter().map(Instance::record).collect(),
            tombstones: self.tombstones.iter().cloned().collect(),
            ordinals: self.ordinals,
            fell_at: self.fell_at,
            last_report: self.tally.last_report,
            seen: self.tally.seen,
            announced: self.announced,
            reports,
            rejected,
        }
    }

    fn from_record(
        id: u32,
        record: ShardRecord<'_>,
        families: &FamilyTable,
    ) -> Result<Self, Misfit> {
        let mut shard = Self::new(id);
        for series in record.series {
            shard.store.restore(&series, families)?;
        }
        for series in record.counted.into_iter().map(SeriesId::new) {
            shard.store.count(series);
        }
        record.shown.into_iter().for_each(|series| shard.store.show(SeriesId::new(series)));
        shard.base = record.base.into_owned();
        shard.make_room();
        shard.instances = record.instances.into_iter().map(Instance::restore).collect();
        shard.tombstones = record.tombstones.into();
        shard.ordinals = record.ordinals;
        shard.fell_at = record.fell_at;
        shard.announced = record.announced;
        shard.tally =
            Tally::restore((record.last_report, record.seen), record.reports, record.rejected);
        let all: Vec<_> = shard.store.ids().collect();
        all.into_iter().for_each(|series| shard.refresh(series));
        Ok(shard)
    }
}

impl Store {
    fn restore(&mut self, step: &SeriesStep<'_>, families: &FamilyTable) -> Result<(), Misfit> {
        let family = families.get(step.family).ok_or(Misfit("series"))?;
        let bounds = Bounds::new(&step.bounds).map_err(|_| Misfit("series"))?;
        if step.series as usize != self.len() {
            return Err(Misfit("series"));
        }
        let labels = LabelSet::restore(&step.labels);
        self.add(&family, &labels, families.share(bounds), step.created);
        Ok(())
    }
}
