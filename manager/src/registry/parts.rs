//! Label sets of a sender that are no series of their own: they are **parts** of a **merged** series, which stands for many.
//! So it is with those over a limit (`overflow="true"`), and with those of which a rule drops labels.
//!
//! A sender says what each part counted since its instance began, so of each the last value is kept: what the merged series
//! counted grows by the difference. That costs a part some 30 bytes, and names of parts are not kept at all, but a hash.

use std::{borrow::Cow, collections::BTreeMap};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use super::{
    Family,
    change::PartValues,
    limits::MAX_PARTS_OF_SHARD,
    rules::Combine,
    shard::Shard,
    store::{Series, SeriesId},
};
use crate::model::Bounds;

/// Parts that are recorded at once.
const CHUNK: usize = 8_192;

/// A part's label set, in 64 bits. Two of a million collide once in forty million times.
///
/// It stays the same wherever the part is counted, and over restarts: part of the journal's format. A family that begins anew
/// has another id, and so have its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartId(u64);

impl PartId {
    /// The part with these labels, in canonical form.
    pub(super) fn of(family: &Family, labels: &str, bounds: &Bounds) -> Self {
        let mut hash = Xxh3Default::new();
        hash.update(&(family.id as u64).to_le_bytes());
        hash.update(&(labels.len() as u64).to_le_bytes());
        hash.update(labels.as_bytes());
        for bound in bounds.values() {
            hash.update(&bound.to_bits().to_le_bytes());
        }
        Self(hash.digest())
    }
}

/// What an instance said of parts.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Where the values of each begin, of those that count.
    counts: HashMap<PartId, u32>,
    /// Their values.
    values: Vec<f64>,
    /// Those that are gauges, by the index of the merged series.
    gauges: BTreeMap<(u32, PartId), f64>,
}

/// All of it, for a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PartsRecord {
    /// Where the values of each begin.
    pub counts: Vec<(PartId, u32)>,
    /// Their values.
    pub values: Vec<f64>,
    /// Index of the merged series, part, value.
    pub gauges: Vec<(u32, PartId, f64)>,
}

impl Parts {
    /// Values kept: what the memory that they take is measured by.
    pub(super) fn len(&self) -> usize {
        self.values.len() + self.gauges.len()
    }

    /// Whether anything was said of a part.
    fn knows(&self, (merged, part): (SeriesId, PartId)) -> bool {
        self.counts.contains_key(&part) || self.gauges.contains_key(&(merged.index() as u32, part))
    }

    /// What was said of a part that counts, which has `width` values.
    pub(super) fn counted(&self, part: PartId, width: usize) -> Option<&[f64]> {
        let at = *self.counts.get(&part)? as usize;
        self.values.get(at..at + width)
    }

    /// Takes what is said of a part that counts. In `more`, what it counted since; all of it, if nothing is known of it, or
    /// it `begins_anew` after what is known.
    pub(super) fn count(
        &mut self,
        part: PartId,
        values: &[f64],
        begins_anew: impl FnOnce(&[f64]) -> bool,
        more: &mut Vec<f64>,
    ) {
        more.clear();
        more.extend_from_slice(values);
        let next = self.values.len();
        let at = *self.counts.entry(part).or_insert(next as u32) as usize;
        match self.values.get_mut(at..at + values.len()) {
            Some(known) => {
                if !begins_anew(known) {
                    more.iter_mut().zip(&*known).for_each(|(more, before)| *more -= before);
                }
                known.copy_from_slice(values);
            }
            None if at == next => self.values.extend_from_slice(values),
            // Of another width: not the part that it seems to be, but by a collision.
            None => {}
        }
    }

    /// What was said of a part that is a gauge.
    pub(super) fn gauge(&self, merged: u32, part: PartId) -> Option<f64> {
        self.gauges.get(&(merged, part)).copied()
    }

    /// Takes what is said of a part that is a gauge; `None`: it left.
    pub(super) fn set_gauge(&mut self, merged: u32, part: PartId, value: Option<f64>) {
        match value {
            Some(value) => self.gauges.insert((merged, part), value),
            None => self.gauges.remove(&(merged, part)),
        };
    }

    /// All parts that are gauges, with the indices of their merged series.
    pub(super) fn gauges(&self) -> impl Iterator<Item = (u32, PartId)> {
        self.gauges.keys().copied()
    }

