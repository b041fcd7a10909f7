//! Any bytes as a journal: as a segment of it, or as the payloads of records that are whole.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fuzz targets do")]

use std::{fs, iter};

use tempfile::TempDir;

use super::{FileJournal, log::first_segment};
use crate::{
    clock::UnixTime,
    exposition::{self, Format},
    fuzzing::{Input, registry, valid_page},
    metrics::{JournalMetrics, Metrics},
};

thread_local! {
    static DIR: TempDir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    static METRICS: JournalMetrics = Metrics::new().unwrap().of_journal().unwrap();
}

/// What is replayed is never a panic, and what it makes can be shown, written and read again.
pub fn journal(input: &[u8]) {
    let mut input = Input(input);
    let shape = input.below(4);
    let payload = || {
        let length = usize::from(u16::from_le_bytes([input.byte(), input.byte()]));
        (!input.is_empty() || length > 0).then(|| (length > 0).then(|| input.take(length)))
    };
    let (name, segment) = match shape {
        0 => (first_segment(false, iter::empty()).0, input.0.to_vec()),
        1 => {
            let (name, header) = first_segment(false, iter::empty());
            (name, [&header, input.0].concat())
        }
        shape => first_segment(shape == 3, iter::from_fn(payload)),
    };
    DIR.with(|dir| {
        fs::write(dir.path().join(name), segment).unwrap();
        replay(dir, shape < 2);
        for file in fs::read_dir(dir.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    });
}

/// With `is_ours`, every whole record is one that a manager wrote, for nothing else has its checksum.
fn replay(dir: &TempDir, is_ours: bool) {
    let open = || {
        let registry = registry(0);
        let journal = FileJournal::open(dir.path(), &registry, METRICS.with(Clone::clone)).ok()?;
        Some((registry, journal))
    };
    let Some((registry, journal)) = open() else { return };
    let now = UnixTime::from_secs_f64(1.7e9);
    registry.resume(now);
    let shown = |registry| exposition::render(registry, &[], now, Format::TEXT).to_vec();
    let before = shown(&registry);
    journal.checkpoint(&registry, now).unwrap();
    drop(journal);
    let (again, _journal) = open().expect("what was written is not read");
    let after = shown(&again);
    if is_ours {
        valid_page(&registry, now, Format::TEXT);
        assert_eq!(after, before);
    }
}
