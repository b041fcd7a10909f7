//! Puts the parts of a snapshot together.

use shardmeter_proto::v1;
use tonic::Status;

use super::{MAX_SERIES_IDS, convert};
use crate::{
    model::Samples,
    registry::{Frame, FrameKind, ReportedExemplar},
};

/// Values a snapshot may have in all its parts, so that parts without end exhaust no memory.
const MAX_VALUES: usize = 1 << 21;

/// Exemplars a snapshot may have in all its parts; far more than a shard can have.
const MAX_EXEMPLARS: usize = 20_000;

/// The parts of a snapshot so far.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    sequence: u64,
    next: u32,
    samples: v1::Samples,
    removed: v1::Samples,
    exemplars: Vec<(u32, ReportedExemplar)>,
}

/// What a part makes of the parts before it.
#[derive(Debug)]
pub(super) enum Part {
    More(Assembly),
    Complete(Assembly),
    /// It does not follow them.
    Misplaced(String),
}

impl Assembly {
    /// Adds a part to those before it.
    pub(super) fn add(before: Option<Self>, part: v1::Snapshot) -> Result<Part, Status> {
        let mut all = before.unwrap_or(Self { sequence: part.sequence, ..Self::default() });
        if (part.sequence, part.part) != (all.sequence, all.next) {
            return Ok(Part::Misplaced(format!(
                "snapshot part {} of sequence {} where part {} of sequence {} is next",
                part.part, part.sequence, all.next, all.sequence
            )));
        }
        all.next += 1;
        append(&mut all.samples, part.samples);
        append(&mut all.removed, part.removed);
        if all.exemplars.len() + part.exemplars.len() > MAX_EXEMPLARS {
            let message = format!("a snapshot of over {MAX_EXEMPLARS} exemplars");
            return Err(Status::resource_exhausted(message));
        }
        all.exemplars.extend(convert::exemplars(&part.exemplars));
        if all.samples.series.len() + all.removed.series.len() > MAX_SERIES_IDS
            || all.samples.values.len() + all.removed.values.len() > MAX_VALUES
        {
            let message =
                format!("a snapshot of over {MAX_SERIES_IDS} series or {MAX_VALUES} values");
            return Err(Status::resource_exhausted(message));
        }
        Ok(if part.last { Part::Complete(all) } else { Part::More(all) })
    }

    /// The whole snapshot.
    pub(super) fn frame(&self) -> Frame<'_> {
        Frame {
            kind: FrameKind::Snapshot,
            sequence: self.sequence,
            samples: Samples { ids: &self.samples.series, values: &self.samples.values },
            removed: Samples { ids: &self.removed.series, values: &self.removed.values },
            exemplars: &self.exemplars,
        }
    }
}

/// The first part's columns are taken as they are: most snapshots have one part.
fn append(to: &mut v1::Samples, part: Option<v1::Samples>) {
    let Some(part) = part else { return };
    if to.series.is_empty() && to.values.is_empty() {
        *to = part;
    } else {
        to.series.extend(part.series);
        to.values.extend(part.values);
    }
}
