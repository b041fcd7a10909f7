//! Puts the parts of a snapshot together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

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

/// Values that the snapshots of all streams may have in parts that wait for others.
const MAX_WAITING: usize = 1 << 25;

/// Room for the values of snapshots that are not complete.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<AtomicUsize>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_WAITING)))
    }
}

/// What one snapshot takes of it, until it is dropped.
#[derive(Debug, Default)]
struct Held {
    room: Option<Room>,
    values: usize,
}

impl Held {
    /// Takes room for so many values. False: there is none.
    fn hold(&mut self, room: &Room, values: usize) -> bool {
        let more = values.saturating_sub(self.values);
        let taken = room.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(more)).is_ok();
        if taken {
            self.room = Some(room.clone());
            self.values += more;
        }
        taken
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Room(left)) = &self.room {
            left.fetch_add(self.values, Relaxed);
        }
    }
}

/// The parts of a snapshot so far.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    held: Held,
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
    pub(super) fn add(
        before: Option<Self>,
        part: v1::Snapshot,
        room: &Room,
    ) -> Result<Part, Status> {
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
        if part.last {
            return Ok(Part::Complete(all));
        }
        // Ids and values, each of which may come without the others.
        let waiting = all.samples.series.len() + all.removed.series.len();
        let waiting = waiting + all.samples.values.len() + all.removed.values.len();
        if !all.held.hold(room, waiting) {
            let message = "the snapshots of all streams wait for too many parts; try again later";
            return Err(Status::resource_exhausted(message));
        }
        Ok(Part::More(all))
    }

    /// How many series its parts name.
    pub(super) const fn series(&self) -> usize {
        self.samples.series.len() + self.removed.series.len()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn part(sequence: u64, part: u32, last: bool, values: usize) -> v1::Snapshot {
        let samples = v1::Samples { series: Vec::new(), values: vec![1.0; values] };
        v1::Snapshot { sequence, part, last, samples: Some(samples), ..v1::Snapshot::default() }
    }

    /// Each is within its own limit.
    #[test]
    fn snapshots_that_wait_for_parts_share_their_room() {
        let room = Room(Arc::new(AtomicUsize::new(100)));
        let waits = |before, values| match Assembly::add(before, part(1, 0, false, values), &room) {
            Ok(Part::More(assembly)) => Ok(assembly),
            Ok(other) => panic!("{other:?}"),
            Err(status) => Err(status.code()),
        };
        let (first, second) = (waits(None, 60).unwrap(), waits(None, 30).unwrap());
        assert_eq!(waits(None, 20).unwrap_err(), tonic::Code::ResourceExhausted);
        // One that comes whole needs none, and one that ends gives its back.
        let whole = Assembly::add(None, part(1, 0, true, 1_000), &room);
        assert!(matches!(whole, Ok(Part::Complete(_))));
        let complete = Assembly::add(Some(first), part(1, 1, true, 1_000), &room).unwrap();
        assert!(matches!(complete, Part::Complete(_)));
        assert_eq!(room.0.load(Relaxed), 10, "until it is applied");
        drop((complete, second));
        assert_eq!(room.0.load(Relaxed), 100);
    }
}
