//! Which records count, and in which order.
//!
//! Replay starts at the newest segment whose checkpoint is complete, which holds everything by itself, or at the
//! oldest segment if no checkpoint is. From there all segments count in order, except a healing checkpoint that did
//! not become complete: what the log missed while it was broken is in none of the segments before it, so its records
//! would be applied to a state they were not made for, and nothing in it was acknowledged as durable.
//!
//! A bad record ends its segment, and replay goes on with the next. That is right for what crashes leave: only the
//! last record of a run can be torn, that run never acknowledged it, and the next run opened its own segment on the
//! state that replay reached. Any other damage loses what follows it in that segment, and says so.
//!
//! A segment that was cut off while it was created holds nothing and is passed over, with a report: a power cut does
//! that, and nobody should have to get up for it. A full-sized segment with a wrong header is no such thing. It may be
//! all there is of the totals, and passing over it would let the next checkpoint delete it; so the log does not open,
//! and the error names the file to restore or to move away.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use super::{
    OpenError,
    format::{self, FIRST, HEADER_BYTES, Header, Kind, PREFIX_BYTES},
    scan::{End, Entry, scan},
};

/// One record, as it was appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) payload: &'a [u8],
    /// Replay started with this segment, and its checkpoint is not complete yet: a change to something that the
    /// checkpoint has not come to is to be ignored, as the checkpoint will have it. Otherwise it means damage.
    pub(crate) in_checkpoint: bool,
}

/// What opening a log found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Records replayed.
    pub(crate) records: u64,
    /// Bytes of those records on disk.
    pub(crate) bytes: u64,
    /// Segments they came from.
    pub(crate) segments: usize,
    /// What could not be read.
    pub(crate) damage: Vec<Damage>,
    /// So many records were replayed before the last of it.
    pub(crate) damaged_after: Option<u64>,
    /// Why nothing can be appended: the log is open, but broken from the start.
    pub(crate) broken: Option<io::Error>,
}

/// Part of the log that could not be read. It shows as a sentence for whoever runs the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) file: PathBuf,
    /// Where the damage begins. All records before it are read.
    pub(crate) offset: u64,
    /// Bytes given up, to the end of the file. Unknown, so zero, of files that are missing.
    pub(crate) lost: u64,
    pub(crate) flaw: Flaw,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The segment was being created.
    Creation,
    /// The last record was being written.
    Torn,
    /// A record that is not the last has the wrong checksum.
    Checksum,
    /// A length that no record has.
    Length,
    /// These segments are not there.
    Missing(RangeInclusive<u64>),
}

impl Damage {
    /// Whether a crash alone explains it: nothing that was acknowledged is lost.
    pub(crate) fn is_of_a_crash(&self) -> bool {
        matches!(self.flaw, Flaw::Torn | Flaw::Creation)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, lost, flaw } = self;
        let file = file.display();
        match flaw {
            Flaw::Creation => write!(
                f,
                "{file} was cut off while it was created ({lost} bytes), as by a crash or a power cut; no record is \
                 in it"
            ),
            Flaw::Torn => write!(
                f,
                "{file} ends in a torn record at byte {offset} ({lost} bytes given up), as after a crash, a full disk \
                 or a power cut; everything before it is read"
            ),
            Flaw::Checksum | Flaw::Length => write!(
                f,
                "{file} is damaged: the record at byte {offset} has {}, so {lost} bytes to the end of the file are \
                 given up; everything before it is read, but totals may be lower than they were; check the disk, and \
                 restore the directory from a backup if there is one",
                if *flaw == Flaw::Length { "an impossible length" } else { "the wrong checksum" },
            ),
            Flaw::Missing(numbers) => write!(
                f,
                "{file} is missing (segments {} to {}): what it held is lost, and totals may be lower than they were; \
                 put it back if it was moved",
                numbers.start(),
                numbers.end(),
            ),
        }
    }
}

/// A segment in the directory.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) path: PathBuf,
    /// None: it was cut off while it was created.
    kind: Option<Kind>,
}

/// All segments in the directory, oldest first. Other files are left alone.
pub(super) fn segments(dir: &Path) -> Result<Vec<Segment>, OpenError> {
    let failed = OpenError::io("read", dir);
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(&failed)? {
        let name = entry.map_err(&failed)?.file_name();
        if let Some(number) = name.to_str().and_then(format::number) {
            segments.push(segment(dir.join(name), number)?);
        }
    }
    segments.sort_unstable_by_key(|segment| segment.number);
    Ok(segments)
}

