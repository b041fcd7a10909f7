//! The HTTP way in (design section 5): a body of Prometheus or OpenMetrics text becomes reports to the registry, all of
//! it or nothing.
//!
//! There are two ways. [`ingest`] reads a body as a whole: that is the ordinary one, and knows all the rules. But a body is
//! nearly always the sender's previous one with other values; [`PreviousBodies`] compares the two byte by byte and takes
//! only those values, with the same result.

mod assemble;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod previous;
mod shard_ids;
mod text;

use std::{borrow::Cow, collections::BTreeMap, ops::Range, time::Duration};

use serde_json::value::RawValue;

pub use assemble::AssembleError;
pub use previous::PreviousBodies;
pub use shard_ids::ShardIds;
pub use text::{ParseError, Problem};

use crate::{
    clock::UnixTime,
    registry::{
        InstanceKey, Outcome, Placement, Registry, Rejected, Report, ReportError, ReportedFamily,
        Scope,
    },
};

/// The gauge by which a process is told from its predecessors, and by which its counts' beginning is known.
const PROCESS_START: &str = "process_start_time_seconds";

/// Who sent a body, and what was said about it.
#[derive(Debug, Clone, Copy)]
pub struct Post<'a> {
    /// The shards it speaks for.
    pub shards: ShardIds,
    /// What the sender calls itself (`X-Instance-Id`), if it does.
    pub instance: Option<&'a str>,
    /// Number of the report (`X-Report-Sequence`), if the sender numbers them.
    pub sequence: Option<u64>,
    /// How often the sender reports (`X-Report-Interval`), if it says so.
    pub interval: Option<Duration>,
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
    /// The lines do not make metrics.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The registry refused it.
    #[error(transparent)]
    Report(#[from] ReportError),
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
    let mut body = assemble::assemble(&text, post.shards)?;
    let sender = match (post.instance, body.process_start) {
        (Some(name), _) => instance_key(name),
        (None, Some(seconds)) => InstanceKey::ProcessStart(seconds.to_bits()),
        (None, None) => InstanceKey::Anonymous,
    };
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
            scope: Scope::Everything,
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
    Ok(Read { taken, sender, text, values: body.values, placement })
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
