//! What happens to the registry, kept so that a restart of the manager loses nothing (design section 4, E2).
//!
//! The registry gives every change to [`Journal::append`] before it applies it; at start [`FileJournal::open`] makes the
//! registry again from what was kept. The registry does not know this module.
//!
//! A change is durable once it is written to the kernel; once a second [`Journal::maintain`] makes the disk have it too,
//! and, when the log has grown to twice its last checkpoint, writes a new one. Whatever goes wrong with the disk, frames
//! still apply; they are not durable until a new checkpoint succeeds.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod log;

use std::{
    cell::RefCell,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::{
    clock::UnixTime,
    metrics::JournalMetrics,
    registry::{Change, Misfit, Registry},
};
pub use log::OpenError;
use log::{Disk, Log, PIECE_BYTES, RealDisk};

/// A checkpoint is not worth its writing before this many bytes were added.
const MIN_CHECKPOINT_BYTES: u64 = 1 << 20;

/// Pause between two attempts to write again after the disk failed.
const HEAL_PAUSE: Duration = Duration::from_secs(5);

/// How often the disk takes what was appended while a checkpoint is written.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What a thread keeps of the memory it encoded a record in, bytes.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// Keeps changes. The registry's sink, and what operators are told of it.
pub(crate) trait Journal: std::fmt::Debug + Send + Sync {
    /// Keeps `changes`, all or none of them. Returns whether they are durable.
    fn append(&self, changes: &[Change<'_>]) -> bool;

    /// What to do once a second: it may take as long as the disk does.
    fn maintain(&self, registry: &Registry, now: UnixTime);

    /// How it is.
    fn state(&self) -> JournalState;

    /// Whether what is appended now is durable.
    fn is_up(&self) -> bool {
        self.state() == JournalState::Up
    }
}

/// How a journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JournalState {
    /// There is none: a restart starts counts anew.
    MemoryOnly,
    /// Changes are durable.
    Up,
    /// They are not, for this reason.
    Degraded(String),
}

/// No journal.
#[derive(Debug)]
pub(crate) struct MemoryOnly;

impl Journal for MemoryOnly {
    fn append(&self, _changes: &[Change<'_>]) -> bool {
        false
    }

    fn maintain(&self, _registry: &Registry, _now: UnixTime) {}

    fn state(&self) -> JournalState {
        JournalState::MemoryOnly
    }
}

/// A journal in a directory.
#[derive(Debug)]
pub(crate) struct FileJournal<D: Disk = RealDisk> {
    open: Mutex<Open<D>>,
    /// Held, before `open`, while a long record is added in pieces or a checkpoint begins: it goes whole into one segment.
    long: Mutex<()>,
    /// Nothing was appended since the last maintenance.
    idle: AtomicBool,
    /// Why changes are not durable. Locked after `open`, if both are.
    degraded: Mutex<Option<String>>,
    metrics: JournalMetrics,
}

#[derive(Debug)]
struct Open<D: Disk> {
    log: Log<D>,
    /// When a checkpoint last failed, or became needed because the disk did.
    failed: Option<Instant>,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Its files cannot.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A record is whole, but says nothing that this version knows.
    #[error(
        "a record in {dir} is whole but unreadable ({error}): another version of the manager wrote it; start that version, \
         or use another --data-dir to start anew"
    )]
    Unreadable {
        /// The directory.
        dir: String,
        /// What the decoder says.
        error: String,
    },
}

impl FileJournal {
    /// Opens the journal in `dir`, which is made if it is not there, and restores `registry`, which is empty, from it.
    ///
    /// # Errors
    /// If another manager uses the directory, another version wrote it, or it cannot be read or written.
    pub(crate) fn open(
        dir: &Path,
        registry: &Registry,
        metrics: JournalMetrics,
    ) -> Result<Arc<Self>, JournalError> {
        Self::open_on(RealDisk, dir, registry, metrics)
    }
}

impl<D: Disk> FileJournal<D> {
    fn open_on(
        disk: D,
        dir: &Path,
        registry: &Registry,
        metrics: JournalMetrics,
    ) -> Result<Arc<Self>, JournalError> {
        let began = Instant::now();
        let mut replay = Replay::default();
        let (log, recovered) = Log::open_on(disk, dir, |record| {
            replay.take(registry, record.payload, record.in_checkpoint);
        })?;
        if let Some(error) = replay.unreadable {
            let dir = dir.display().to_string();
            return Err(JournalError::Unreadable { dir, error: error.to_string() });
        }
        for damage in &recovered.damage {
            if damage.is_of_a_crash() {
                tracing::warn!(%damage, "the journal ends as a crash leaves it");
            } else {
                tracing::error!(%damage, "the journal is damaged: what is lost there stays lost");
                keep_aside(&damage.file);
                metrics.damage.inc();
            }
        }
        // Also after a crash: a torn end may be all that a power cut left of many records. What was read after the damage
        // with an epoch of its own is of a manager that distrusted them already.
        if recovered.damaged_after.is_some_and(|records| records >= replay.epoch_at) {
            registry.distrust_events();
        }
        if let Some((misfit, changes)) = replay.misfits {
            tracing::error!(first = %misfit, changes, "changes of the journal were passed over");
        }
        let (records, bytes, took) = (recovered.records, recovered.bytes, began.elapsed());
        tracing::info!(dir = %dir.display(), records, bytes, ?took, "journal restored");
        metrics.bytes.set(log.disk_bytes().cast_signed());
        metrics.up.set(1);
        let journal = Self {
            open: Mutex::new(Open { log, failed: None }),
            long: Mutex::default(),
            idle: AtomicBool::new(true),
            degraded: Mutex::default(),
            metrics,
        };
        if let Some(error) = recovered.broken {
            journal.degrade(&mut journal.open.lock(), &error);
        }
        Ok(Arc::new(journal))
    }

    /// Writes everything there is to a new segment, and drops the older ones.
    fn checkpoint(&self, registry: &Registry, now: UnixTime) -> io::Result<()> {
        self.begin_checkpoint()?;
        let mut written = self.write(&[Change::Time(now)]).map(drop);
        let mut synced = Instant::now();
        registry.checkpoint(|changes| {
            if written.is_ok() {
                written = self.write(changes).map(drop);
            }
            if written.is_ok() && synced.elapsed() > SYNC_EVERY {
                written = self.sync(); // also for those who report meanwhile
                synced = Instant::now();
            }
        });
        written?;
        self.end_checkpoint()
    }

    fn begin_checkpoint(&self) -> io::Result<()> {
        self.sync()?; // or the last line would do it while others wait
        let _whole = self.long.lock();
        self.open.lock().log.begin_checkpoint()
    }

    /// Ends it while others append: nobody waits for the disk.
    fn end_checkpoint(&self) -> io::Result<()> {
        let ending = self.open.lock().log.end_checkpoint()?;
        self.sync()?;
        let obsolete = self.open.lock().log.complete_checkpoint(ending)?;
        let left = obsolete.delete();
        self.open.lock().log.keep(left);
        Ok(())
    }

    /// Has the disk take what the kernel has, while others append. If this fails, the log is broken.
    fn sync(&self) -> io::Result<()> {
        let handle = self.open.lock().log.sync_handle();
        let synced = handle.map_or(Ok(()), |handle| handle.sync());
        synced.inspect_err(|_| self.open.lock().log.broke())
    }

    /// Appends one record; returns whether it is durable.
    fn write(&self, changes: &[Change<'_>]) -> io::Result<bool> {
        thread_local! {
            /// Kept for its memory.
            static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let mut record = RECORD.take();
        record.clear();
        // Encoded before the lock, for which others wait.
        record = postcard::to_extend(changes, record).map_err(io::Error::other)?;
        let written = if record.len() <= PIECE_BYTES {
            let mut open = self.open.lock();
            open.log.append(&record).map(|()| open.log.is_durable())
        } else {
            self.write_long(&record)
        };
        record.shrink_to(MAX_KEPT_BYTES);
        RECORD.set(record);
        written
    }

    /// Appends a long record in pieces, and lets others append between them.
    fn write_long(&self, record: &[u8]) -> io::Result<bool> {
        let _whole = self.long.lock();
        for piece in log::pieces(record)? {
            let mut open = self.open.lock();
            open.log.append_piece(&piece)?;
            MutexGuard::unlock_fair(open); // or it would be locked anew before those who wait are awake
        }
        Ok(self.open.lock().log.is_durable())
    }

    /// Changes are not durable from now on.
    fn degrade(&self, open: &mut Open<D>, error: &io::Error) {
        let before = self.degraded.lock().replace(error.to_string());
        if before.is_none() {
            tracing::error!(%error, "the journal cannot be written: counts are taken, but a restart would lose them");
        }
        open.failed = Some(Instant::now());
        self.metrics.up.set(0);
    }

    /// Checkpoints, and heals by it.
    fn renew(&self, registry: &Registry, now: UnixTime) {
        let checkpointed = self.checkpoint(registry, now);
        let mut open = self.open.lock();
        match checkpointed {
            Ok(()) => {
                open.failed = None;
                if self.degraded.lock().take().is_some() {
                    tracing::warn!(
                        "the journal is written again: nothing counted so far is at risk"
                    );
                }
                self.metrics.up.set(1);
                self.metrics.checkpoints.inc();
            }
            Err(error) if open.log.is_durable() => {
                tracing::error!(%error, "no checkpoint could be written: the journal grows");
                open.failed = Some(Instant::now());
                self.metrics.checkpoint_failures.inc();
            }
            Err(error) => {
                self.degrade(&mut open, &error);
                self.metrics.checkpoint_failures.inc();
            }
        }
    }
}

impl<D: Disk + Send> Journal for FileJournal<D> {
    fn append(&self, changes: &[Change<'_>]) -> bool {
        self.idle.store(false, Relaxed);
        match self.write(changes) {
            Ok(durable) => durable,
            Err(error) => {
                let mut open = self.open.lock();
                if self.is_up() {
                    self.degrade(&mut open, &error);
                }
                false
            }
        }
    }

    fn maintain(&self, registry: &Registry, now: UnixTime) {
        if self.idle.swap(true, Relaxed) && self.is_up() {
            // So that after a restart it is known who was alive when the manager ended.
            if let Err(error) = self.write(&[Change::Time(now)]) {
                self.degrade(&mut self.open.lock(), &error);
            }
        }
        let is_up = self.is_up();
        let (grown, waits) = {
            let open = self.open.lock();
            let last = open.log.checkpoint_bytes().max(MIN_CHECKPOINT_BYTES);
            let waits = open.failed.is_some_and(|failed| failed.elapsed() < HEAL_PAUSE);
            (open.log.since_checkpoint() > last, waits)
        };
        let in_place = || self.open.lock().log.check_place();
        if is_up && let Err(error) = in_place().and_then(|()| self.sync()) {
            let mut open = self.open.lock();
            open.log.broke();
            self.degrade(&mut open, &error);
        } else if (grown || !is_up) && !waits {
            self.renew(registry, now);
        }
        self.metrics.bytes.set(self.open.lock().log.disk_bytes().cast_signed());
    }

    fn state(&self) -> JournalState {
        match &*self.degraded.lock() {
            Some(reason) => JournalState::Degraded(reason.clone()),
            None => JournalState::Up,
        }
    }
}

/// A damaged segment stays under another name when the log no longer needs it, for whoever wants to look at it.
fn keep_aside(segment: &Path) {
    let mut aside = segment.as_os_str().to_owned();
    aside.push(".damaged");
    if let Err(error) = std::fs::hard_link(segment, &aside)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        tracing::warn!(%error, segment = %segment.display(), "cannot keep a copy of the damaged segment");
    }
}

/// What became of the records read.
#[derive(Debug, Default)]
struct Replay {
    /// How many were read.
    records: u64,
    /// Which of them said the epoch of events last.
    epoch_at: u64,
    /// Changes that fitted nothing: the first, and how many.
    misfits: Option<(Misfit, u64)>,
    /// Why a whole record could not be read.
    unreadable: Option<postcard::Error>,
}

impl Replay {
    fn take(&mut self, registry: &Registry, record: &[u8], in_checkpoint: bool) {
        let changes = match postcard::from_bytes::<Vec<Change<'_>>>(record) {
            Ok(changes) => changes,
            Err(error) => {
                self.unreadable.get_or_insert(error);
                return;
            }
        };
        self.records += 1;
        for change in changes {
            if matches!(change, Change::Events(_)) {
                self.epoch_at = self.records;
            }
            match registry.restore(change) {
                // What changes while a checkpoint is written comes before what it changes.
                Err(misfit) if !in_checkpoint => self.misfits.get_or_insert((misfit, 0)).1 += 1,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
