//! Reads delimited `io.prometheus.client.MetricFamily` messages (metrics.proto of prometheus/client_model), each behind its
//! length.
//!
//! A family is read metric by metric: decoded at once, a body of empty ones would take a hundred times its size.

mod family;
mod messages;

use prost::Message as _;

use super::{Body, IngestError, drafts::Drafts};
use family::Family;
use messages::{Head, Metric, metrics};

/// Longest metric, bytes: 500 buckets with an exemplar each have half of it.
const MAX_METRIC: usize = 1 << 20;

/// A message that is not in the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {message}, at byte {at}: {problem}")]
pub struct ProtobufError {
    /// Which, from 1.
    pub message: usize,
    /// Where it begins, with its length.
    pub at: usize,
    /// What is wrong with it.
    pub problem: ProtobufProblem,
}

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufProblem {
    /// No number, or one that has no end.
    #[error("its length cannot be read")]
    Length,
    /// It goes on behind the end of the body.
    #[error("it says it has {stated} bytes, but {left} are left; was the body cut?")]
    Truncated {
        /// Its length, as it says.
        stated: usize,
        /// What there is.
        left: usize,
    },
    /// It is something else.
    #[error("it is no io.prometheus.client.MetricFamily: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A field that is of another kind there.
    #[error("it is no io.prometheus.client.MetricFamily: field {0} is of another kind")]
    Field(usize),
    /// A metric that would take much memory.
    #[error("a metric of {0} bytes; {MAX_METRIC} is the limit")]
    Long(usize),
    /// No name, or none that can be.
    #[error("{0:?} is no metric name")]
    Name(String),
    /// A type that is none.
    #[error("{name} is of type {kind}, which is none")]
    Type {
        /// The family.
        name: String,
        /// The number of its type.
        kind: i32,
    },
}

/// Reads a body into `drafts`, of which there are none yet.
pub(super) fn read(body: &[u8], mut drafts: Drafts<'_>) -> Result<Body, IngestError> {
    let (mut rest, mut process_start) = (body, None);
    let numbers = 1..;
    for message in numbers {
        if rest.is_empty() {
            break;
        }
        let at = body.len() - rest.len();
        let wrong = |problem| ProtobufError { message, at, problem };
        let family = delimited(&mut rest).map_err(wrong)?;
        let head = Head::decode(family).map_err(|error| wrong(error.into()))?;
        let said = Family::new(head, message).map_err(wrong)?;
        said.declare(&mut drafts)?;
        for metric in metrics(family) {
            let metric = metric.and_then(decode).map_err(wrong)?;
            if said.is_process_start() {
                process_start = process_start.or(metric.value());
            }
            said.take(metric, &mut drafts)?;
        }
    }
    let shards = drafts.finish(&mut [])?;
    Ok(Body { shards, process_start, values: Vec::new() })
}

/// The message that `rest` begins with, behind its length.
fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], ProtobufProblem> {
    let stated = varint(rest)?;
    let left = rest.len();
    let (message, after) =
        rest.split_at_checked(stated).ok_or(ProtobufProblem::Truncated { stated, left })?;
    *rest = after;
    Ok(message)
}

/// The number that `rest` begins with, lengths among them.
fn varint(rest: &mut &[u8]) -> Result<usize, ProtobufProblem> {
    prost::decode_length_delimiter(rest).map_err(|_| ProtobufProblem::Length)
}

fn decode(metric: &[u8]) -> Result<Metric, ProtobufProblem> {
    if metric.len() > MAX_METRIC {
        return Err(ProtobufProblem::Long(metric.len()));
    }
    Ok(Metric::decode(metric)?)
}

#[cfg(test)]
mod tests;
