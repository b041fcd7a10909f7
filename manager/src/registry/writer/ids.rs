//! What the ids of a stream mean, and which of them a frame names.

use super::Writer;
use crate::registry::{Reason, parts::PartId, shard::Shard, store::SeriesId};

/// What an id of the stream means. There is one for every series of the fleet, so it is small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defined {
    pub(super) target: Target,
    /// Values of a sample.
    width: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Series(SeriesId),
    /// A part of a merged series, by its place in [`Writer::parts`].
    Part(u32),
    /// Refused: its samples are counted and passed over.
    Rejected(Reason),
}

impl Defined {
    pub(super) const fn width(self) -> usize {
        self.width as usize
    }
}

impl Writer {
    /// The series that these ids stand for, alone or with others.
    pub(super) fn series_of(&self, ids: &[u32]) -> impl Iterator<Item = SeriesId> {
        ids.iter().filter_map(|id| match self.ids.get(*id as usize)?.target {
            Target::Series(id) => Some(id),
            Target::Part(place) => self.parts.get(place as usize).map(|(merged, _)| *merged),
            Target::Rejected(_) => None,
        })
    }

    /// The series that leave if these ids do: not those that stand for others too.
    pub(super) fn removed(&self, ids: &[u32]) -> impl Iterator<Item = SeriesId> {
        ids.iter().filter_map(|id| match self.ids.get(*id as usize)?.target {
            Target::Series(id) => Some(id),
            Target::Part(_) | Target::Rejected(_) => None,
        })
    }

    /// Parts that are gauges.
    pub(super) fn gauge_parts_of(
        &self,
        shard: &Shard,
        ids: &[u32],
    ) -> impl Iterator<Item = (u32, PartId)> {
        ids.iter().filter_map(|id| match self.ids.get(*id as usize)?.target {
            Target::Part(place) => {
                let (merged, part) = *self.parts.get(place as usize)?;
                let series = shard.store.get(merged)?;
                (series.kind.count_at(0).is_none()).then_some((merged.index() as u32, part))
            }
            Target::Series(_) | Target::Rejected(_) => None,
        })
    }

    pub(super) fn push(&mut self, target: Target, width: usize) {
        if self.ids.len() == self.ids.capacity() {
            // In smaller steps than a vector's own: there are many streams, and most define their series once.
            self.ids.reserve_exact(self.ids.len() / 8 + 16);
        }
        self.ids.push(Defined { target, width: width as u32 });
        self.named.resize(self.ids.len().div_ceil(64), 0);
    }

    /// Defines an id that stands for a part. Returns whether it is the first that does.
    pub(super) fn push_part(&mut self, merged: SeriesId, part: PartId, width: usize) -> bool {
        let is_new = self.taken_parts.insert(part);
        if is_new {
            self.parts.push((merged, part));
            self.push(Target::Part(self.parts.len() as u32 - 1), width);
        }
        is_new
    }

    /// Whether an id of the stream has taken this series.
    pub(super) fn has_taken(&self, id: SeriesId) -> bool {
        self.taken.get(id.index()).copied().unwrap_or(false)
    }

    pub(super) fn take(&mut self, id: SeriesId) {
        if self.taken.len() <= id.index() {
            self.taken.resize(id.index() + 1, false);
        }
        if let Some(taken) = self.taken.get_mut(id.index()) {
            *taken = true;
        }
    }

    /// Whether the frame in hand names a series that may tell how sessions with Discord's gateway go on.
    pub(super) fn names_sessions(&self) -> bool {
        let is_named = |id: &u32| {
            let bits = self.named.get(*id as usize / 64).copied().unwrap_or(0);
            bits & (1 << (id % 64)) != 0
        };
        self.sessions.iter().any(is_named)
    }

    /// Notes that the frame in hand names this id. Returns whether it did before.
    pub(super) fn name(&mut self, id: u32) -> bool {
        let bit = 1 << (id % 64);
        let Some(bits) = self.named.get_mut(id as usize / 64) else {
            return false;
        };
        std::mem::replace(bits, *bits | bit) & bit != 0
    }
}
