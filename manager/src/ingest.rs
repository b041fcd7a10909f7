//! The HTTP way in (design section 5): a body of Prometheus or OpenMetrics text, or of protobuf messages, becomes
//! reports to the registry, all of it or nothing.
//!
//! For text there are two ways. [`ingest`] reads a body as a whole: that is the ordinary one, and knows all the rules. But a body is
//! nearly always the sender's previous one with other values; [`PreviousBodies`] compares the two byte by byte and takes
//! only those values, with the same result.

mod assemble;
mod drafts;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod group;
mod previous;
mod protobuf;
mod shard_ids;
pub(crate) mod text;

use std::{borrow::Cow, collections::BTreeMap, ops::Range, time::Duration};

use serde_json::value::RawValue;

pub use drafts::{AssembleError, AssembleProblem};
pub use group::{Group, GroupError};
pub use previous::PreviousBodies;
pub use protobuf::{ProtobufError, ProtobufProblem};
pub use shard_ids::ShardIds;
pub use text::{ParseError, Problem};

use crate::{
    clock::UnixTime,
    registry::{
        InstanceKey, Outcome, Placement, Registry, Rejected, Report, ReportError, ReportedFamily,
        Scope,
    },
};
use drafts::Drafts;

/// The gauge by which a process is told from its predecessors, and by which its counts' beginning is known.
const PROCESS_START: &str = "process_start_time_seconds";

/// Who sent a body, and what was said about it.
#[derive(Debug, Clone, Copy)]
pub struct Post<'a> {
    /// The shards it speaks for.
    pub shards: ShardIds,
    /// Which of their senders it is.
    pub identity: Identity<'a>,
    /// Number of the report (`X-Report-Sequence`), if the sender numbers them.
    pub sequence: Option<u64>,
    /// How often the sender reports (`X-Report-Interval`), if it says so.
    pub interval: Option<Duration>,
}

/// What tells a sender from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// `process_start_time_seconds`, if the body has it.
    InBody,
    /// What it calls itself (`X-Instance-Id`).
    Named(&'a str),
    /// A grouping key of Pushgateway's API.
    Group {
        /// The key.
        group: &'a Group,
        /// What its body replaces.
        scope: Scope,
    },
}

impl<'a> Identity<'a> {
    const fn group(self) -> Option<&'a Group> {
        match self {
            Self::Group { group, .. } => Some(group),
            Self::InBody | Self::Named(_) => None,
        }
    }

    const fn scope(self) -> Scope {
        match self {
            Self::Group { scope, .. } => scope,
            Self::InBody | Self::Named(_) => Scope::Everything,
        }
    }

    /// By what the registry knows it, if its body says that it began at `process_start`.
    fn key(self, process_start: Option<f64>) -> InstanceKey {
        match (self, process_start) {
            (Self::Group { group, .. }, _) => group.into(),
            (Self::Named(name), _) => instance_key(name),
            (Self::InBody, Some(seconds)) => InstanceKey::ProcessStart(seconds.to_bits()),
            (Self::InBody, None) => InstanceKey::Anonymous,
        }
    }
}

impl<'a> From<Option<&'a str>> for Identity<'a> {
    fn from(name: Option<&'a str>) -> Self {
        name.map_or(Self::InBody, Self::Named)
    }
}

impl From<&Group> for InstanceKey {
    fn from(group: &Group) -> Self {
        Self::Group(group.key().into())
    }
}

/// Prometheus text format 0.0.4 or, if it ends in `# EOF`, OpenMetrics 1.0; as it was received.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    /// As it is.
    Plain(&'a str),
    /// As a JSON string, whose escapes nobody has looked at yet.
    Json {
        /// The whole body.
        body: &'a [u8],
        /// The string, a part of it.
        metrics: &'a RawValue,
    },
}

impl<'a> Text<'a> {
    /// The text itself.
    fn read(self) -> Result<Cow<'a, str>, IngestError> {
        match self {
            Self::Plain(text) => Ok(Cow::Borrowed(text)),
            Self::Json { metrics, .. } => match serde_json::from_str(metrics.get()) {
                Ok(text) => Ok(Cow::Owned(text)),
                Err(_) => Err(IngestError::NotAString),
            },
        }
    }

    /// The whole body as it came.
    const fn received(self) -> &'a [u8] {
        match self {
            Self::Plain(text) => text.as_bytes(),
            Self::Json { body, .. } => body,
        }
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::Plain(text)
    }
}

/// What was taken of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Series applied.
    pub series: usize,
    /// What was not.
    pub rejected: Vec<Rejected>,
    /// Whether the sender could be told from its predecessors.
    pub identified: bool,
    /// A later report had been applied before, so this one changed nothing.
    pub late: bool,
    /// Whether what was applied survives the manager.
    pub durable: bool,
}

/// Why nothing of a body was applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IngestError {
    /// What should be a JSON string is none.
    #[error("expected a string")]
    NotAString,
    /// A line is not in the text format.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A message is not in the protobuf format.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    /// What it says makes no metrics.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The registry refused it.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Of two processes that push under one grouping key, the one that was started first. It would not learn otherwise that
    /// nothing of it counts.
    #[error(
        "a process that was started later pushes under this grouping key; give each its own, say by /instance/<name>"
    )]
    GroupTaken,
}