fn segment(path: PathBuf, number: u64) -> Result<Segment, OpenError> {
    let failed = OpenError::io("read", &path);
    let file = File::open(&path).map_err(&failed)?;
    let bytes = file.metadata().map_err(&failed)?.len();
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(&failed)?;
    let kind = match format::read_header(&header, number) {
        Header::Valid(kind) => Some(kind),
        Header::Torn => None,
        Header::Version(version) => return Err(OpenError::Version { path, version }),
        Header::Invalid => return Err(OpenError::NotASegment { path }),
    };
    Ok(Segment { number, bytes, path, kind })
}

/// What the log goes on from.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) recovered: Recovered,
    /// Bytes of the checkpoint that replay started from.
    pub(super) checkpoint_bytes: u64,
    /// Bytes of the records after it.
    pub(super) since_checkpoint: u64,
    /// Nothing in the newest segment counts, so a new one may take its place.
    pub(super) newest_is_void: bool,
}

pub(super) fn replay(
    dir: &Path,
    segments: &[Segment],
    mut each: impl FnMut(Record<'_>),
) -> Result<Replayed, OpenError> {
    let complete = newest_complete(segments)?;
    let mut replayed = Replayed::default();
    let mut expected = if complete.is_some() { None } else { Some(FIRST) };
    for (i, segment) in segments.iter().enumerate().skip(complete.unwrap_or(0)) {
        let first = expected.unwrap_or(segment.number);
        if first < segment.number {
            replayed.damaged(missing(dir, first..=segment.number - 1));
        }
        expected = segment.number.checked_add(1);
        let counts = i == 0 || segment.kind != Some(Kind::Healing) || complete == Some(i);
        if counts {
            replayed.segment(segment, complete == Some(i), &mut each)?;
        } else {
            replayed.unfinished_healing(segment)?;
        }
    }
    Ok(replayed)
}

/// The newest segment whose checkpoint is complete.
fn newest_complete(segments: &[Segment]) -> Result<Option<usize>, OpenError> {
    for (i, segment) in segments.iter().enumerate().rev() {
        let mut complete = false;
        if matches!(segment.kind, Some(Kind::Checkpoint | Kind::Healing)) {
            segment.scan(|entry, _| complete |= matches!(entry, Entry::EndOfCheckpoint))?;
        }
        if complete {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

fn missing(dir: &Path, numbers: RangeInclusive<u64>) -> Damage {
    let file = dir.join(format::file_name(*numbers.start()));
    Damage { file, offset: 0, lost: 0, flaw: Flaw::Missing(numbers) }
}

impl Replayed {
    fn segment(
        &mut self,
        segment: &Segment,
        mut in_checkpoint: bool,
        each: &mut impl FnMut(Record<'_>),
    ) -> Result<(), OpenError> {
        self.newest_is_void = segment.bytes <= HEADER_BYTES as u64;
        if segment.kind.is_none() {
            self.damaged(segment.damage(0, Flaw::Creation));
            return Ok(());
        }
        let mut checkpoint = HEADER_BYTES as u64;
        let (at, end) = segment.scan(|entry, at| match entry {
            Entry::Payload(payload) => {
                self.recovered.records += 1;
                self.recovered.bytes += (PREFIX_BYTES + payload.len()) as u64;
                each(Record { payload, in_checkpoint });
            }
            Entry::EndOfCheckpoint => {
                in_checkpoint = false;
                checkpoint = at;
                self.checkpoint_bytes = at;
            }
        })?;
        self.since_checkpoint += at - checkpoint;
        self.recovered.segments += 1;
        if let Some(flaw) = flaw(end) {
            self.damaged(segment.damage(at, flaw));
        }
        Ok(())
    }

    /// A torn tail is how such a segment ends. Anything else may be why it is not complete.
    fn unfinished_healing(&mut self, segment: &Segment) -> Result<(), OpenError> {
        let (at, end) = segment.scan(|_, _| ())?;
        self.newest_is_void = matches!(end, End::Whole | End::Torn);
        if !self.newest_is_void
            && let Some(flaw) = flaw(end)
        {
            self.damaged(segment.damage(at, flaw));
        }
        Ok(())
    }

    fn damaged(&mut self, damage: Damage) {
        self.recovered.damaged_after = Some(self.recovered.records);
        self.recovered.damage.push(damage);
    }
}

fn flaw(end: End) -> Option<Flaw> {
    match end {
        End::Whole => None,
        End::Torn => Some(Flaw::Torn),
        End::Checksum => Some(Flaw::Checksum),
        End::Length => Some(Flaw::Length),
    }
}

impl Segment {
    fn scan(&self, each: impl FnMut(Entry<'_>, u64)) -> Result<(u64, End), OpenError> {
        scan(&self.path, self.bytes, each).map_err(OpenError::io("read", &self.path))
    }

    fn damage(&self, offset: u64, flaw: Flaw) -> Damage {
        Damage { file: self.path.clone(), offset, lost: self.bytes.saturating_sub(offset), flaw }
    }
}
