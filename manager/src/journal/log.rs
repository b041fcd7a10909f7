//! An append-only log of byte records in one directory. It knows files and bytes only.
//!
//! The log is a row of segments; only the newest is written to. A segment is opened at every start, so that a torn
//! record is always the last of its segment, and for every checkpoint: the owner writes down everything it has, and
//! whatever changes meanwhile between that, in the same segment. Once the checkpoint is complete and on disk, the older
//! segments are deleted. [`mod@format`] describes the bytes, [`mod@replay`] which of them count.
//!
//! A failed write or sync breaks the log: what is on disk is no longer known, so nothing is added to it. It heals by a
//! checkpoint, which needs nothing of what came before. So a segment is needed
//! - if it is the newest with a complete checkpoint, or newer: until a newer checkpoint is complete **and synced**;
//! - even if it is a checkpoint that could not be finished: its records were acknowledged, and go on from the older
//!   segments, so both stay;
//! - but not if it is a healing checkpoint that could not be finished: no record in it was acknowledged as durable. The
//!   next attempt takes its number and its place, because a full disk has no room for both.

mod disk;
mod error;
#[cfg(test)]
pub(crate) mod faults;
mod format;
mod replay;
mod scan;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, IoSlice},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

pub use error::OpenError;
pub(crate) use {
    disk::{Disk, RealDisk, SyncHandle},
    format::PIECE_BYTES,
    replay::{Record, Recovered},
};

use format::{END_OF_CHECKPOINT, FIRST, Kind, LAST_PIECE, MAX_PAYLOAD_BYTES, PIECE};

#[derive(Debug)]
pub(crate) struct Log<D: Disk> {
    disk: D,
    dir: PathBuf,
    /// The directory: to sync names of new segments, and locked for life, for it is one process's.
    names: File,
    /// Written by earlier runs or before the last checkpoint began, oldest first.
    older: Vec<Older>,
    /// None: the log is broken.
    current: Option<Current<D>>,
    /// The number of the next segment while the log is broken.
    next: u64,
    checkpoint_bytes: u64,
    since_checkpoint: u64,
}

#[derive(Debug)]
struct Older {
    number: u64,
    bytes: u64,
}

/// The segment that is written to.
#[derive(Debug)]
struct Current<D> {
    number: u64,
    kind: Kind,
    /// Its checkpoint is complete, if it is one.
    complete: bool,
    bytes: u64,
    file: SyncHandle<D>,
}

impl<D> Current<D> {
    /// Its records count for nothing yet.
    fn is_healing(&self) -> bool {
        self.kind == Kind::Healing && !self.complete
    }
}

impl<D: Disk> Log<D> {
    /// Locks the directory, made if need be; gives every record that counts, in order, to `each`; and opens a segment to
    /// append to. If that alone fails and there was something to replay, the log is open but broken: a full disk is no
    /// reason not to show what is known.
    pub(crate) fn open_on(
        disk: D,
        dir: &Path,
        each: impl FnMut(Record<'_>),
    ) -> Result<(Self, Recovered), OpenError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(OpenError::io("create", dir))?;
        let names = lock(dir)?;
        let segments = replay::segments(dir)?;
        let replayed = replay::replay(dir, &segments, each)?;

        let mut older: Vec<Older> =
            segments.iter().map(|s| Older { number: s.number, bytes: s.bytes }).collect();
        let next = if replayed.newest_is_void {
            older.pop().map_or(FIRST, |newest| newest.number)
        } else {
            older.last().map_or(FIRST, |newest| newest.number.saturating_add(1))
        };
        let mut log = Self {
            disk,
            dir: dir.to_owned(),
            names,
            older,
            current: None,
            next,
            checkpoint_bytes: replayed.checkpoint_bytes,
            since_checkpoint: replayed.since_checkpoint,
        };
        let mut recovered = replayed.recovered;
        match sync_all(&log.disk, &segments).and_then(|()| log.create(next, Kind::Start)) {
            Ok(current) => log.current = Some(current),
            Err(error) if segments.is_empty() => {
                return Err(OpenError::io("write", &log.path(next))(error));
            }
            Err(error) => recovered.broken = Some(error),
        }
        Ok((log, recovered))
    }

