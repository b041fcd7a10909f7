//! What happens to the registry, kept so that a restart of the manager loses nothing (design section 4, E2).
//!
//! The registry gives every change to [`Journal::append`] before it applies it; at start [`FileJournal::open`] makes the
//! registry again from what was kept. The registry does not know this module.
//!
//! A change is durable once it is written to the kernel; once a second [`Journal::maintain`] makes the disk have it too,
//! and, when the log has grown to twice its last checkpoint, writes a new one. Whatever goes wrong with the disk, frames
//! still apply; they are not durable until a new checkpoint succeeds.

mod log;

use std::{io, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    clock::UnixTime,
    metrics::JournalMetrics,
    registry::{Change, Misfit, Registry},
};
pub use log::OpenError;
use log::{Disk, Log, RealDisk};

/// A checkpoint is not worth its writing before this many bytes were added.
const MIN_CHECKPOINT_BYTES: u64 = 1 << 20;

/// Pause between two attempts to write again after the disk failed.
const HEAL_PAUSE: Duration = Duration::from_secs(5);

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
    metrics: JournalMetrics,
}

#[derive(Debug)]
struct Open<D: Disk> {
    log: Log<D>,
    /// Kept for its memory.
    record: Vec<u8>,
    /// Nothing was appended since the last maintenance.
    idle: bool,
    /// Why changes are not durable.
    degraded: Option<String>,
    /// When a checkpoint last failed, or became needed because the disk did.
    failed: Option<Instant>,
}

impl FileJournal {
    /// Opens the journal in `dir`, which is made if it is not there, and restores `registry`, which is empty, from it.
    ///
    /// # Errors
    /// If another manager uses the directory, a newer one wrote it, or it cannot be read or written.
    pub(crate) fn open(
        dir: &Path,
        registry: &Registry,
        metrics: JournalMetrics,
    ) -> Result<Arc<Self>, OpenError> {
        Self::open_on(RealDisk, dir, registry, metrics)
    }
}

impl<D: Disk> FileJournal<D> {
    fn open_on(
        disk: D,
        dir: &Path,
        registry: &Registry,
        metrics: JournalMetrics,
    ) -> Result<Arc<Self>, OpenError> {
        let began = Instant::now();
        let mut replay = Replay::default();
        let (log, recovered) = Log::open_on(disk, dir, |record| {
            replay.take(registry, record.payload, record.in_checkpoint);
        })?;
        for damage in &recovered.damage {
            if damage.is_of_a_crash() {
                tracing::warn!(%damage, "the journal ends as a crash leaves it");
            } else {
                tracing::error!(%damage, "the journal is damaged: what is lost there stays lost");
            }
        }
        if let Some((misfit, changes)) = replay.misfits {
            tracing::error!(first = %misfit, changes, "changes of the journal were passed over");
        }
        let (records, bytes, took) = (recovered.records, recovered.bytes, began.elapsed());
        tracing::info!(dir = %dir.display(), records, bytes, ?took, "journal restored");
        metrics.bytes.set(log.disk_bytes().cast_signed());
        let mut open = Open { log, record: Vec::new(), idle: true, degraded: None, failed: None };
        metrics.up.set(1);
        if let Some(error) = recovered.broken {
            open.degrade(&error, &metrics);
        }
        Ok(Arc::new(Self { open: Mutex::new(open), metrics }))
    }

    /// Writes everything there is to a new segment, and drops the older ones.
    fn checkpoint(&self, registry: &Registry) -> io::Result<()> {
        self.open.lock().log.begin_checkpoint()?;
        let mut written = Ok(());
        registry.checkpoint(|changes| {
            if written.is_ok() {
                written = self.open.lock().write(changes);
            }
        });
        written?;
        self.sync()?; // the bulk of it while others append
        self.open.lock().log.end_checkpoint()
    }

    /// Has the disk take what the kernel has.
    fn sync(&self) -> io::Result<()> {
        let handle = self.open.lock().log.sync_handle();
        handle.map_or(Ok(()), |handle| handle.sync())
    }

