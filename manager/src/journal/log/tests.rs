//! The log over whole and damaged files; over a failing disk in [`faults`].

mod faults;
mod pieces;
mod scenario;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use proptest::{collection::vec, prelude::*, sample::Index};
use tempfile::TempDir;

use super::{
    faults::FaultyDisk,
    format::{HEADER_BYTES, PREFIX_BYTES},
    replay::{Damage, Flaw},
    *,
};

/// What a replay gave: payloads, and whether each was in the checkpoint.
type Replayed = Vec<(Vec<u8>, bool)>;

fn reopen(dir: &Path) -> (Log<FaultyDisk>, Recovered, Replayed) {
    let mut replayed = Vec::new();
    let each = |record: Record<'_>| replayed.push((record.payload.to_vec(), record.in_checkpoint));
    let (log, recovered) = Log::open_on(FaultyDisk::default(), dir, each).unwrap();
    (log, recovered, replayed)
}

impl Log<FaultyDisk> {
    /// Ends the checkpoint, as the journal does.
    fn end_whole(&mut self) -> io::Result<()> {
        let ending = self.end_checkpoint()?;
        let handle = self.sync_handle().unwrap();
        handle.sync().inspect_err(|_| self.broke())?;
        let left = self.complete_checkpoint(ending)?.delete();
        self.keep(left);
        Ok(())
    }
}

fn payloads(dir: &Path) -> Vec<Vec<u8>> {
    reopen(dir).2.into_iter().map(|(payload, _)| payload).collect()
}

fn open_error(dir: &Path) -> OpenError {
    Log::open_on(FaultyDisk::default(), dir, |_| ()).unwrap_err()
}

/// A directory whose newest segment has these records and is not open.
fn written(records: &[impl AsRef<[u8]>]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let (mut log, ..) = reopen(dir.path());
    for record in records {
        log.append(record.as_ref()).unwrap();
    }
    dir
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format::file_name(number))
}

/// The numbers of all segments.
fn numbers(dir: &Path) -> Vec<u64> {
    let mut numbers: Vec<u64> = fs::read_dir(dir)
        .unwrap()
        .filter_map(|entry| format::number(entry.unwrap().file_name().to_str()?))
        .collect();
    numbers.sort_unstable();
    numbers
}

fn disk_bytes(dir: &Path) -> u64 {
    numbers(dir).iter().map(|&n| fs::metadata(segment(dir, n)).unwrap().len()).sum()
}

/// The whole records before that byte of the first segment.
fn before(records: &[Vec<u8>], byte: usize) -> &[Vec<u8>] {
    let mut end = HEADER_BYTES;
    let fits = records.iter().take_while(|record| {
        end += PREFIX_BYTES + record.len();
        end <= byte
    });
    &records[..fits.count()]
}

fn flaws(recovered: &Recovered) -> Vec<Flaw> {
    recovered.damage.iter().map(|damage| damage.flaw.clone()).collect()
}

#[test]
fn what_was_appended_comes_back_on_a_real_disk() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("not/yet/there");
    let (mut log, recovered) =
        Log::open_on(RealDisk, &data, |_| panic!("nothing to replay")).unwrap();
    assert_eq!((recovered.records, recovered.segments), (0, 0));
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);

    let large = vec![7; 3 << 20];
    for payload in [&b"one"[..], b"", &large] {
        log.append(payload).unwrap();
    }
    assert!(log.is_durable());
    log.sync_handle().unwrap().sync().unwrap();
    let appended = 3 * PREFIX_BYTES as u64 + 3 + large.len() as u64;
    assert_eq!(log.since_checkpoint(), appended);
    assert_eq!(log.disk_bytes(), disk_bytes(&data));
    drop(log);

    let mut replayed = Vec::new();
    let (log, recovered) =
        Log::open_on(RealDisk, &data, |r| replayed.push(r.payload.to_vec())).unwrap();
    assert_eq!(replayed, [b"one".to_vec(), Vec::new(), large]);
    assert_eq!((recovered.records, recovered.bytes, recovered.segments), (3, appended, 1));
    assert_eq!(recovered.damage, []);
    assert_eq!(log.since_checkpoint(), appended);
    assert_eq!(log.disk_bytes(), disk_bytes(&data));
}

