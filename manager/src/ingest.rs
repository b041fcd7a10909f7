//! The HTTP way in (design section 5): a body of Prometheus text becomes reports to the registry, all of it or nothing.

mod assemble;
mod shard_ids;
mod text;

use std::{collections::BTreeMap, time::Duration};

pub use assemble::AssembleError;
pub use shard_ids::ShardIds;
pub use text::{ParseError, Problem};

use crate::{
    clock::UnixTime,
    registry::{InstanceKey, Outcome, Registry, Rejected, Report, ReportError, ReportedFamily},
};

/// A body and who sent it.
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
    /// Prometheus text format 0.0.4.
    pub text: &'a str,
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
pub fn ingest(registry: &Registry, post: Post<'_>, now: UnixTime) -> Result<Taken, IngestError> {
    let mut body = assemble::assemble(post.text, post.shards)?;
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
    for outcome in registry.report(&reports, now)? {
        if let Outcome::Applied(applied) = outcome {
            taken.late = false;
            taken.durable &= applied.durable;
            taken.series += applied.samples;
            taken.rejected.extend(applied.rejected);
        }
    }
    Ok(taken)
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
}

#[cfg(test)]
mod tests;
