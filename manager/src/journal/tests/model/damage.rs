//! What is checked without the model: a damaged disk, and its size.

use std::{collections::BTreeMap, fs, sync::Arc};

use proptest::sample::Index;

use super::{
    clients::Client,
    disk::{position, scratch, segment, segments},
    expected::{Exposed, GAUGE},
    world::{World, exposed, metrics},
};
use crate::{
    journal::{FileJournal, Journal as _, JournalError, OpenError, log::faults::FaultyDisk},
    registry::{Registry, Settings, tests as plain, tests::at},
};

impl World {
    /// Damages a byte of a segment. What is restored is checked without the model.
    pub(super) fn damage(&mut self, which: Index, byte: Index, flip: u8) {
        self.kept.lock().damaged = true;
        self.disk.mend();
        self.all_report();
        let live = counts(&exposed(&self.registry(), self.now));
        self.clients.iter_mut().for_each(Client::disconnect);
        self.run = None;
        let segments = segments(self.dir.path());
        if segments.is_empty() {
            return; // nothing was ever recorded
        }
        let path = segment(self.dir.path(), segments[which.index(segments.len())]);
        let mut bytes = fs::read(&path).unwrap();
        let Some(at) = (!bytes.is_empty()).then(|| byte.index(bytes.len())) else {
            return;
        };
        bytes[at] ^= flip;
        fs::write(&path, bytes).unwrap();
        let empty = Registry::new(Settings::default(), []);
        match FileJournal::open_on(self.disk.clone(), self.dir.path(), &empty, metrics()) {
            Ok(journal) => drop(journal),
            // Only of what it cannot read at all it says so, rather than lose it.
            Err(JournalError::Log(OpenError::NotASegment { .. } | OpenError::Version { .. })) => {
                return assert!(at < 28, "at {at}");
            }
            Err(other) => panic!("{other}"),
        }
        self.run = Some(self.start());
        let restored = counts(&exposed(&self.registry(), self.now));
        assert_below(&restored, &live);
        let told = self.all_report();
        let now = counts(&exposed(&self.registry(), self.now));
        assert_below(&restored, &now);
        assert_below(&told, &now);
        assert_below(&now, &live);
        // The next start finds the same damage, and all that was reported since.
        self.clients.iter_mut().for_each(Client::disconnect);
        self.run = None;
        self.run = Some(self.start());
        assert_eq!(counts(&exposed(&self.registry(), self.now)), now);
    }
}

/// The counters, and the counts of the histograms.
fn counts(exposed: &Exposed) -> BTreeMap<String, f64> {
    let counts = exposed.iter().filter(|(key, _)| !key.starts_with(GAUGE));
    counts.map(|(key, (_, values))| (key.clone(), values[values.len().saturating_sub(2)])).collect()
}

fn assert_below(low: &BTreeMap<String, f64>, high: &BTreeMap<String, f64>) {
    for (key, low) in low {
        let high = high.get(key).copied().unwrap_or_default();
        assert!(*low <= high * (1.0 + 1e-12), "{key}: {low} where {high} is the most");
    }
}

/// Frames of `changing` of `series` series until megabytes were written.
pub(super) fn report_for_long(series: usize, changing: usize, maintained_every: u64) {
    let dir = scratch();
    let registry = Arc::new(Registry::new(Settings::default(), []));
    let journal =
        FileJournal::open_on(FaultyDisk::default(), dir.path(), &registry, metrics()).unwrap();
    let sink = Arc::clone(&journal);
    registry.record_to(Box::new(move |changes| sink.append(changes)));
    let mut stream = plain::open(&registry, 1, at(0));
    for n in 0..series {
        stream.define(plain::COUNTER, "c_total", &[("n", &n.to_string())]);
    }
    stream.snapshot(1, &[], at(0)).unwrap();
    let (mut passed, mut checkpoints) = (0, 0);
    for sequence in 2.. {
        let value = [sequence as f64];
        let frame: Vec<(u32, &[f64])> = (0..changing as u32).map(|id| (id, &value[..])).collect();
        let before = position(dir.path()).1;
        assert!(stream.delta(sequence, &frame, at(sequence)).is_ok());
        let frame = position(dir.path()).1 - before;
        passed += frame;
        if sequence % maintained_every == 0 {
            journal.maintain(&registry, at(sequence));
            let mut live = 0;
            registry.checkpoint(|changes| {
                live += postcard::to_allocvec(changes).unwrap().len() as u64 + 8;
            });
            let disk: u64 = segments(dir.path())
                .iter()
                .map(|n| fs::metadata(segment(dir.path(), *n)).unwrap().len())
                .sum();
            let most = live + live.max(1 << 20) + 100;
            assert!(disk <= most, "{disk} bytes on disk where {live} live");
        }
        checkpoints = journal.metrics.checkpoints.get();
        if passed > 4 << 20 && sequence % maintained_every == 0 {
            break;
        }
    }
    assert!(checkpoints >= 3, "{checkpoints}");
    let before = exposed(&registry, at(0));
    drop(stream);
    drop((registry, journal));
    let again = Registry::new(Settings::default(), []);
    FileJournal::open_on(FaultyDisk::default(), dir.path(), &again, metrics()).unwrap();
    assert_eq!(exposed(&again, at(0)), before);
}