    /// Adds one record; a long one is better [added in pieces](Self::append_piece). It survives a crash of this process if the log [is durable](Self::is_durable) after, and a power
    /// cut once it is [synced](Self::sync_handle). If this fails, the log is broken, unless the record was just too long.
    pub(crate) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.is_broken() {
            return Err(broken());
        }
        check_length(payload)?;
        self.write(payload.len() as u32, payload)
    }

    /// Adds the next piece of a long record: see [`pieces`]. No other long record may be begun before its last piece, and no
    /// checkpoint; whatever is short may be added between.
    pub(crate) fn append_piece(&mut self, piece: &Piece<'_>) -> io::Result<()> {
        self.write(piece.flag | piece.payload.len() as u32, piece.payload)
    }

    /// Opens a segment for a checkpoint. From now on, append everything there is, and what changes meanwhile; then
    /// [end](Self::end_checkpoint) it.
    ///
    /// It heals a broken log, which stays broken if this fails. If it fails on a log that was not broken, see
    /// [`Self::is_broken`]: mostly it goes on as before. A checkpoint that was not ended is given up.
    ///
    /// It syncs the segment so far, so that no record outlives one before it. [Sync](Self::sync_handle) it just before,
    /// without the log's lock, and little is left to do.
    pub(crate) fn begin_checkpoint(&mut self) -> io::Result<()> {
        let (number, kind) = match &self.current {
            None => (self.next, Kind::Healing),
            Some(current) if current.is_healing() => (current.number, Kind::Healing),
            Some(current) => {
                let next = current.number.saturating_add(1);
                current.file.sync().inspect_err(|_| self.retire())?;
                (next, Kind::Checkpoint)
            }
        };
        if kind == Kind::Healing {
            self.retire();
        }
        let current = self.create(number, kind)?;
        self.retire();
        self.current = Some(current);
        Ok(())
    }

    /// Writes that the checkpoint ends. It counts once that is [synced](Self::sync_handle) and said so to
    /// [`Self::complete_checkpoint`].
    pub(crate) fn end_checkpoint(&mut self) -> io::Result<Ending> {
        match &self.current {
            None => Err(broken()),
            Some(current) if current.kind == Kind::Start || current.complete => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "no checkpoint was begun"))
            }
            Some(Current { number, .. }) => {
                let number = *number;
                self.write(END_OF_CHECKPOINT, &[])?;
                let Some(current) = &self.current else { return Err(broken()) };
                Ok(Ending { number, bytes: current.bytes, since: self.since_checkpoint })
            }
        }
    }

    /// The checkpoint is on disk: its name was synced when it was created, its end since it was written. Nobody needs the
    /// older segments any more; [delete](Obsolete::delete) them without the log's lock. If the log broke meanwhile, it
    /// remains so.
    pub(crate) fn complete_checkpoint(&mut self, ending: Ending) -> io::Result<Obsolete<D>> {
        let current = self.current.as_mut().filter(|current| current.number == ending.number);
        current.ok_or_else(broken)?.complete = true;
        self.checkpoint_bytes = ending.bytes;
        self.since_checkpoint -= ending.since;
        let dir = self.dir.clone();
        Ok(Obsolete { disk: self.disk.clone(), dir, segments: std::mem::take(&mut self.older) })
    }

    /// What could not be deleted is passed over by replay, and tried again after the next checkpoint.
    pub(crate) fn keep(&mut self, obsolete: Obsolete<D>) {
        self.older.splice(..0, obsolete.segments);
    }

    /// What to sync, about once a second, without the log's lock. None if the log is broken.
    pub(crate) fn sync_handle(&self) -> Option<SyncHandle<D>> {
        self.current.as_ref().map(|current| current.file.clone())
    }

    /// A sync failed, so what was acknowledged may be lost in a power cut: break the log, and heal it.
    pub(crate) fn broke(&mut self) {
        self.retire();
    }

    /// Appending fails until a [checkpoint is begun](Self::begin_checkpoint).
    pub(crate) fn is_broken(&self) -> bool {
        self.current.is_none()
    }

    /// Whether the segment that is written to is still where a start would look for it: a directory that was removed or
    /// renamed takes what is written all the same.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn check_place(&self) -> io::Result<()> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        let path = self.path(current.number);
        let (there, here) = (fs::metadata(&path), current.file.file().metadata()?);
        match there {
            Ok(there) if (there.dev(), there.ino()) == (here.dev(), here.ino()) => Ok(()),
            _ => {
                let what = format!("{} was removed or replaced while in use", path.display());
                Err(io::Error::new(io::ErrorKind::NotFound, what))
            }
        }
    }

    /// Whether what was appended survives a crash. It does not while the log is broken, nor before the checkpoint that
    /// heals it has ended.
    pub(crate) fn is_durable(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.is_healing())
    }

    /// Bytes of the newest complete checkpoint.
    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        self.checkpoint_bytes
    }

    /// Bytes appended since that.
    pub(crate) fn since_checkpoint(&self) -> u64 {
        self.since_checkpoint
    }

    /// Bytes of all segments that are there for a reason.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |current| current.bytes);
        self.older.iter().map(|older| older.bytes).sum::<u64>() + current
    }

    fn write(&mut self, length: u32, payload: &[u8]) -> io::Result<()> {
        let current = self.current.as_mut().ok_or_else(broken)?;
        let prefix = format::prefix(length, payload);
        let parts = [IoSlice::new(&prefix), IoSlice::new(payload)];
        let written = self.disk.write(current.file.file(), &parts).and_then(|written| {
            current.bytes += written as u64;
            self.since_checkpoint += written as u64;
            whole(written, prefix.len() + payload.len())
        });
        written.inspect_err(|_| self.give_up())
    }

    fn create(&self, number: u64, kind: Kind) -> io::Result<Current<D>> {
        let path = self.path(number);
        let header = format::header(number, kind);
        let create = || -> io::Result<File> {
            let file = self.disk.create(&path)?;
            whole(self.disk.write(&file, &[IoSlice::new(&header)])?, header.len())?;
            self.disk.sync(&self.names)?;
            Ok(file)
        };
        let file = create().inspect_err(|_| {
            // What is there now holds no record. If it cannot go, it is overwritten or passed over later.
            let _ = self.disk.remove(&path);
        })?;
        let file = SyncHandle::new(self.disk.clone(), file);
        Ok(Current { number, kind, complete: false, bytes: header.len() as u64, file })
    }

    /// Breaks the log after a failed write. The records before that were acknowledged, and nobody will sync them later.
    fn give_up(&mut self) {
        if let Some(current) = &self.current
            && !current.is_healing()
        {
            // If this fails too, there is nothing left to try; the checkpoint that heals the log is to come.
            let _ = current.file.sync();
        }
        self.retire();
    }

    /// Stops writing to the current segment. It stays if it may be needed; if not, the next one gets its number.
    fn retire(&mut self) {
        let Some(current) = self.current.take() else { return };
        if current.is_healing() {
            self.next = current.number;
        } else {
            self.next = current.number.saturating_add(1);
            self.older.push(Older { number: current.number, bytes: current.bytes });
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format::file_name(number))
    }
}