/// Takes a body: it replaces what its sender said before.
///
/// # Errors
/// If it is malformed or refused; nothing of it is applied then.
pub fn ingest(
    registry: &Registry,
    post: &Post<'_>,
    text: Text<'_>,
    now: UnixTime,
) -> Result<Taken, IngestError> {
    read(registry, post, text, now).map(|read| read.taken)
}

/// A body that was read as a whole.
struct Read<'a> {
    taken: Taken,
    sender: InstanceKey,
    text: Cow<'a, str>,
    values: Vec<ValueAt>,
    /// Where its series stand now, if all of it was taken.
    placement: Option<Placement>,
}

fn read<'a>(
    registry: &Registry,
    post: &Post<'_>,
    text: Text<'a>,
    now: UnixTime,
) -> Result<Read<'a>, IngestError> {
    let text = text.read()?;
    let mut body = assemble::assemble(&text, Drafts::new(post.shards, post.identity.group()))?;
    let (taken, sender, placement) = apply(registry, post, &mut body, now)?;
    Ok(Read { taken, sender, text, values: body.values, placement })
}

/// Takes a body of delimited `io.prometheus.client.MetricFamily` messages, as [`ingest`] does text.
///
/// # Errors
/// As [`ingest`] has.
pub fn ingest_protobuf(
    registry: &Registry,
    post: &Post<'_>,
    messages: &[u8],
    now: UnixTime,
) -> Result<Taken, IngestError> {
    let mut body = protobuf::read(messages, Drafts::new(post.shards, post.identity.group()))?;
    apply(registry, post, &mut body, now).map(|(taken, ..)| taken)
}

/// Reports a body to the registry. Returns whose it is, and where its series stand now, if all of it was taken.
fn apply(
    registry: &Registry,
    post: &Post<'_>,
    body: &mut Body,
    now: UnixTime,
) -> Result<(Taken, InstanceKey, Option<Placement>), IngestError> {
    let sender = post.identity.key(body.process_start);
    // A shard that this body no longer names has lost what the sender said of it before.
    for shard_id in registry.shards_of(&sender, post.shards.lowest(), post.shards.highest()) {
        body.shards.entry(shard_id).or_default();
    }
    let reports: Vec<_> = body
        .shards
        .iter()
        .map(|(shard_id, families)| Report {
            shard_id: *shard_id,
            sender: sender.clone(),
            sequence: post.sequence,
            interval: post.interval,
            started_at: body.process_start.map(UnixTime::from_secs_f64),
            scope: post.identity.scope(),
            families,
        })
        .collect();
    let mut taken = Taken {
        series: 0,
        rejected: Vec::new(),
        identified: sender != InstanceKey::Anonymous,
        late: true,
        durable: true,
    };
    let (outcomes, placement) = registry.report_placed(&reports, now)?;
    for outcome in outcomes {
        if let Outcome::Applied(applied) = outcome {
            taken.late = false;
            taken.durable &= applied.durable;
            taken.series += applied.samples;
            taken.rejected.extend(applied.rejected);
        }
    }
    if taken.late && post.sequence.is_none() && post.identity.group().is_some() {
        return Err(IngestError::GroupTaken);
    }
    Ok((taken, sender, placement))
}

/// A name of 32 hexadecimal digits is the instance id that a gRPC client of the same process would send.
fn instance_key(name: &str) -> InstanceKey {
    let id = (name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u128::from_str_radix(name, 16));
    match id {
        Some(Ok(id)) => InstanceKey::Id(id.to_be_bytes()),
        _ => InstanceKey::Named(name.into()),
    }
}

/// A body in the manager's model.
#[derive(Debug, Default, PartialEq)]
struct Body {
    /// Its families, by the shard they belong to. Every shard it may speak for only by label is left out if no series
    /// does; the lowest is always there.
    shards: BTreeMap<u32, Vec<ReportedFamily>>,
    /// Value of `process_start_time_seconds`.
    process_start: Option<f64>,
    /// The values of its samples, in order.
    values: Vec<ValueAt>,
}

/// Where a value stands in the text, and what it became.
#[derive(Debug, Clone, PartialEq)]
struct ValueAt {
    /// Bytes of the text.
    token: Range<usize>,
    /// It is a [`PROCESS_START`].
    is_start: bool,
    shard_id: u32,
    /// Place of its series among those of the shard.
    series: u32,
    /// Its place among the series' values; two samples may have the same (`+Inf` and `_count`).
    at: usize,
}

impl ValueAt {
    fn of(sample: &text::Sample<'_>, body: &str) -> Self {
        let start = sample.token.as_ptr().addr() - body.as_ptr().addr();
        Self {
            token: start..start + sample.token.len(),
            is_start: sample.name == PROCESS_START,
            shard_id: 0,
            series: 0,
            at: 0,
        }
    }

    const fn place(&mut self, shard_id: u32, series: u32, at: usize) {
        self.shard_id = shard_id;
        self.series = series;
        self.at = at;
    }
}

#[cfg(test)]
mod tests;
