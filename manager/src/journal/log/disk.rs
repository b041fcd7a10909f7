//! What the log does to the disk, so that a test can make each of it fail. Reading needs no such thing.

use std::{
    fmt,
    fs::File,
    io::{self, IoSlice, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;

pub(crate) trait Disk: Clone + fmt::Debug {
    /// An empty file for writing. What was in it goes.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// One write of all parts; the number of bytes taken.
    fn write(&self, file: &File, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Of a file, or of a directory for the names in it.
    fn sync(&self, file: &File) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
    }

    fn write(&self, mut file: &File, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match file.write_vectored(parts) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// A segment's file, to sync without holding up who appends to it.
#[derive(Debug)]
pub(crate) struct SyncHandle<D> {
    disk: D,
    file: Arc<SegmentFile>,
}

#[derive(Debug)]
struct SegmentFile {
    file: File,
    /// A sync failed. The kernel says so once, to whoever asks first, and then takes the lost pages for written: without
    /// this, the end of a checkpoint could be told that all is well, and delete what is needed now.
    lost: Mutex<bool>,
}

impl<D: Disk> SyncHandle<D> {
    pub(super) fn new(disk: D, file: File) -> Self {
        Self { disk, file: Arc::new(SegmentFile { file, lost: Mutex::new(false) }) }
    }

    pub(super) fn file(&self) -> &File {
        &self.file.file
    }

    /// Makes what was appended before this call survive a power cut. It may take seconds: call it without the log's lock.
    /// If it fails, tell the log that it [broke](super::Log::broke).
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut lost = self.file.lost.lock();
        if *lost {
            return Err(io::Error::other(
                "an earlier sync of this file failed, so part of it may be lost",
            ));
        }
        self.disk.sync(&self.file.file).inspect_err(|_| *lost = true)
    }
}

impl<D: Clone> Clone for SyncHandle<D> {
    fn clone(&self) -> Self {
        Self { disk: self.disk.clone(), file: Arc::clone(&self.file) }
    }
}
