//! The directory of the journal.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// Number of the newest segment with records, and its length: everything recorded lies before it.
pub(super) type Position = (u64, u64);

/// In memory if there is such a file system.
pub(super) fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(super) fn segments(dir: &Path) -> Vec<u64> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let number = |name: &str| name.strip_prefix("journal-")?.strip_suffix(".log")?.parse().ok();
    let mut numbers: Vec<u64> = names.filter_map(|name| number(name.to_str()?)).collect();
    numbers.sort_unstable();
    numbers
}

pub(super) fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number:010}.log"))
}

pub(super) fn newest(dir: &Path) -> Option<Position> {
    let number = *segments(dir).last()?;
    Some((number, fs::metadata(segment(dir, number)).unwrap().len()))
}

/// What a segment begins with.
const HEADER: u64 = 28;

pub(super) fn position(dir: &Path) -> Position {
    let length = |number| fs::metadata(segment(dir, number)).unwrap().len();
    let mut segments = segments(dir).into_iter().rev().map(|number| (number, length(number)));
    segments.find(|(_, length)| *length > HEADER).unwrap_or_default()
}

/// Whether just one record lies between two positions, and is so long.
pub(super) fn is_one_record(from: Position, to: Position, bytes: u64) -> bool {
    let begin = if from.0 == to.0 { from.1 } else { HEADER };
    to > from && to.1 == begin + bytes
}

/// As the log writes it.
pub(super) fn end_of_checkpoint() -> [u8; 8] {
    let mut record = [0; 8];
    let length = (1_u32 << 31).to_le_bytes();
    record[..4].copy_from_slice(&length);
    record[4..].copy_from_slice(&crc32fast::hash(&length).to_le_bytes());
    record
}

pub(super) fn copy_segments(from: &Path, to: &Path) {
    for number in segments(from) {
        fs::copy(segment(from, number), segment(to, number)).unwrap();
    }
}

/// What a healing checkpoint holds that did not become complete counts, if nothing is before it: some of what there was,
/// none of it acknowledged. The model would have to know how it is written, so it goes.
pub(super) fn forget_unfinished(dir: &Path) {
    let Some(first) = segments(dir).first().map(|number| segment(dir, *number)) else {
        return;
    };
    let bytes = fs::read(&first).unwrap();
    let is_healing = bytes.get(12..16) == Some(&[2, 0, 0, 0]);
    if is_healing && !bytes.windows(8).any(|record| record == end_of_checkpoint()) {
        fs::remove_file(first).unwrap();
    }
}
