//! Segments that cannot be read as they are.

use tempfile::TempDir;

use super::{Run, begin};
use crate::{
    journal::*,
    metrics::Metrics,
    registry::{Settings, tests::at},
};

#[test]
fn a_record_of_another_version_is_refused_rather_than_lost() {
    let dir = TempDir::new().unwrap();
    Run::start(&dir, at(0)).journal.open.lock().log.append(&[1, 250, 1]).unwrap();
    let metrics = Metrics::new().unwrap().of_journal().unwrap();
    let refused = FileJournal::open(dir.path(), &Registry::new(Settings::default(), []), metrics);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("another version of the manager wrote it"), "{error}");
    assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn damage_is_counted_and_the_segment_kept_aside() {
    let dir = TempDir::new().unwrap();
    drop(begin(&Run::start(&dir, at(0)).registry, 1, 5.0, at(0)));
    let segment = dir.path().join("journal-0000000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[28 + 8 + 1] ^= 1; // in the first record, behind the header and its length and checksum
    std::fs::write(&segment, &bytes).unwrap();
    let run = Run::start(&dir, at(0));
    assert_eq!(run.journal.metrics.damage.get(), 1);
    run.journal.renew(&run.registry, at(0));
    assert!(!segment.exists());
    let aside = dir.path().join("journal-0000000001.log.damaged");
    assert_eq!(std::fs::read(aside).unwrap(), bytes);
}