/// What a checkpoint was when its end was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    number: u64,
    bytes: u64,
    /// Appended before, since the one before it.
    since: u64,
}

/// Segments that nobody needs any more.
#[derive(Debug)]
pub(crate) struct Obsolete<D> {
    disk: D,
    dir: PathBuf,
    segments: Vec<Older>,
}

impl<D: Disk> Obsolete<D> {
    /// Deletes them, which takes as long as they are large. What is left is [to be kept](Log::keep).
    pub(crate) fn delete(mut self) -> Self {
        let (disk, dir) = (&self.disk, &self.dir);
        self.segments.retain(|segment| {
            let path = dir.join(format::file_name(segment.number));
            match disk.remove(&path) {
                Ok(()) => false,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => {
                    let path = path.display();
                    tracing::warn!(%path, %error, "cannot delete a journal segment nobody needs");
                    true
                }
            }
        });
        self
    }
}

/// A piece of a long record.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    flag: u32,
    payload: &'a [u8],
}

/// A long record's pieces, in the order in which to add them.
pub(crate) fn pieces(record: &[u8]) -> io::Result<impl Iterator<Item = Piece<'_>>> {
    check_length(record)?;
    let last = record.chunks(PIECE_BYTES).count().saturating_sub(1);
    let flag = move |n| if n == last { LAST_PIECE } else { PIECE };
    let chunks = record.chunks(PIECE_BYTES).enumerate();
    Ok(chunks.map(move |(n, payload)| Piece { flag: flag(n), payload }))
}

fn check_length(record: &[u8]) -> io::Result<()> {
    let bytes = record.len();
    if bytes <= MAX_PAYLOAD_BYTES {
        return Ok(());
    }
    let what = format!("a record of {bytes} bytes; the journal takes {MAX_PAYLOAD_BYTES}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Opens the directory itself, for names of segments to be synced, and locks it for as long as it is open: there is no lock
/// file that somebody could remove.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let names = File::open(dir).map_err(OpenError::io("open", dir))?;
    match names.try_lock() {
        Ok(()) => Ok(names),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(OpenError::io("lock", dir)(error)),
    }
}

/// Whoever wrote these may have been killed before the second was over, and no later record may outlive theirs.
fn sync_all(disk: &impl Disk, segments: &[replay::Segment]) -> io::Result<()> {
    segments.iter().try_for_each(|segment| disk.sync(&File::open(&segment.path)?))
}

/// Name and bytes of the first segment as it would be with these records; none ends a checkpoint.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn first_segment<'a>(
    is_checkpoint: bool,
    payloads: impl Iterator<Item = Option<&'a [u8]>>,
) -> (String, Vec<u8>) {
    let kind = if is_checkpoint { Kind::Checkpoint } else { Kind::Start };
    let mut segment = format::header(FIRST, kind).to_vec();
    for payload in payloads {
        let length = payload.map_or(END_OF_CHECKPOINT, |payload| payload.len() as u32);
        let payload = payload.unwrap_or_default();
        segment.extend(format::prefix(length, payload));
        segment.extend(payload);
    }
    (format::file_name(FIRST), segment)
}

fn whole(written: usize, bytes: usize) -> io::Result<()> {
    if written == bytes {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::WriteZero,
        format!("the disk took {written} of {bytes} bytes"),
    ))
}

fn broken() -> io::Error {
    io::Error::other("the journal is broken until a checkpoint heals it")
}