    /// The gauge that the parts of a merged series make.
    pub(super) fn combined(&self, merged: u32, combine: Combine) -> Option<f64> {
        let all = (merged, PartId(0))..=(merged, PartId(u64::MAX));
        combine.of(self.gauges.range(all).map(|(_, value)| *value))
    }

    /// What is said from now on comes on top of what was counted.
    pub(super) fn forget_counts(&mut self) {
        self.counts.clear();
        self.values.clear();
    }

    /// Merged series have other indices now; those without one are gone.
    pub(super) fn renumber(&mut self, renumbered: impl Fn(u32) -> Option<u32>) {
        let before = std::mem::take(&mut self.gauges).into_iter();
        self.gauges =
            before.filter_map(|((at, part), v)| Some(((renumbered(at)?, part), v))).collect();
    }

    pub(super) fn record(&self) -> PartsRecord {
        PartsRecord {
            counts: self.counts.iter().map(|(part, at)| (*part, *at)).collect(),
            values: self.values.clone(),
            gauges: self.gauges.iter().map(|((at, part), value)| (*at, *part, *value)).collect(),
        }
    }

    pub(super) fn restore(record: PartsRecord) -> Self {
        Self {
            counts: record.counts.into_iter().collect(),
            values: record.values,
            gauges: record.gauges.into_iter().map(|(at, part, v)| ((at, part), v)).collect(),
        }
    }
}

/// What is taken of a report's parts.
#[derive(Debug, Default)]
pub(super) struct AcceptedParts {
    merged: Vec<u32>,
    parts: Vec<PartId>,
    values: Vec<f64>,
    pub(super) left: Vec<(u32, PartId)>,
    /// Values of parts that nothing was said of before.
    new: usize,
}

impl AcceptedParts {
    /// Whether a part is known, or there is room for it. How much there is was looked at when it was defined, but others may
    /// have been reported since.
    pub(super) fn has_room(&mut self, shard: &Shard, at: usize, part: (SeriesId, PartId)) -> bool {
        if shard.instances.get(at).is_some_and(|instance| instance.parts.knows(part)) {
            return true;
        }
        self.new += shard.store.get(part.0).map_or(0, Series::width);
        shard.parts() + self.new <= MAX_PARTS_OF_SHARD
    }

    /// Takes the values of a part, if they are not what the instance said last. Of a summary, quantiles are left out.
    pub(super) fn take(
        &mut self,
        shard: &Shard,
        at: Option<usize>,
        (merged, part): (SeriesId, PartId),
        values: &[f64],
    ) {
        let width = shard.store.get(merged).map_or(0, Series::width);
        let values = values.get(values.len().saturating_sub(width)..).unwrap_or_default();
        if !at.is_some_and(|at| shard.has_reported_part(at, merged, part, values)) {
            self.merged.push(merged.index() as u32);
            self.parts.push(part);
            self.values.extend_from_slice(values);
        }
    }

    /// All of it, in chunks that are short to record; the last one apart. What left is in that.
    pub(super) fn in_chunks(&self, shard: &Shard) -> (Vec<PartValues<'_>>, PartValues<'_>) {
        let (mut chunks, mut at) = (Vec::new(), 0);
        let mut values = &self.values[..];
        while let (Some(merged), Some(parts)) =
            (self.merged.get(at..at + CHUNK), self.parts.get(at..at + CHUNK))
        {
            let width = |id: &u32| shard.store.get(SeriesId::new(*id)).map_or(0, Series::width);
            let (of_chunk, rest) = values.split_at(merged.iter().map(width).sum());
            values = rest;
            at += CHUNK;
            chunks.push(PartValues {
                merged: merged.into(),
                parts: parts.into(),
                values: of_chunk.into(),
                left: Cow::Borrowed(&[]),
            });
        }
        let last = PartValues {
            merged: self.merged.get(at..).unwrap_or_default().into(),
            parts: self.parts.get(at..).unwrap_or_default().into(),
            values: values.into(),
            left: (&self.left[..]).into(),
        };
        (chunks, last)
    }

    pub(super) fn into_values(self) -> PartValues<'static> {
        PartValues {
            merged: self.merged.into(),
            parts: self.parts.into(),
            values: self.values.into(),
            left: self.left.into(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.merged.clear();
        self.parts.clear();
        self.values.clear();
        self.left.clear();
        self.new = 0;
    }
}