    /// Checkpoints, and heals by it.
    fn renew(&self, registry: &Registry) {
        let checkpointed = self.checkpoint(registry);
        let mut open = self.open.lock();
        match checkpointed {
            Ok(()) => {
                open.failed = None;
                if open.degraded.take().is_some() {
                    tracing::warn!(
                        "the journal is written again: nothing counted so far is at risk"
                    );
                }
                self.metrics.up.set(1);
                self.metrics.checkpoints.inc();
            }
            Err(error) if open.log.is_durable() => {
                tracing::warn!(%error, "no checkpoint could be written: the journal grows");
                open.failed = Some(Instant::now());
            }
            Err(error) => open.degrade(&error, &self.metrics),
        }
    }
}

impl<D: Disk + Send> Journal for FileJournal<D> {
    fn append(&self, changes: &[Change<'_>]) -> bool {
        let mut open = self.open.lock();
        open.idle = false;
        match open.write(changes) {
            Ok(()) => open.log.is_durable(),
            Err(error) if open.degraded.is_none() => {
                open.degrade(&error, &self.metrics);
                false
            }
            Err(_) => false,
        }
    }

    fn maintain(&self, registry: &Registry, now: UnixTime) {
        let mut open = self.open.lock();
        let is_up = open.degraded.is_none();
        if std::mem::replace(&mut open.idle, true) && is_up {
            // So that after a restart it is known who was alive when the manager ended.
            if let Err(error) = open.write(&[Change::Time(now)]) {
                open.degrade(&error, &self.metrics);
            }
        }
        let grown =
            open.log.since_checkpoint() > open.log.checkpoint_bytes().max(MIN_CHECKPOINT_BYTES);
        let waits = open.failed.is_some_and(|failed| failed.elapsed() < HEAL_PAUSE);
        drop(open);
        if is_up && let Err(error) = self.sync() {
            let mut open = self.open.lock();
            open.log.broke();
            open.degrade(&error, &self.metrics);
        } else if (grown || !is_up) && !waits {
            self.renew(registry);
        }
        self.metrics.bytes.set(self.open.lock().log.disk_bytes().cast_signed());
    }

    fn state(&self) -> JournalState {
        match &self.open.lock().degraded {
            Some(reason) => JournalState::Degraded(reason.clone()),
            None => JournalState::Up,
        }
    }
}

impl<D: Disk> Open<D> {
    fn degrade(&mut self, error: &io::Error, metrics: &JournalMetrics) {
        if self.degraded.is_none() {
            tracing::error!(%error, "the journal cannot be written: counts are taken, but a restart would lose them");
        }
        self.degraded = Some(error.to_string());
        self.failed = Some(Instant::now());
        metrics.up.set(0);
    }

    fn write(&mut self, changes: &[Change<'_>]) -> io::Result<()> {
        self.record.clear();
        self.record = postcard::to_extend(changes, std::mem::take(&mut self.record))
            .map_err(io::Error::other)?;
        self.log.append(&self.record)
    }
}

/// What became of the records read.
#[derive(Debug, Default)]
struct Replay {
    /// Changes that fitted nothing: the first, and how many.
    misfits: Option<(Problem, u64)>,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error("a record is unreadable: {0}")]
    Unreadable(#[from] postcard::Error),
}

impl Replay {
    fn take(&mut self, registry: &Registry, record: &[u8], in_checkpoint: bool) {
        let changes = match postcard::from_bytes::<Vec<Change<'_>>>(record) {
            Ok(changes) => changes,
            Err(error) => return self.note(error.into()),
        };
        for change in changes {
            match registry.restore(change) {
                // What changes while a checkpoint is written comes before what it changes.
                Err(misfit) if !in_checkpoint => self.note(misfit.into()),
                _ => {}
            }
        }
    }

    fn note(&mut self, problem: Problem) {
        self.misfits.get_or_insert((problem, 0)).1 += 1;
    }
}

#[cfg(test)]
mod tests;
