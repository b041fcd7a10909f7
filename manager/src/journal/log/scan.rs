//! Reads one segment as far as its records are whole.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::Path,
};

use super::format::{self, END_OF_CHECKPOINT, HEADER_BYTES, MAX_PAYLOAD_BYTES, PREFIX_BYTES};

/// How much is asked of the disk at once.
const READ_BYTES: usize = 1 << 20;

/// What a whole record is.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    Payload(&'a [u8]),
    EndOfCheckpoint,
}

/// Why a segment ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// After a whole record.
    Whole,
    /// In the last record, or in zeros: the write was cut off.
    Torn,
    /// A record does not have its checksum, and it is not the last.
    Checksum,
    /// A length that no record has.
    Length,
}

/// Gives each whole record of a segment and the offset at which it ends to `each`; says where reading ended and why.
pub(super) fn scan(
    path: &Path,
    bytes: u64,
    mut each: impl FnMut(Entry<'_>, u64),
) -> io::Result<(u64, End)> {
    let mut file = File::open(path)?;
    let mut at = file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
    let mut file = BufReader::with_capacity(READ_BYTES, file.take(bytes.saturating_sub(at)));
    let mut buffer = Vec::new();
    while at < bytes {
        let rest = bytes - at;
        if rest < PREFIX_BYTES as u64 {
            return Ok((at, End::Torn));
        }
        let mut prefix = [0; PREFIX_BYTES];
        file.read_exact(&mut prefix)?;
        let (length, crc) = format::read_prefix(prefix);
        let size = if length == END_OF_CHECKPOINT { 0 } else { length as usize };
        if size > MAX_PAYLOAD_BYTES {
            return Ok((at, End::Length));
        }
        let record = (PREFIX_BYTES + size) as u64;
        if record > rest {
            return Ok((at, End::Torn));
        }
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let payload = &mut buffer[..size];
        file.read_exact(payload)?;
        if format::crc(length, payload) != crc {
            let end = if only_zeros(&mut file)? { End::Torn } else { End::Checksum };
            return Ok((at, end));
        }
        at += record;
        each(
            if length == END_OF_CHECKPOINT {
                Entry::EndOfCheckpoint
            } else {
                Entry::Payload(payload)
            },
            at,
        );
    }
    Ok((at, End::Whole))
}

/// Whether nothing else is left. After a power cut some file systems show a file at its length, but not its bytes.
fn only_zeros(file: &mut impl Read) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(true),
            read if buffer[..read].iter().any(|&byte| byte != 0) => return Ok(false),
            _ => {}
        }
    }
}
