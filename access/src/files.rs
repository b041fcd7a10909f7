//! Small files that people write: tokens, certificates.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
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
