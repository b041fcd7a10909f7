//! The log on disk, closely enough that someone could write another reader.
//!
//! One directory, which the process at work holds a lock on, has **segments** `journal-<n>.log`, where n is a decimal
//! number from 1 on, zero-padded to ten digits. Any other file is someone else's. All integers are little-endian; every CRC is CRC-32 as in zlib and PNG.
//!
//! A segment begins with a header of 28 bytes. Magic, version and CRC stay where they are in every version.
//!
//! | bytes | | |
//! |---|---|---|
//! | 0..8 | magic | `shmetlog` |
//! | 8..12 | version | 3; version 2, which has no pieces, is read too |
//! | 12..16 | kind | 0 start, 1 checkpoint, 2 healing checkpoint; see [`Kind`] |
//! | 16..24 | number | the n of its name |
//! | 24..28 | crc | of bytes 0..24 |
//!
//! Then records follow, back to back, to the end of the file.
//!
//! | bytes | | |
//! |---|---|---|
//! | 0..4 | length | of the payload, at most 64 MiB, and flags; or [`END_OF_CHECKPOINT`], which has no payload |
//! | 4..8 | crc | of length and payload |
//! | 8.. | payload | any bytes, none too |
//!
//! A long record comes in pieces, so that who has a short one need not wait for all of it. Each piece is a record by itself
//! with a flag in its length, [`PIECE`] or, on the last, [`LAST_PIECE`]. Short records may stand between the pieces of a long
//! one, but no other long one. It counts where its last piece stands; a segment that ends before that does not have it.
//!
//! Nothing is ever changed in place. What comes after a record that is cut off, too long or has the wrong CRC means
//! nothing, because where the next record starts is unknown. Which segments count, and in which order: see
//! [`mod@super::replay`].

/// What every segment begins with.
const MAGIC: [u8; 8] = *b"shmetlog";

/// The version that is written.
pub(super) const VERSION: u32 = 3;

/// The oldest version that is read. Version 1 knew no parts of merged series and no retired families.
const OLDEST: u32 = 2;

/// Number of the first segment in a new directory.
pub(super) const FIRST: u64 = 1;

pub(super) const HEADER_BYTES: usize = 28;

/// Length and CRC before each payload.
pub(super) const PREFIX_BYTES: usize = 8;

/// Longest payload. A length beyond it is damage, so that a reader need not trust it with its memory.
pub(super) const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// The length that says: the checkpoint this segment began with is complete. No payload can have it.
pub(super) const END_OF_CHECKPOINT: u32 = 1 << 31;

/// Flags of a length: a piece of a record that goes on, and the last piece of one.
pub(super) const PIECE: u32 = 1 << 30;
pub(super) const LAST_PIECE: u32 = 1 << 29;

/// Longest piece, bytes: writing it takes a tenth of a millisecond.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// Why a segment was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A process started. The records go on from what the segments before it hold.
    Start,
    /// A checkpoint, because the older segments were large. Until it is complete, the segments before it count and the
    /// records go on from what they hold.
    Checkpoint,
    /// A checkpoint after the log broke. The records do not go on from anything: until it is complete, they count for
    /// nothing.
    Healing,
}

/// What a segment's first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    Valid(Kind),
    /// Cut off, or still zeros: the segment was being created, and nothing in it was on disk yet.
    Torn,
    /// Made by another version.
    Version(u32),
    /// No header, a damaged one, or another segment's.
    Invalid,
}

/// The name of the segment with that number.
pub(super) fn file_name(number: u64) -> String {
    format!("journal-{number:010}.log")
}

/// The number of the segment with that name, or nothing if it is not a segment.
pub(super) fn number(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_prefix("journal-")?.strip_suffix(".log")?;
    let number = digits.parse().ok()?;
    (self::file_name(number) == file_name).then_some(number)
}

/// The header of a new segment.
pub(super) fn header(number: u64, kind: Kind) -> [u8; HEADER_BYTES] {
    let kind: u32 = match kind {
        Kind::Start => 0,
        Kind::Checkpoint => 1,
        Kind::Healing => 2,
    };
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&kind.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&header[..24]);
    header[24..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Reads the header of the segment with that number. `bytes` may be fewer than a header has.
pub(super) fn read_header(bytes: &[u8], number: u64) -> Header {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Header::Torn };
    if header.iter().all(|&byte| byte == 0) {
        return Header::Torn;
    }
    let [_, _, version, kind, _, _, crc] = header.as_chunks().0 else { return Header::Invalid };
    let [version, kind, crc] = [version, kind, crc].map(|word| u32::from_le_bytes(*word));
    if header[..8] != MAGIC || crc != crc32fast::hash(&header[..24]) {
        return Header::Invalid;
    }
    if !(OLDEST..=VERSION).contains(&version) {
        return Header::Version(version);
    }
    if header[16..24] != number.to_le_bytes() {
        return Header::Invalid;
    }
    match kind {
        0 => Header::Valid(Kind::Start),
        1 => Header::Valid(Kind::Checkpoint),
        2 => Header::Valid(Kind::Healing),
        _ => Header::Invalid,
    }
}

/// What goes before the payload.
pub(super) fn prefix(length: u32, payload: &[u8]) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = length.to_le_bytes();
    let [e, f, g, h] = crc(length, payload).to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

/// The two halves of what goes before the payload: length and CRC.
pub(super) fn read_prefix([a, b, c, d, e, f, g, h]: [u8; PREFIX_BYTES]) -> (u32, u32) {
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// The checksum of a record.
pub(super) fn crc(length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}
