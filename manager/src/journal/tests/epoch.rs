//! What the journal lost ends the epoch of events, once: whoever follows them is told of the gap.

use tempfile::TempDir;

use super::{Run, begin};
use crate::{
    journal::*,
    registry::{Followed, tests::at},
};

/// What a follower of this epoch and revision is told: the next epoch and revision, and whether there is a gap; nothing if
/// it just goes on.
fn followed(run: Run, epoch: &str, revision: u64) -> Option<(String, u64, bool)> {
    match Arc::new(run.registry).follow(epoch, revision).next(1) {
        Followed::Events(_) => None,
        Followed::State { known, gap } => Some((known.epoch.to_string(), known.revision, gap)),
    }
}

/// A directory with two events in its journal's first segment, which ends behind the first at the returned length; and
/// their epoch.
fn two_events(dir: &TempDir) -> (u64, String) {
    let run = Run::start(dir, at(0));
    drop(begin(&run.registry, 1, 5.0, at(0)));
    let length = std::fs::metadata(dir.path().join("journal-0000000001.log")).unwrap().len();
    run.registry.forget(0, at(1)).unwrap();
    let (epoch, revision, _) = followed(run, "", 0).unwrap();
    assert_eq!(revision, 2);
    (length, epoch)
}

fn cut(dir: &TempDir, length: u64) {
    let segment = dir.path().join("journal-0000000001.log");
    std::fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(length).unwrap();
}

#[test]
fn a_torn_end_ends_the_epoch_of_events_once() {
    let dir = TempDir::new().unwrap();
    let (length, epoch) = two_events(&dir);
    assert_eq!(followed(Run::start(&dir, at(1)), &epoch, 2), None, "nothing is lost");
    for segment in 2..=3 {
        std::fs::remove_file(dir.path().join(format!("journal-000000000{segment}.log"))).ok();
    }
    cut(&dir, length + 3);
    let (next, revision, gap) = followed(Run::start(&dir, at(1)), &epoch, 1).unwrap();
    assert!(gap && next != epoch);
    assert_eq!(revision, 1);
    assert_eq!(followed(Run::start(&dir, at(2)), &next, 1), None, "the damage is an old one");
}

#[test]
fn who_knows_more_than_the_journal_ends_the_epoch_once() {
    let dir = TempDir::new().unwrap();
    let (length, epoch) = two_events(&dir);
    cut(&dir, length);
    let run = Run::start(&dir, at(1));
    let registry = Arc::new(run.registry);
    let told = |epoch: &str, revision| match registry.follow(epoch, revision).next(1) {
        Followed::State { known, gap: true } => known,
        other => panic!("{other:?}"),
    };
    let known = told(&epoch, 2);
    assert!(*known.epoch != *epoch);
    assert_eq!((known.revision, known.kept_after), (1, 0));
    assert_eq!(told(&epoch, 1), known, "whoever followed it");
    assert_eq!(told(&known.epoch, 9), known, "nobody can have been told that");
    registry.forget(0, at(1)).unwrap();
    drop((registry, run.journal));
    // The journal has the new one.
    let run = Run::start(&dir, at(2));
    assert_eq!(followed(run, &known.epoch, 2), None);
}
