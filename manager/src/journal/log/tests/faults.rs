//! The log over a disk that fails, at every operation and in every way.

use super::{
    super::faults::Fault::{self, Error, Halfway, Short},
    scenario::Owner,
    *,
};

/// A life in which nothing fails has this many operations.
fn operations() -> u64 {
    let (dir, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    Owner::new(dir.path(), &disk).live();
    disk.operations()
}

/// A life in which the disk fails as planned, and then a kill or a power cut, after which all is well.
fn live(plan: impl Fn(&FaultyDisk), power_cut: bool) {
    let (dir, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    let mut owner = Owner::new(dir.path(), &disk);
    plan(&disk);
    owner.live();
    disk.mend();
    if power_cut {
        owner.power_cut();
    }
    owner.restart();
    owner.count(7);
    owner.count(0);
    owner.restart();
}

const FAULTS: [Fault; 3] = [Error, Short, Halfway];

#[test]
fn one_failure_anywhere_costs_nothing_that_was_acknowledged() {
    for k in 0..operations() {
        for fault in FAULTS {
            live(|disk| disk.fail_once(k, fault), false);
            live(|disk| disk.fail_once(k, fault), true);
        }
    }
}

/// From the disk's point of view, the process or the machine ends there.
#[test]
fn an_end_anywhere_costs_nothing_that_was_acknowledged() {
    for k in 0..=operations() {
        for fault in FAULTS {
            live(|disk| disk.fail_from(k, fault), false);
            live(|disk| disk.fail_from(k, fault), true);
        }
    }
}

/// Among them, all ends of a healing checkpoint, and failures of the one after.
#[test]
fn an_end_soon_after_a_failure_costs_nothing_that_was_acknowledged() {
    for k in 0..operations() {
        for later in 1..20 {
            let fault = FAULTS[(k + later) as usize % FAULTS.len()];
            let plan = |disk: &FaultyDisk| {
                disk.fail_once(k, fault);
                disk.fail_from(k + later, Halfway);
            };
            live(plan, false);
            live(plan, true);
            let plan = |disk: &FaultyDisk| {
                disk.fail_once(k, Short);
                disk.fail_once(k + later, fault);
            };
            live(plan, later % 2 == 0);
        }
    }
}

/// A log with one record, on a disk to make fail.
fn one_record(dir: &Path) -> (Log<FaultyDisk>, FaultyDisk) {
    let disk = FaultyDisk::default();
    let (mut log, _) = Log::open_on(disk.clone(), dir, |_| ()).unwrap();
    log.append(b"kept").unwrap();
    (log, disk)
}

#[test]
fn a_broken_log_does_not_touch_the_disk_until_it_heals() {
    let dir = TempDir::new().unwrap();
    let (mut log, disk) = one_record(dir.path());
    disk.fail_once(0, Short);
    assert!(log.append(b"torn").is_err());
    let (operations, bytes) = (disk.operations(), log.disk_bytes());
    assert!(log.append(b"lost").is_err() && log.end_whole().is_err());
    assert!(log.is_broken() && !log.is_durable() && log.sync_handle().is_none());
    assert_eq!((disk.operations(), log.disk_bytes()), (operations, bytes));
    assert_eq!(bytes, disk_bytes(dir.path()));

    log.begin_checkpoint().unwrap();
    log.append(b"all").unwrap();
    assert!(!log.is_broken() && !log.is_durable(), "not before the checkpoint is complete");
    log.end_whole().unwrap();
    assert!(log.is_durable());
    assert_eq!(numbers(dir.path()), [2]);
    drop(log);
    assert_eq!(payloads(dir.path()), [b"all"]);
}

#[test]
fn what_was_before_a_failed_write_is_synced() {
    let dir = TempDir::new().unwrap();
    let (mut log, disk) = one_record(dir.path());
    disk.fail_once(0, Error);
    assert!(log.append(b"lost").is_err());
    drop(log);
    disk.power_cut(dir.path());
    assert_eq!(payloads(dir.path()), [b"kept"]);
}

#[test]
fn an_unfinished_healing_counts_for_nothing_and_gives_its_room_back() {
    let dir = TempDir::new().unwrap();
    let (mut log, disk) = one_record(dir.path());
    log.broke();
    for _ in 0..3 {
        log.begin_checkpoint().unwrap();
        log.append(b"part").unwrap();
        disk.fail_once(0, Halfway);
        assert!(log.append(b"torn").is_err());
        assert_eq!(numbers(dir.path()), [1, 2]);
    }
    drop(log);
    let (mut log, recovered, replayed) = reopen(dir.path());
    assert_eq!(replayed, [(b"kept".to_vec(), false)]);
    assert_eq!(recovered.damage, [], "nothing was lost");
    assert_eq!(numbers(dir.path()), [1, 2]);
    log.append(b"new").unwrap();
    drop(log);
    assert_eq!(payloads(dir.path()), [b"kept".to_vec(), b"new".to_vec()]);
}

#[test]
fn a_checkpoint_that_cannot_begin_leaves_the_log_as_it_was() {
    let dir = TempDir::new().unwrap();
    let (mut log, disk) = one_record(dir.path());
    for operation in 1..=3 {
        disk.fail_once(operation, Halfway);
        assert!(log.begin_checkpoint().is_err());
        assert!(log.is_durable());
        assert_eq!(numbers(dir.path()), [1]);
    }
    log.append(b"on").unwrap();
    log.begin_checkpoint().unwrap();
    drop(log);
    let (_log, recovered, replayed) = reopen(dir.path());
    assert_eq!((replayed.len(), recovered.damage), (2, Vec::new()));
}

#[test]
fn a_checkpoint_does_not_go_on_from_what_cannot_be_synced() {
    let dir = TempDir::new().unwrap();
    let (mut log, disk) = one_record(dir.path());
    disk.fail_once(0, Error);
    assert!(log.begin_checkpoint().is_err());
    assert!(log.is_broken());
    log.begin_checkpoint().unwrap();
    assert!(!log.is_durable(), "this one heals");
}

#[test]
fn a_sync_that_failed_once_fails_for_everyone() {
    let dir = TempDir::new().unwrap();
    let (mut log, disk) = one_record(dir.path());
    log.begin_checkpoint().unwrap();
    let handle = log.sync_handle().unwrap();
    disk.fail_once(0, Error);
    assert!(handle.sync().is_err());
    assert!(log.end_whole().is_err(), "the owner had no time to say that it broke");
    assert!(log.is_broken());
    assert_eq!(numbers(dir.path()), [1, 2]);
}

#[test]
fn what_cannot_be_deleted_goes_after_the_next_checkpoint() {
    let dir = TempDir::new().unwrap();
    let (mut log, disk) = one_record(dir.path());
    log.begin_checkpoint().unwrap();
    disk.fail_once(2, Error);
    log.end_whole().unwrap();
    assert!(log.is_durable());
    assert_eq!(numbers(dir.path()), [1, 2]);
    assert_eq!(log.disk_bytes(), disk_bytes(dir.path()));
    log.begin_checkpoint().unwrap();
    log.end_whole().unwrap();
    assert_eq!(numbers(dir.path()), [3]);
}

#[test]
fn a_full_disk_at_the_start_shows_what_is_known() {
    let dir = TempDir::new().unwrap();
    drop(one_record(dir.path()));
    let disk = FaultyDisk::default();
    disk.fail_from(0, Short);
    let mut records = 0;
    let (mut log, recovered) = Log::open_on(disk.clone(), dir.path(), |_| records += 1).unwrap();
    assert_eq!(records, 1);
    assert!(log.is_broken() && recovered.broken.is_some());
    assert!(log.begin_checkpoint().is_err());
    disk.mend();
    log.begin_checkpoint().unwrap();
    log.append(b"all").unwrap();
    log.end_whole().unwrap();
    drop(log);
    assert_eq!(payloads(dir.path()), [b"all"]);
}

#[test]
fn a_new_directory_that_cannot_be_written_is_an_error() {
    let dir = TempDir::new().unwrap();
    let disk = FaultyDisk::default();
    disk.fail_from(0, Error);
    let error = Log::open_on(disk, dir.path(), |_| ()).unwrap_err().to_string();
    assert!(error.contains("journal-0000000001.log: injected"), "{error}");
}
