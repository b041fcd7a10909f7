//! The exemplars of a shard: the latest of each counter and bucket. They are examples, not counts, so they are not kept over
//! a restart, and a shard has a fixed number of them.

use hashbrown::HashMap;

use super::{Reason, Rejected, UnixTime, shard::Shard, store::SeriesId};
use crate::model::{Exemplar, ExemplarError, MetricType};

/// Exemplars a shard may have.
pub(super) const MAX_EXEMPLARS: usize = 1_000;

/// An exemplar as a sender says it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportedExemplar {
    /// What it is an example of: the place of a bucket's bound, the number of bounds for the `+Inf` bucket, 0 for a counter.
    pub bucket: u32,
    /// What it says, or why it is not taken.
    pub exemplar: Result<Exemplar, ExemplarError>,
}

/// By series; those of one in order of bucket. All have a time.
#[derive(Debug, Default)]
pub(super) struct Exemplars {
    of_series: HashMap<SeriesId, Vec<(u32, Exemplar)>>,
    len: usize,
}

impl Exemplars {
    /// Those of a series, with their buckets.
    pub(super) fn of(&self, id: SeriesId) -> &[(u32, Exemplar)] {
        // Most shards have none, and this is asked for every series.
        if self.len == 0 {
            return &[];
        }
        self.of_series.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Series have other places now; of those without one, exemplars go.
    pub(super) fn renumber(&mut self, place: impl Fn(SeriesId) -> Option<SeriesId>) {
        let before = std::mem::take(&mut self.of_series).into_iter();
        self.of_series = before.filter_map(|(id, of)| Some((place(id)?, of))).collect();
        self.len = self.of_series.values().map(Vec::len).sum();
    }

    /// Takes an exemplar that is later than the known one. Returns whether it changed anything; `None`: there is no room.
    fn take(&mut self, id: SeriesId, bucket: u32, said: &Exemplar, now: UnixTime) -> Option<bool> {
        let new = Exemplar { at: said.at.or(Some(now)), ..said.clone() };
        let place = self.of(id).binary_search_by_key(&bucket, |(bucket, _)| *bucket);
        match place {
            Ok(at) => {
                let known = self.of_series.get_mut(&id).and_then(|known| known.get_mut(at));
                Some(known.is_some_and(|(_, known)| replace(known, new, said.at.is_some(), now)))
            }
            Err(_) if self.len >= MAX_EXEMPLARS => None,
            Err(at) => {
                self.of_series.entry(id).or_default().insert(at, (bucket, new));
                self.len += 1;
                Some(true)
            }
        }
    }
}

/// Puts `new` in place of what is known, unless that is later or the same.
fn replace(known: &mut Exemplar, new: Exemplar, has_time: bool, now: UnixTime) -> bool {
    let is_same = known.labels == new.labels && known.value.to_bits() == new.value.to_bits();
    // Without a time, the one it was first seen with stays: else every report would make another exemplar of it.
    if is_same && (!has_time || known.at == new.at) {
        return false;
    }
    // Of two living senders the older must not take turns with the newer; but what is said of the future blocks nobody.
    if new.at < known.at && known.at <= Some(now) {
        return false;
    }
    *known = new;
    true
}

/// Whether a series of `kind` with `bounds` bounds can have an exemplar there.
pub(super) const fn has_bucket(kind: MetricType, bounds: usize, bucket: u32) -> bool {
    match kind {
        MetricType::Counter => bucket == 0,
        MetricType::Histogram => bucket as usize <= bounds,
        MetricType::Gauge | MetricType::Summary | MetricType::Untyped => false,
    }
}

impl Shard {
    /// Takes an exemplar of a series whose sample was taken.
    pub(super) fn exemplify(
        &mut self,
        id: SeriesId,
        reported: &ReportedExemplar,
        now: UnixTime,
    ) -> Result<(), Rejected> {
        let Some(series) = self.store.get(id).filter(|series| series.counted) else {
            return Ok(()); // of nothing that is exposed
        };
        let family = self.store.family_of(series).map_or("", |family| &family.name);
        let refused = |why: &dyn std::fmt::Display| Rejected {
            family: family.into(),
            reason: Reason::Limit,
            message: format!("an exemplar was not taken, its sample was: {why}"),
            series: 0,
        };
        let exemplar = reported.exemplar.as_ref().map_err(|e| refused(e))?;
        match self.exemplars.take(id, reported.bucket, exemplar, now) {
            Some(true) => self.store.touch(id),
            Some(false) => {}
            None => {
                let limit =
                    format_args!("shard {} has {MAX_EXEMPLARS} exemplars, its limit", self.id);
                return Err(refused(&limit));
            }
        }
        Ok(())
    }
}
