//! The directory of the journal.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// Number of the newest segment and its length: everything recorded lies before it.
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

pub(super) fn position(dir: &Path) -> Position {
    newest(dir).unwrap_or_default()
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

/// Whether it was opened for a checkpoint after the disk had failed.
pub(super) fn is_healing(dir: &Path, number: u64) -> bool {
    fs::read(segment(dir, number)).unwrap().get(12..16) == Some(&[2, 0, 0, 0])
}