#[test]
fn starts_that_append_nothing_leave_one_segment() {
    let dir = written(&["kept"]);
    for _ in 0..3 {
        assert_eq!(payloads(dir.path()), [b"kept"]);
        assert_eq!(numbers(dir.path()), [1, 2]);
    }
}

#[test]
fn a_checkpoint_takes_the_place_of_what_was_before() {
    let dir = written(&["old"]);
    let (mut log, ..) = reopen(dir.path());
    log.append(b"older").unwrap();
    log.begin_checkpoint().unwrap();
    log.append(b"all").unwrap();
    assert!(log.is_durable());
    assert_eq!(numbers(dir.path()), [1, 2, 3], "nothing goes before the checkpoint is complete");
    log.end_whole().unwrap();
    assert_eq!(numbers(dir.path()), [3]);
    let complete = (HEADER_BYTES + 2 * PREFIX_BYTES + 3) as u64;
    assert_eq!((log.checkpoint_bytes(), log.since_checkpoint()), (complete, 0));

    log.append(b"new").unwrap();
    assert_eq!(log.since_checkpoint(), PREFIX_BYTES as u64 + 3);
    assert_eq!(log.disk_bytes(), disk_bytes(dir.path()));
    let before = (log.checkpoint_bytes(), log.since_checkpoint());
    drop(log);
    let (log, recovered, replayed) = reopen(dir.path());
    assert_eq!(replayed, [(b"all".to_vec(), true), (b"new".to_vec(), false)]);
    assert_eq!(recovered.damage, []);
    assert_eq!((log.checkpoint_bytes(), log.since_checkpoint()), before);
}

#[test]
fn what_is_appended_while_a_checkpoint_ends_comes_after_it() {
    let dir = written(&["old"]);
    let (mut log, ..) = reopen(dir.path());
    log.begin_checkpoint().unwrap();
    log.append(b"all").unwrap();
    let ending = log.end_checkpoint().unwrap();
    log.append(b"new").unwrap();
    assert_eq!(numbers(dir.path()), [1, 2, 3], "it is not known to be on disk");
    let obsolete = log.complete_checkpoint(ending).unwrap();
    let complete = (HEADER_BYTES + 2 * PREFIX_BYTES + 3) as u64;
    let new = PREFIX_BYTES as u64 + 3;
    assert_eq!((log.checkpoint_bytes(), log.since_checkpoint()), (complete, new));
    drop((obsolete, log)); // before anything is deleted
    let replayed = reopen(dir.path()).2;
    assert_eq!(replayed, [(b"all".to_vec(), true), (b"new".to_vec(), false)]);
}

#[test]
fn an_end_is_the_end_of_its_own_checkpoint() {
    let dir = written(&["old"]);
    let (mut log, ..) = reopen(dir.path());
    log.begin_checkpoint().unwrap();
    let ending = log.end_checkpoint().unwrap();
    log.broke();
    assert!(log.complete_checkpoint(ending).is_err());
    log.begin_checkpoint().unwrap();
    assert!(log.complete_checkpoint(ending).is_err(), "the next one has only begun");
    log.end_whole().unwrap();
}

#[test]
fn an_unfinished_checkpoint_keeps_what_was_before() {
    let dir = written(&["old"]);
    let (mut log, ..) = reopen(dir.path());
    log.begin_checkpoint().unwrap();
    log.append(b"part").unwrap();
    log.begin_checkpoint().unwrap();
    log.append(b"again").unwrap();
    drop(log);
    let (mut log, recovered, replayed) = reopen(dir.path());
    let expected = [b"old".to_vec(), b"part".to_vec(), b"again".to_vec()].map(|p| (p, false));
    assert_eq!(replayed, expected);
    assert_eq!(recovered.damage, []);
    log.append(b"next").unwrap();
    drop(log);
    assert_eq!(payloads(dir.path()).last().unwrap(), b"next");
}

/// As when a process is killed between the end of a checkpoint and the last deletion.
#[test]
fn segments_before_a_complete_checkpoint_do_not_count() {
    let dir = written(&["old"]);
    let old = fs::read(segment(dir.path(), 1)).unwrap();
    let (mut log, ..) = reopen(dir.path());
    log.begin_checkpoint().unwrap();
    log.append(b"all").unwrap();
    log.end_whole().unwrap();
    drop(log);
    fs::write(segment(dir.path(), 1), &old).unwrap();

    let (mut log, recovered, replayed) = reopen(dir.path());
    assert_eq!(replayed, [(b"all".to_vec(), true)]);
    assert_eq!((recovered.segments, recovered.damage), (1, Vec::new()));
    log.begin_checkpoint().unwrap();
    log.end_whole().unwrap();
    assert_eq!(numbers(dir.path()).len(), 1);
}

