//! Disks that are full, that fail, or that are not there any more.

use tempfile::TempDir;
use tokio::time::advance;

use super::{Run, begin, durable};
use crate::{
    journal::{
        log::faults::{Fault, FaultyDisk},
        *,
    },
    registry::tests::{at, exposed, value},
};

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_taken_away_is_noticed_and_written_anew() {
    let dir = TempDir::new().unwrap();
    let run = Run::start(&dir, at(0));
    let (mut stream, first) = begin(&run.registry, 1, 5.0, at(0));
    assert!(first);
    let aside = dir.path().with_extension("aside");
    std::fs::rename(dir.path(), &aside).unwrap();
    run.maintain(at(1));
    assert!(matches!(run.journal.state(), JournalState::Degraded(_)));
    assert!(!durable(stream.delta(2, &[(0, &[6.0])], at(1))));
    std::fs::create_dir(dir.path()).unwrap();
    advance(HEAL_PAUSE).await;
    run.maintain(at(6));
    assert!(durable(stream.delta(3, &[(0, &[7.0])], at(6))));
    let before = exposed(&run.registry, at(6));
    drop(stream);
    drop(run);
    std::fs::remove_dir_all(aside).unwrap();
    assert_eq!(exposed(&Run::start(&dir, at(6)).registry, at(6)), before);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_costs_durability_until_it_has_room_again() {
    let dir = TempDir::new().unwrap();
    let disk = FaultyDisk::default();
    let run = Run::start_on(disk.clone(), &dir, at(0));
    let (mut stream, first) = begin(&run.registry, 1, 5.0, at(0));
    assert!(first);
    disk.fail_from(0, Fault::Halfway);
    assert!(!durable(stream.delta(2, &[(0, &[6.0])], at(1))));
    assert!(matches!(run.journal.state(), JournalState::Degraded(_)));
    assert_eq!(run.journal.metrics.up.get(), 0);
    assert_eq!(
        value(&run.registry, "c_total{}@0", at(1)),
        Some(vec![6.0]),
        "it counts all the same"
    );
    for second in 2..10 {
        advance(Duration::from_secs(1)).await;
        run.maintain(at(second));
        assert!(!run.journal.is_up());
    }
    disk.mend();
    assert!(!durable(stream.delta(3, &[(0, &[7.0])], at(10))), "not before all is written");
    advance(HEAL_PAUSE).await;
    run.maintain(at(15));
    assert_eq!(run.journal.state(), JournalState::Up);
    assert_eq!(run.journal.metrics.up.get(), 1);
    assert!(durable(stream.delta(4, &[(0, &[8.0])], at(16))));
    let before = exposed(&run.registry, at(16));
    drop(stream);
    drop(run);
    assert_eq!(exposed(&Run::start(&dir, at(17)).registry, at(17)), before);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_take_a_sync_is_not_trusted() {
    let dir = TempDir::new().unwrap();
    let disk = FaultyDisk::default();
    let run = Run::start_on(disk.clone(), &dir, at(0));
    let (mut stream, _) = begin(&run.registry, 1, 5.0, at(0));
    disk.fail_once(0, Fault::Error);
    run.maintain(at(1));
    assert!(!durable(stream.delta(2, &[(0, &[6.0])], at(1))));
    advance(HEAL_PAUSE).await;
    run.maintain(at(6));
    assert!(durable(stream.delta(3, &[(0, &[7.0])], at(6))));
}
