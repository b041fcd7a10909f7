//! Reads one segment as far as its records are whole.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::Path,
};

use super::format::{
    self, END_OF_CHECKPOINT, HEADER_BYTES, LAST_PIECE, MAX_PAYLOAD_BYTES, PIECE, PREFIX_BYTES,
};

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
    let mut long = Vec::new();
    while at < bytes {
        let rest = bytes - at;
        if rest < PREFIX_BYTES as u64 {
            return Ok((at, End::Torn));
        }
        let mut prefix = [0; PREFIX_BYTES];
        file.read_exact(&mut prefix)?;
        let (length, crc) = format::read_prefix(prefix);
        let size = size(length);
        if size > MAX_PAYLOAD_BYTES
            || length & (PIECE | LAST_PIECE) != 0 && long.len() + size > MAX_PAYLOAD_BYTES
        {
            return Ok((at, End::Length));
        }
        let record = (PREFIX_BYTES + size) as u64;
        if record > rest {
            let end = if holds_record(&mut file)? { End::Length } else { End::Torn };
            return Ok((at, end));
        }
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        #[expect(clippy::indexing_slicing, reason = "it has just been made that long")]
        let payload = &mut buffer[..size];
        file.read_exact(payload)?;
        if format::crc(length, payload) != crc {
            let end = if only_zeros(&mut file)? { End::Torn } else { End::Checksum };
            return Ok((at, end));
        }
        at += record;
        if length == END_OF_CHECKPOINT {
            each(Entry::EndOfCheckpoint, at);
        } else if length & (PIECE | LAST_PIECE) == 0 {
            each(Entry::Payload(payload), at);
        } else {
            long.extend_from_slice(payload);
            if length & LAST_PIECE != 0 {
                each(Entry::Payload(&long), at);
                long.clear();
            }
        }
    }
    Ok((at, if long.is_empty() { End::Whole } else { End::Torn }))
}

/// Bytes of the payload.
fn size(length: u32) -> usize {
    if length == END_OF_CHECKPOINT { 0 } else { (length & !(PIECE | LAST_PIECE)) as usize }
}

/// How far to look for a record behind a length that cannot be, and how long one may be to be found, bytes.
const SEARCHED_BYTES: u64 = 256 << 10;
const FOUND_BYTES: usize = 64 << 10;

/// Whether a whole record follows somewhere: then what was read as its predecessor's length was damaged, not cut off.
fn holds_record(file: &mut impl Read) -> io::Result<bool> {
    let mut rest = Vec::new();
    file.take(SEARCHED_BYTES).read_to_end(&mut rest)?;
    Ok((0..rest.len()).any(|at| {
        let Some((prefix, after)) = rest.get(at..).and_then(<[u8]>::split_first_chunk) else {
            return false;
        };
        let (length, crc) = format::read_prefix(*prefix);
        let size = size(length);
        (1..=FOUND_BYTES).contains(&size)
            && after.get(..size).is_some_and(|payload| format::crc(length, payload) == crc)
    }))
}

/// Whether nothing else is left. After a power cut some file systems show a file at its length, but not its bytes.
fn only_zeros(file: &mut impl Read) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(true),
            read if buffer.iter().take(read).any(|&byte| byte != 0) => return Ok(false),
            _ => {}
        }
    }
}
