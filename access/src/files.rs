//! Small files that people write: tokens, certificates.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

/// Longest file that is read: a thousand times what a chain of certificates takes would be a mistake.
const MAX_BYTES: u64 = 1 << 20;

/// The whole of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("over {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Whether somebody may still be writing it: it was written to within the last second.
pub(crate) fn is_young(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|about| about.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < Duration::from_secs(1)))
}
