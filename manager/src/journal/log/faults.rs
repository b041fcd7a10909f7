//! A disk that fails on command, and forgets what was not synced.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, IoSlice},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    disk::{Disk, RealDisk},
    format,
};

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing happens.
    Error,
    /// A write writes half, and says so. Anything else as in [`Fault::Error`].
    Short,
    /// A write writes half, and says that it failed. Anything else happens, and says so too.
    Halfway,
}

/// The disk; a clone is the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Operations so far.
    operations: u64,
    /// Which operations fail, and how.
    plan: Vec<(RangeInclusive<u64>, Fault)>,
    /// Bytes of each file, by inode, that would be there after a power cut.
    synced: HashMap<u64, u64>,
    /// Files whose names would not.
    unnamed: Vec<PathBuf>,
}

impl FaultyDisk {
    /// The k-th operation from now fails; k = 0 is the next.
    pub(crate) fn fail_once(&self, k: u64, fault: Fault) {
        self.0.lock().fail(k, 0, fault);
    }

    /// The k-th operation from now and all after it fail.
    pub(crate) fn fail_from(&self, k: u64, fault: Fault) {
        self.0.lock().fail(k, u64::MAX, fault);
    }

    /// Nothing fails any more.
    pub(crate) fn mend(&self) {
        self.0.lock().plan.clear();
    }

    /// How many operations there were.
    pub(crate) fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Takes away what was not synced. No log may be open on the directory.
    pub(crate) fn power_cut(&self, dir: &Path) {
        let State { synced, unnamed, .. } = &mut *self.0.lock();
        for path in unnamed.drain(..) {
            let _ = std::fs::remove_file(path);
        }
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().and_then(format::number).is_some() {
                let file = File::options().write(true).open(path).unwrap();
                let kept = synced.get(&file.metadata().unwrap().ino()).copied().unwrap_or(0);
                file.set_len(kept).unwrap();
            }
        }
    }

    /// Counts one operation; whether and how it fails.
    fn fault(&self) -> Option<Fault> {
        let mut state = self.0.lock();
        let this = state.operations;
        state.operations += 1;
        state
            .plan
            .iter()
            .find(|(operations, _)| operations.contains(&this))
            .map(|&(_, fault)| fault)
    }
}

impl State {
    fn fail(&mut self, k: u64, more: u64, fault: Fault) {
        let first = self.operations + k;
        self.plan.push((first..=first.saturating_add(more), fault));
    }
}

fn failed() -> io::Error {
    io::Error::other("injected")
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        let fault = self.fault();
        if matches!(fault, Some(Fault::Error | Fault::Short)) {
            return Err(failed());
        }
        let new = !path.exists();
        let file = RealDisk.create(path)?;
        let mut state = self.0.lock();
        state.synced.remove(&file.metadata()?.ino());
        if new {
            state.unnamed.push(path.to_owned());
        }
        fault.map_or(Ok(file), |_| Err(failed()))
    }

    fn write(&self, file: &File, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let half = &[IoSlice::new(&bytes[..bytes.len() / 2])];
        match self.fault() {
            None => RealDisk.write(file, parts),
            Some(Fault::Error) => Err(failed()),
            Some(Fault::Short) => RealDisk.write(file, half),
            Some(Fault::Halfway) => RealDisk.write(file, half).and(Err(failed())),
        }
    }

    /// Never really syncs, which would only cost time.
    fn sync(&self, file: &File) -> io::Result<()> {
        let fault = self.fault();
        if matches!(fault, Some(Fault::Error | Fault::Short)) {
            return Err(failed());
        }
        let metadata = file.metadata()?;
        let mut state = self.0.lock();
        if metadata.is_file() {
            state.synced.insert(metadata.ino(), metadata.len());
        } else {
            state.unnamed.clear();
        }
        fault.map_or(Ok(()), |_| Err(failed()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let fault = self.fault();
        if matches!(fault, Some(Fault::Error | Fault::Short)) {
            return Err(failed());
        }
        RealDisk.remove(path)?;
        fault.map_or(Ok(()), |_| Err(failed()))
    }
}
