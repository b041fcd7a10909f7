//! The registry from its recorded changes, and a checkpoint of it.

use super::{
    Registry,
    change::{Change, Misfit, ReportStep, SeriesStep, ShardRecord, Sink, Step},
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
            Change::FleetSize { shard_count, said_at } => {
                self.fleet.lock().restore(shard_count, said_at);
                Ok(())
            }
            Change::Time(at) => {
                self.note_time(at);
                Ok(())
            }
            Change::Shard(id, step) => {
                let shard = self.shard(id);
                let mut shard = shard.lock();
                if let Step::Report(ReportStep { at, .. })
                | Step::Join { at, .. }
                | Step::Close { at, .. } = &step
                {
                    self.note_time(*at);
                }
                shard.restore(step, &self.families)
            }
        }
    }

    /// All was restored, and it is `now`: whoever was alive when the last change was recorded counts as heard of now, so
    /// that it keeps its state until it reports or has had the time to.
    pub fn resume(&self, now: UnixTime) {
        let ended = *self.recorded_until.lock();
        let stale_after = self.settings.stale_after;
        for shard in self.all() {
            let mut shard = shard.lock();
            for instance in &mut shard.instances {
                if !instance.is_silent(ended, stale_after) {
                    instance.seen = now;
                }
            }
            let tally = &mut shard.tally;
            if tally.seen.is_some_and(|seen| ended.since(seen) <= stale_after) {
                tally.seen = Some(now);
            }
            shard.settle(now, stale_after);
        }
    }

    /// Gives `record` everything there is, so that with what is recorded from now on it makes the registry again. Shards
    /// are locked one at a time.
    pub fn checkpoint(&self, mut record: impl FnMut(&[Change<'_>])) {
        self.families.record_all(&mut record);
        {
            let fleet = self.fleet.lock();
            record(&[fleet.change()]);
        }
        for shard in self.all() {
            let shard = shard.lock();
            let state = Step::State(Box::new(shard.record()));
            record(&[Change::Shard(shard.id, state)]);
        }
    }

    fn note_time(&self, at: UnixTime) {
        let mut until = self.recorded_until.lock();
        *until = at.max(*until);
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
            Step::Describe { ordinal, about } => {
                let at = self.position_of(ordinal).ok_or(Misfit("description"))?;
                self.describe(at, about);
                Ok(())
            }
            Step::Report(report) => {
                let at = self.position_of(report.ordinal).ok_or(Misfit("report"))?;
                self.check_fit(&report)?;
                self.take(at, &report);
                Ok(())
            }
            Step::Close { ordinal, at: when } => {
                let at = self.position_of(ordinal).ok_or(Misfit("close"))?;
                self.end(at, when);
                Ok(())
            }
            Step::Fold { ordinal } => {
                let at = self.position_of(ordinal).ok_or(Misfit("fold"))?;
                self.fold_at(at);
                Ok(())
            }
            Step::State(record) => {
                *self = Self::from_record(self.id, *record, families)?;
                Ok(())
            }
        }
    }

    /// Whether a report names series that exist, with as many values as they have, and families that count.
    fn check_fit(&self, report: &ReportStep<'_>) -> Result<(), Misfit> {
        let mut width = 0;
        for id in report.series.iter().chain(report.left.iter()) {
            let id = SeriesId::new(*id);
            let series = self.store.get(id).ok_or(Misfit("report"))?;
            width += series.width();
            self.store.may_report(id);
        }
        let left = report.left.iter().filter_map(|id| self.store.get(SeriesId::new(*id)));
        let of_left: usize = left.map(Series::width).sum();
        if width - of_left == report.values.len() { Ok(()) } else { Err(Misfit("report")) }
    }

    /// All of it.
    fn record(&self) -> ShardRecord<'_> {
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
            // Tells the family too that it has samples.
            if let (true, Some(series)) =
                (shard.store.may_report(series), shard.store.get_mut(series))
            {
                series.counted = true;
            }
        }
        record.shown.into_iter().for_each(|series| shard.store.show(SeriesId::new(series)));
        shard.base = record.base.into_owned();
        shard.make_room();
        shard.instances = record.instances.into_iter().map(Instance::restore).collect();
        shard.tombstones = record.tombstones.into();
        shard.ordinals = record.ordinals;
        shard.fell_at = record.fell_at;
        shard.tally = Tally::restore(record.last_report, record.reports, record.rejected);
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
        self.add(&family, labels, families.share(bounds), step.created);
        Ok(())
    }
}
