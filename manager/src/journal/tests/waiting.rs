//! Who waits for whom: a short record for little more than its own write, whatever else the journal does.

use std::{fs::File, io::IoSlice, thread};

use super::{super::log::PIECE_BYTES, *};

/// What was done to the disk, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Done {
    /// A write of so many bytes.
    Write(usize),
    /// A sync; whether others had to wait for it.
    Sync(bool),
    /// The removal of a file; the same.
    Remove(bool),
    /// A new segment; whether a long record could be begun meanwhile.
    Create(bool),
}

/// A real disk that tells what is done to it.
#[derive(Debug, Clone, Default)]
struct Watched {
    syncs_fail: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<Done>>>,
    /// Locked while others wait.
    journal: Arc<Mutex<Option<Arc<FileJournal<Self>>>>>,
}

impl Watched {
    fn is_locked(&self) -> bool {
        self.journal.lock().as_ref().is_some_and(|journal| journal.open.is_locked())
    }

    fn open(&self, dir: &TempDir) -> (Registry, Arc<FileJournal<Self>>) {
        let registry = Registry::new(Settings::default(), []);
        let metrics = Metrics::new().unwrap().of_journal().unwrap();
        let journal = FileJournal::open_on(self.clone(), dir.path(), &registry, metrics).unwrap();
        *self.journal.lock() = Some(Arc::clone(&journal));
        let sink = Arc::clone(&journal);
        registry.record_to(Box::new(move |changes| sink.append(changes)));
        registry.resume(at(0));
        self.done.lock().clear();
        (registry, journal)
    }
}

impl Disk for Watched {
    fn create(&self, path: &Path) -> io::Result<File> {
        let is_free = self.journal.lock().as_ref().is_none_or(|journal| !journal.long.is_locked());
        self.done.lock().push(Done::Create(is_free));
        RealDisk.create(path)
    }

    fn write(&self, file: &File, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = RealDisk.write(file, parts)?;
        self.done.lock().push(Done::Write(written));
        Ok(written)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.done.lock().push(Done::Sync(self.is_locked()));
        if self.syncs_fail.load(Relaxed) {
            return Err(io::Error::other("as told"));
        }
        RealDisk.sync(file)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.done.lock().push(Done::Remove(self.is_locked()));
        RealDisk.remove(path)
    }
}

#[test]
fn nobody_waits_for_the_end_of_a_checkpoint() {
    let dir = TempDir::new().unwrap();
    let disk = Watched::default();
    let (registry, journal) = disk.open(&dir);
    drop(open(&registry, 1, at(0)));
    journal.renew(&registry, at(1));
    let done = disk.done.lock();
    let (end, _) = done
        .iter()
        .enumerate()
        .rfind(|(_, done)| matches!(done, Done::Write(_)))
        .expect("the end is written");
    assert_eq!(done[end + 1..], [Done::Sync(false), Done::Remove(false)], "{done:?}");
    assert!(done.contains(&Done::Create(false)), "no long record may be in two segments: {done:?}");
}

#[test]
fn a_checkpoint_that_cannot_be_synced_breaks_the_log_at_once() {
    let dir = TempDir::new().unwrap();
    let disk = Watched::default();
    let (registry, journal) = disk.open(&dir);
    disk.syncs_fail.store(true, Relaxed);
    journal.renew(&registry, at(1));
    assert!(journal.open.lock().log.is_broken());
    assert!(!journal.append(&[Change::Time(at(2))]), "what the disk may have lost is not durable");
}

/// The one comes between two pieces of the other unless the machine lets it sleep all the while: then once more.
#[test]
fn a_short_record_does_not_wait_for_a_long_one() {
    let dir = TempDir::new().unwrap();
    let disk = Watched::default();
    let (_registry, journal) = disk.open(&dir);
    let long = [Change::Retired(vec![7; 101 * PIECE_BYTES].into())]; // a byte each
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_between = || {
        disk.done.lock().clear();
        thread::scope(|scope| {
            let writing = scope.spawn(|| journal.append(&long));
            while disk.done.lock().is_empty() {
                thread::yield_now();
            }
            assert!(journal.append(&[Change::Time(at(5))]));
            assert!(writing.join().unwrap());
        });
        let done = disk.done.lock();
        assert!(done.len() > 100, "{}", done.len());
        let is_short = |done: &Done| matches!(done, Done::Write(bytes) if *bytes < 100);
        done.split_last().is_some_and(|(_, before)| before.iter().any(is_short))
    };
    while !is_between() {
        assert!(Instant::now() < deadline, "it waited each time");
    }
}
