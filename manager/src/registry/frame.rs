//! What a stream says to the registry, and what becomes of it.

use super::{
    BadSample, MAX_SHARD_COUNT, Rejected, ReportedExemplar, UnixTime, limits::IDS_ALWAYS,
    shard::MAX_INSTANCES,
};
use crate::model::{Bounds, FamilyHead, LabelSet, MetricType, Samples};

/// How an instance introduces itself.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// The shard it reports for.
    pub shard_id: u32,
    /// How many shards the bot has.
    pub shard_count: u32,
    /// Its id.
    pub instance_id: [u8; 16],
    /// When it began to count, by its own clock.
    pub started_at: UnixTime,
    /// Name and version of its client library.
    pub client: &'a str,
}

/// Why an instance cannot report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The shard is none of the bot's.
    #[error("shard_id {shard_id} is not below shard_count {shard_count}")]
    IdOutOfRange {
        /// The id given.
        shard_id: u32,
        /// The count given.
        shard_count: u32,
    },
    /// More shards than the manager believes.
    #[error("shard_count {0} is over {MAX_SHARD_COUNT}")]
    TooManyShards(u32),
    /// As many instances as a shard may have are alive.
    #[error(
        "shard {0} has {MAX_INSTANCES} living instances, its limit; do all of them report for it?"
    )]
    TooManyInstances(u32),
    /// The fleet has as many series as the manager takes, and the shard is new.
    #[error("the fleet has over {0} series, its limit (limits.series): no new shard is taken")]
    FleetFull(usize),
    /// The instance reports by HTTP.
    #[error("this instance already reports by HTTP; report one way only")]
    AlsoHttp,
}

/// A family and some of its series, as a stream introduces them.
#[derive(Debug)]
pub struct FamilyDefinition<'a> {
    /// What the family is.
    pub head: FamilyHead<'a>,
    /// Its series, in the order of their ids.
    pub series: Vec<SeriesDefinition>,
}

/// A series and the id its stream gives it.
#[derive(Debug)]
pub struct SeriesDefinition {
    /// The number of series the stream defined before.
    pub id: u32,
    /// Its labels.
    pub labels: LabelSet,
    /// Its bounds or quantiles.
    pub bounds: Bounds,
}

/// Why a definition was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefineError {
    /// Ids count up from 0 without holes.
    #[error(
        "family {family}: series id {got} where {expected} is next; ids count up from 0 without holes"
    )]
    Id {
        /// The family.
        family: Box<str>,
        /// The next id.
        expected: u32,
        /// The id given.
        got: u32,
    },
    /// The shard's series have other places now.
    #[error(
        "the manager put the series of this shard in order anew; reconnect and define them again"
    )]
    Rearranged,
    /// All streams have as many ids as they may.
    #[error(
        "the streams of this manager have so many series ids that none may have over {IDS_ALWAYS}"
    )]
    TooManyIds,
    /// A type without bounds was given some.
    #[error("family {family}: a {} has no bounds", kind.as_str())]
    UnexpectedBounds {
        /// The family.
        family: Box<str>,
        /// Its type.
        kind: MetricType,
    },
}

/// Whether a frame holds everything or what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Every series of the instance.
    Snapshot,
    /// The series that changed since the frame before.
    Delta,
}

/// One frame of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: FrameKind,
    /// Its number, from 1.
    pub sequence: u64,
    /// New values.
    pub samples: Samples<'a>,
    /// Final values of series that left.
    pub removed: Samples<'a>,
    /// Exemplars, with the ids of their series.
    pub exemplars: &'a [(u32, ReportedExemplar)],
}

/// What became of a frame that broke no rule.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the registry now.
    Applied(Applied),
    /// It was before; nothing changed.
    Duplicate,
    /// It cannot be placed; nothing changed, and a snapshot is needed.
    NotApplied(NotApplied),
}

/// What was applied.
#[derive(Debug, PartialEq, Eq)]
pub struct Applied {
    /// Samples applied.
    pub samples: usize,
    /// What was not; each is named once per stream.
    pub rejected: Vec<Rejected>,
    /// Whether it survives the manager.
    pub durable: bool,
}

/// Why a frame cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    /// Frames are missing before it.
    #[error("sequence {got} where {expected} is next")]
    Gap {
        /// The sequence that could be applied.
        expected: u64,
        /// The frame's.
        got: u64,
    },
    /// It names a series the stream did not define.
    #[error("series id {0} is not defined on this stream")]
    UndefinedId(u32),
    /// A stream begins with a snapshot.
    #[error("a delta before the stream's first snapshot")]
    NoSnapshotYet,
}

/// A frame that breaks a rule; nothing of it was applied, and the stream ends.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// Sequences start at 1.
    #[error("sequence 0; sequences start at 1")]
    SequenceZero,
    /// A series twice in one frame.
    #[error("series id {0} stands twice in one frame")]
    Twice(u32),
    /// The columns do not fit each other.
    #[error("{got} values where the named series have {expected}")]
    ValueCount {
        /// What the series have together.
        expected: usize,
        /// The length of the column.
        got: usize,
    },
    /// A sample that cannot be.
    #[error("series id {id} ({family}{labels}): {problem}")]
    Bad {
        /// The series.
        id: u32,
        /// Its family.
        family: Box<str>,
        /// Its labels.
        labels: String,
        /// What is wrong.
        problem: BadSample,
    },
    /// The same, of a label set that is counted together with others.
    #[error("series id {id} (of {family}): {problem}")]
    BadPart {
        /// The series.
        id: u32,
        /// The family.
        family: Box<str>,
        /// What is wrong.
        problem: BadSample,
    },
    /// The shard's series have other places now.
    #[error(
        "the manager put the series of this shard in order anew; reconnect and define them again"
    )]
    Rearranged,
    /// An exemplar of something that has none.
    #[error("an exemplar of series id {id}, bucket {bucket}: {what}")]
    Exemplar {
        /// The series.
        id: u32,
        /// The bucket.
        bucket: u32,
        /// Why there can be none.
        what: &'static str,
    },
    /// Another stream of the instance writes it now.
    #[error("a newer stream of this instance took over")]
    Superseded,
    /// The instance is folded into its shard's base.
    #[error("this instance was closed; start a new one")]
    Closed,
}