#[test]
fn a_checkpoint_of_nothing_counts() {
    let dir = written(&["gone"]);
    let old = fs::read(segment(dir.path(), 1)).unwrap();
    let (mut log, ..) = reopen(dir.path());
    log.begin_checkpoint().unwrap();
    log.end_whole().unwrap();
    drop(log);
    fs::write(segment(dir.path(), 1), &old).unwrap();
    for _ in 0..2 {
        assert_eq!(payloads(dir.path()), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn only_a_checkpoint_that_was_begun_can_end() {
    let dir = TempDir::new().unwrap();
    let (mut log, ..) = reopen(dir.path());
    assert!(log.end_whole().is_err());
    log.begin_checkpoint().unwrap();
    log.end_whole().unwrap();
    assert!(log.end_whole().is_err());
    assert!(log.is_durable(), "a call out of turn writes nothing");
    log.append(b"on").unwrap();
    drop(log);
    assert_eq!(payloads(dir.path()), [b"on"]);
}

#[test]
fn a_record_too_long_leaves_the_log_untouched() {
    let dir = written(&["kept"]);
    let (mut log, ..) = reopen(dir.path());
    let bytes = disk_bytes(dir.path());
    assert!(log.append(&vec![0; format::MAX_PAYLOAD_BYTES + 1]).is_err());
    assert!(!log.is_broken());
    assert_eq!(disk_bytes(dir.path()), bytes);
}

#[test]
fn trailing_zeros_are_a_torn_tail() {
    for zeros in [1, 7, 8, 100, 10_000] {
        let dir = written(&["kept"]);
        let path = segment(dir.path(), 1);
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len() as u64;
        bytes.resize(bytes.len() + zeros, 0);
        fs::write(&path, bytes).unwrap();
        let (_log, recovered, replayed) = reopen(dir.path());
        assert_eq!(replayed.len(), 1);
        let lost = zeros as u64;
        assert_eq!(recovered.damage, [Damage { file: path, offset: end, lost, flaw: Flaw::Torn }]);
    }
}

#[test]
fn damage_in_the_middle_is_told_from_a_torn_tail() {
    let dir = written(&["first", "second", "third"]);
    let path = segment(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    let second = HEADER_BYTES + PREFIX_BYTES + 5;
    let lost = (whole.len() - second) as u64;
    for (byte, flaw, says) in [
        (second + PREFIX_BYTES, Flaw::Checksum, "wrong checksum"),
        (second + 3, Flaw::Length, "impossible length"),
    ] {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0x70;
        fs::write(&path, bytes).unwrap();
        let (_log, recovered, replayed) = reopen(dir.path());
        assert_eq!(replayed, [(b"first".to_vec(), false)]);
        let offset = second as u64;
        assert_eq!(recovered.damage, [Damage { file: path.clone(), offset, lost, flaw }]);
        let message = recovered.damage[0].to_string();
        assert!(message.contains(says) && message.contains("byte 41"), "{message}");
    }
}

#[test]
fn a_segment_cut_off_at_its_creation_holds_up_nothing() {
    let header = format::header(2, Kind::Start);
    for bytes in [&header[..0], &header[..27], &[0; 28], &[0; 5_000]] {
        let dir = written(&["kept"]);
        fs::write(segment(dir.path(), 2), bytes).unwrap();
        let (mut log, recovered, replayed) = reopen(dir.path());
        assert_eq!(replayed.len(), 1);
        assert_eq!(flaws(&recovered), [Flaw::Creation]);
        log.append(b"new").unwrap();
        drop(log);
        assert_eq!(payloads(dir.path()), [b"kept".to_vec(), b"new".to_vec()]);
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let dir = written(&["one"]);
    for record in ["two", "three", "four"] {
        reopen(dir.path()).0.append(record.as_bytes()).unwrap();
    }
    fs::remove_file(segment(dir.path(), 2)).unwrap();
    fs::remove_file(segment(dir.path(), 3)).unwrap();
    let (log, recovered, replayed) = reopen(dir.path());
    assert_eq!(replayed.len(), 2, "the others still count");
    assert_eq!(flaws(&recovered), [Flaw::Missing(2..=3)]);
    assert!(recovered.damage[0].to_string().contains("journal-0000000002.log is missing"));
    drop(log);

    fs::remove_file(segment(dir.path(), 1)).unwrap();
    let (_log, recovered, _) = reopen(dir.path());
    assert_eq!(flaws(&recovered), [Flaw::Missing(1..=3)], "no checkpoint makes up for the start");
}

#[test]
fn another_version_is_refused_by_name() {
    let dir = written(&["kept"]);
    let path = segment(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let error = open_error(dir.path()).to_string();
    for part in ["journal-0000000001.log", "version 9", "version 3", "that wrote it", "--data-dir"]
    {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_wrong_header_is_refused_and_can_be_moved_away() {
    let dir = written(&["kept"]);
    let (first, second) = (segment(dir.path(), 1), segment(dir.path(), 2));
    for wrong in [vec![b'x'; 100], fs::read(&first).unwrap()] {
        fs::write(&second, &wrong).unwrap();
        let error = open_error(dir.path()).to_string();
        assert!(error.contains("journal-0000000002.log") && error.contains("move it"), "{error}");
        assert_eq!(fs::read(&second).unwrap(), wrong);
        fs::rename(&second, dir.path().join("moved")).unwrap();
        assert_eq!(payloads(dir.path()), [b"kept"]);
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let dir = written(&["kept"]);
    let names = [
        "journal-1.log",
        "journal-0000000001.log.bak",
        "journal-.log",
        "notes",
        "journal-000000000x.log",
    ];
    for name in names {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let (mut log, recovered, replayed) = reopen(dir.path());
    assert_eq!((replayed.len(), recovered.damage), (1, Vec::new()));
    log.begin_checkpoint().unwrap();
    log.end_whole().unwrap();
    for name in names {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), name);
    }
}

#[test]
fn a_directory_is_one_process_s() {
    let dir = TempDir::new().unwrap();
    let (log, ..) = reopen(dir.path());
    let error = open_error(dir.path());
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    drop(log);
    reopen(dir.path());
}

#[test]
fn a_directory_that_cannot_be_is_an_error_with_its_path() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open_error(&file.join("data")).to_string();
    assert!(error.contains("file/data") && error.contains("--data-dir"), "{error}");
}

proptest! {
    #[test]
    fn a_cut_leaves_the_whole_records_before_it(
        records in vec(vec(any::<u8>(), 0..40), 0..12),
        cut: Index,
        new in vec(vec(any::<u8>(), 0..40), 0..4),
    ) {
        let dir = written(&records);
        let path = segment(dir.path(), 1);
        let bytes = fs::read(&path).unwrap();
        let cut = cut.index(bytes.len() + 1);
        fs::write(&path, &bytes[..cut]).unwrap();
        let prefix = before(&records, cut);

        let (mut log, recovered, replayed) = reopen(dir.path());
        prop_assert!(replayed.iter().map(|(payload, _)| payload).eq(prefix));
        let whole = HEADER_BYTES + prefix.iter().map(|p| PREFIX_BYTES + p.len()).sum::<usize>();
        prop_assert_eq!(recovered.damage.is_empty(), cut == whole);
        let lost: u64 = recovered.damage.iter().map(|damage| damage.lost).sum();
        prop_assert_eq!(lost, if cut < HEADER_BYTES { cut } else { cut - whole } as u64);
        for record in &new {
            log.append(record).unwrap();
        }
        drop(log);
        prop_assert_eq!(payloads(dir.path()), [prefix, &new[..]].concat());
    }

    #[test]
    fn a_flipped_byte_is_noticed(
        records in vec(vec(any::<u8>(), 0..40), 1..12),
        at: Index,
        flip in 1..=255_u8,
    ) {
        let dir = written(&records);
        let path = segment(dir.path(), 1);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(&path, &bytes).unwrap();
        if at < HEADER_BYTES {
            let error = open_error(dir.path());
            prop_assert!(matches!(error, OpenError::NotASegment { .. }), "{}", error);
        } else {
            let (_log, recovered, replayed) = reopen(dir.path());
            prop_assert!(replayed.iter().map(|(payload, _)| payload).eq(before(&records, at)));
            prop_assert_eq!(recovered.damage.len(), 1);
        }
    }
}
