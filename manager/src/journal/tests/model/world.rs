//! A manager with its journal on a disk that fails, and the model beside it.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use proptest::sample::Index;
use tempfile::TempDir;

use super::{
    Event, Happening,
    clients::Client,
    disk::{
        Position, copy_segments, end_of_checkpoint, forget_unfinished, is_one_record, newest,
        position, scratch, segment,
    },
    expected::{Exposed, GAUGE, Model, State},
    followed::Follower,
    kept::{Kept, same},
    senders::Sender,
};
use crate::{
    clock::UnixTime,
    journal::{FileJournal, Journal as _, log::faults::FaultyDisk},
    metrics::{JournalMetrics, Metrics},
    registry::{Change, Registry, Settings, tests::at},
};

/// What unwinds when the manager is killed.
struct Died;

/// Of a segment.
const BYTES_OF_HEADER: u64 = 28;

pub(super) struct Run {
    registry: Arc<Registry>,
    journal: Arc<FileJournal<FaultyDisk>>,
}

pub(super) struct World {
    pub(super) dir: TempDir,
    pub(super) disk: FaultyDisk,
    /// None while the manager is down.
    pub(super) run: Option<Run>,
    pub(super) now: UnixTime,
    pub(super) kept: Arc<Mutex<Kept>>,
    /// Up to here a power cut takes nothing: a checkpoint was synced.
    synced: Position,
    /// What the last scrape showed, and since when each series ever exposed is counted.
    scraped: Exposed,
    blurred: u32,
    created: BTreeMap<String, Option<UnixTime>>,
    pub(super) clients: Vec<Client>,
    pub(super) senders: Vec<Sender>,
    names: u32,
    follower: Follower,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            dir: scratch(),
            disk: FaultyDisk::default(),
            run: None,
            now: at(0),
            kept: Arc::default(),
            synced: (0, 0),
            scraped: Exposed::new(),
            blurred: 0,
            created: BTreeMap::new(),
            clients: Client::all(),
            senders: Sender::all(),
            names: 0,
            follower: Follower::default(),
        };
        world.restart(None);
        world
    }

    fn run(&self) -> &Run {
        self.run.as_ref().unwrap()
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.run().registry)
    }

    pub(super) fn is_durable(&self) -> bool {
        self.run().journal.is_up()
    }

    fn newest_segment(&self) -> (u64, Vec<u8>) {
        let number = position(self.dir.path()).0;
        (number, fs::read(segment(self.dir.path(), number)).unwrap_or_default())
    }

    pub(super) fn new_name(&mut self) -> u32 {
        self.names += 1;
        self.names
    }

    pub(super) fn happens(&mut self, happening: &Happening) {
        {
            let mut kept = self.kept.lock();
            (kept.dies, kept.now) = (happening.dies, self.now);
        }
        let event = catch_unwind(AssertUnwindSafe(|| self.event(&happening.event)));
        self.kept.lock().dies = None;
        match event {
            Ok(()) => assert!(self.kept.lock().plan.is_empty(), "recorded was not all"),
            Err(cause) if cause.is::<Died>() => {
                // Whatever was not recorded, or just now, could not be seen.
                let exposed = self.kept.lock().exposed.take().unwrap();
                self.compare(&exposed);
                self.restart(None);
            }
            Err(cause) => resume_unwind(cause),
        }
        let model = self.kept.lock().model.clone();
        self.compare(&model);
        self.scrape();
        let registry = self.registry();
        self.follower.follow(&registry, self.now);
        if happening.restart_copy {
            self.restart_copy();
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Open { client, bounds } => self.open(*client, *bounds),
            Event::Restart(client) => self.restart_client(*client),
            Event::Newcomer(client, body) => {
                self.restart_client(*client);
                self.open(*client, 0);
                self.frame(*client, false, super::Kind::Snapshot, body);
            }
            Event::Frame { client, older, kind, body } => self.frame(*client, *older, *kind, body),
            Event::Post { sender, kind, body } => self.post(*sender, *kind, body),
            Event::Pass(seconds) => self.pass(*seconds),
            Event::Checkpoint { frames_at, stops_at, cut } => {
                self.checkpoint(*frames_at, *stops_at, *cut);
            }
            Event::Break { after, fault, once } => {
                self.follower.may_miss_some();
                match once {
                    true => self.disk.fail_once(*after, *fault),
                    false => self.disk.fail_from(*after, *fault),
                }
            }
            Event::Heal { mend } => self.heal(*mend),
            Event::Kill { mend, back } => {
                if *mend {
                    self.disk.mend();
                }
                self.now = self.now - Duration::from_secs(*back);
                self.restart(None);
            }
            Event::PowerCut(at) => {
                self.disk.mend();
                self.restart(Some(*at));
            }
        }
    }

    /// Time passes, and the journal is looked after: twice, so that it is not idle the first time.
    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.registry().notice_silence(self.now);
        for _ in 0..2 {
            let journal = Arc::clone(&self.run().journal);
            let before = (position(self.dir.path()), journal.metrics.checkpoints.get());
            journal.maintain(&self.run().registry, self.now);
            assert_eq!(journal.metrics.checkpoints.get(), before.1, "a case takes seconds");
            let position = position(self.dir.path());
            if is_one_record(before.0, position, self.bytes_of_time()) {
                self.time_is_durable(position);
            }
        }
    }

    /// Of the record that it is now.
    fn bytes_of_time(&self) -> u64 {
        postcard::to_allocvec(&[Change::Time(self.now)][..]).unwrap().len() as u64 + 8
    }

    fn time_is_durable(&self, position: Position) {
        let mut kept = self.kept.lock();
        kept.model.until = self.now;
        kept.is_durable(position);
    }

    fn heal(&mut self, mend: bool) {
        if mend {
            self.disk.mend();
        }
        let (was_up, before) = (self.run().journal.is_up(), self.newest_segment());
        self.run().journal.renew(&self.run().registry, self.now);
        let first = (before.0 + 1, BYTES_OF_HEADER + self.bytes_of_time());
        if was_up && position(self.dir.path()) >= first {
            self.time_is_durable(first); // even if it is all of the checkpoint
        }
        self.checkpointed(&before);
    }

    /// It was tried to write all of the model down anew.
    fn checkpointed(&mut self, before: &(u64, Vec<u8>)) {
        let after = self.newest_segment();
        if after == *before {
            return;
        }
        let (number, length) = (after.0, after.1.len() as u64);
        let mut kept = self.kept.lock();
        // One that is complete, but could not be synced, gives its place to the next, whatever becomes of that.
        let older = fs::read(segment(self.dir.path(), before.0));
        if !older.is_ok_and(|bytes| bytes.starts_with(&before.1)) {
            kept.history.retain(|((number, _), _)| *number < before.0);
        }
        // Whether the disk failed after that or not, it is there after a kill.
        let is_complete = after.1.ends_with(&end_of_checkpoint());
        if is_complete {
            kept.model.until = self.now;
            kept.is_durable((number, length));
        }
        if is_complete && self.run().journal.is_up() {
            self.synced = (number, length);
        }
    }

    /// A checkpoint as [`FileJournal::checkpoint`] writes it, while clients send frames between two of its records; or it
    /// ends before one, and so does the manager.
    fn checkpoint(
        &mut self,
        frames_at: Option<usize>,
        stops_at: Option<usize>,
        cut: Option<Index>,
    ) {
        let (registry, journal) =
            (Arc::clone(&self.run().registry), Arc::clone(&self.run().journal));
        let before = self.newest_segment();
        let now = self.now;
        let mut written = journal.begin_checkpoint();
        written = written.and_then(|()| journal.write(&[Change::Time(now)]).map(drop));
        if written.is_ok() && journal.open.lock().log.is_durable() {
            self.time_is_durable(position(self.dir.path()));
        }
        let mut record = 0;
        registry.checkpoint(|changes| {
            if Some(record) == frames_at && !is_locked(changes) {
                self.deltas_of_shard_0();
            }
            if written.is_ok() && stops_at.is_none_or(|stops_at| record < stops_at) {
                written = journal.write(changes).map(drop);
            }
            record += 1;
        });
        if stops_at.is_some() {
            drop((registry, journal));
            self.disk.mend();
            return self.restart(cut);
        }
        let ended = written.and_then(|()| journal.end_checkpoint());
        let mut open = journal.open.lock();
        match &ended {
            Ok(()) => *journal.degraded.lock() = None,
            Err(error) if !open.log.is_durable() => journal.degrade(&mut open, error),
            Err(_) => {}
        }
        drop(open);
        self.checkpointed(&before);
    }

    /// The manager is killed and starts anew; a power cut takes the end of the newest segment before.
    pub(super) fn restart(&mut self, cut: Option<Index>) {
        self.clients.iter_mut().for_each(Client::disconnect);
        self.run = None;
        if let Some(cut) = cut {
            self.power_cut(cut);
        }
        forget_unfinished(self.dir.path());
        let ended = {
            let mut kept = self.kept.lock();
            (kept.dies, kept.now) = (None, self.now);
            kept.plan.clear();
            let durable = kept.durable();
            std::mem::replace(&mut kept.model, durable)
        };
        // It records that it starts: so does the model.
        self.run = Some(self.start());
        let model = self.kept.lock().model.clone();
        self.compare(&model);
        if ended.reports() != model.reports() {
            // Also of a gauge that nobody had any more.
            let shown = exposed(&self.registry(), self.now);
            self.created.retain(|key, _| shown.contains_key(key));
        }
        if self.is_lost(ended, &model) {
            self.scraped = Exposed::new();
        }
    }

    /// Whether anything that was exposed when the manager `ended` is not after its restart.
    fn is_lost(&self, mut ended: Model, restarted: &Model) -> bool {
        ended.resume(self.now);
        ended.exposed(self.now) != restarted.exposed(self.now)
    }

    /// The newest segment loses its end: from any byte on that is not known to be on the disk.
    fn power_cut(&mut self, cut: Index) {
        self.follower = Follower::default();
        let Some((number, length)) = newest(self.dir.path()) else {
            return;
        };
        let from = if self.synced.0 == number { self.synced.1 } else { 0 };
        let end = from + cut.index((length - from) as usize + 1) as u64;
        let file = fs::File::options().write(true).open(segment(self.dir.path(), number)).unwrap();
        file.set_len(end).unwrap();
        let mut kept = self.kept.lock();
        kept.history.retain(|(position, _)| *position <= (number, end));
    }

    pub(super) fn start(&self) -> Run {
        let registry = Arc::new(Registry::new(Settings::default(), []));
        let opened = FileJournal::open_on(self.disk.clone(), self.dir.path(), &registry, metrics());
        let Ok(journal) = opened else {
            // Nothing to show, and nowhere to write: it does not start before the disk is mended.
            self.disk.mend();
            return self.start();
        };
        let (sink, kept, dir) =
            (Arc::clone(&journal), Arc::clone(&self.kept), self.dir.path().to_owned());
        registry.record_to(Box::new(move |changes| {
            let mut kept = kept.lock();
            if kept.damaged {
                return sink.append(changes);
            }
            let dies = kept.dies.take();
            if let Some((0, after)) = dies {
                kept.exposed = Some(kept.model.clone());
                if !after {
                    resume_unwind(Box::new(Died));
                }
            }
            let durable = sink.append(changes);
            changes.iter().for_each(|change| kept.take(change));
            if durable {
                kept.is_durable(position(&dir));
            }
            match dies {
                Some((0, _)) => resume_unwind(Box::new(Died)),
                Some((records, after)) => kept.dies = Some((records - 1, after)),
                None => {}
            }
            durable
        }));
        registry.resume(self.now);
        Run { registry, journal }
    }

    /// A manager that starts on a copy of the journal exposes what this one would after a restart, to the last bit.
    fn restart_copy(&self) {
        let copy = scratch();
        copy_segments(self.dir.path(), copy.path());
        forget_unfinished(copy.path());
        let registry = Registry::new(Settings::default(), []);
        let journal =
            FileJournal::open_on(FaultyDisk::default(), copy.path(), &registry, metrics());
        drop(journal.unwrap_or_else(|error| panic!("{error}")));
        registry.resume(self.now);
        let (mut model, ended) = {
            let kept = self.kept.lock();
            (kept.durable(), kept.model.clone())
        };
        model.resume(self.now);
        compare(&registry, &model, self.now);
        if !self.is_lost(ended, &model) {
            let counts = |registry: &Registry| {
                let counts = exposed(registry, self.now).into_iter();
                counts.filter(|(key, _)| !key.starts_with(GAUGE)).collect::<Exposed>()
            };
            assert_eq!(counts(&registry), counts(&self.registry()), "restored otherwise");
        }
    }

    fn compare(&self, model: &Model) {
        compare(&self.run().registry, model, self.now);
    }

    /// No count is lower than at the last scrape (E2), and none is counted from another time on than before.
    fn scrape(&mut self) {
        let shown = exposed(&self.run().registry, self.now);
        let blurred = self.kept.lock().model.blurred();
        let sharp = std::mem::replace(&mut self.blurred, blurred) == blurred;
        for (key, (bounds, values)) in &self.scraped {
            if key.starts_with(GAUGE) {
                continue;
            }
            let (now_bounds, now) = shown.get(key).unwrap_or_else(|| panic!("{key} is gone"));
            // Of other buckets, the count alone can be compared.
            let (from, to) = match (bounds.is_empty(), sharp && bounds == now_bounds) {
                (true, _) | (_, true) => (0, values.len()),
                (false, false) => (values.len() - 2, values.len() - 1),
            };
            let offset = now.len().wrapping_sub(values.len());
            let rose = (from..to).all(|i| values[i] <= now[i.wrapping_add(offset)]);
            assert!(rose, "{key} fell from {values:?} to {now:?}");
        }
        self.scraped = shown;
        self.registry().visit(self.now, |shard| {
            for (family, series) in shard.families() {
                for one in series {
                    let key = format!("{}{{{}}}@{}", family.name, one.labels, shard.id());
                    let created = *self.created.entry(key).or_insert(one.created);
                    assert_eq!(one.created, created, "a created time changed");
                }
            }
        });
    }
}

/// Whether a frame of shard 0 would wait until the registry has recorded this.
fn is_locked(changes: &[Change<'_>]) -> bool {
    matches!(changes, [Change::Shard(0, _) | Change::Events(_)])
}

pub(super) fn exposed(registry: &Registry, now: UnixTime) -> Exposed {
    let mut exposed = Exposed::new();
    registry.visit(now, |shard| {
        for (family, series) in shard.families() {
            for one in series {
                let key = format!("{}{{{}}}@{}", family.name, one.labels, shard.id());
                let value = (one.bounds.values().to_vec(), one.values.to_vec());
                assert_eq!(exposed.insert(key, value), None, "exposed twice");
            }
        }
    });
    exposed
}

/// What is exposed, and who reports, is as the model says.
fn compare(registry: &Registry, model: &Model, now: UnixTime) {
    same(&exposed(registry, now), model, now).unwrap_or_else(|problem| panic!("{problem}"));
    let states: Vec<_> = registry.status(now).iter().map(State::of).collect();
    assert_eq!(states, model.states(now));
}

pub(super) fn metrics() -> JournalMetrics {
    Metrics::new().unwrap().of_journal().unwrap()
}
