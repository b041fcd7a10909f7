//! What a shard may have at most, and the place of a series in it. What is over a limit is rejected by name; everything else
//! of the same frame or body is taken (design section 4, E6).

use std::sync::Arc;

use super::{Family, Reason, Registry, Rejected, UnixTime, shard::Shard, store::SeriesId};
use crate::model::{Bounds, LabelSet};

/// Sets of bounds one label set may be reported with, over all instances: a new version of a bot brings one more.
const MAX_BOUNDS_OF_SERIES: usize = 8;

/// Values (buckets, counts, sums) a shard may have: what keeps its columns, and the record of them, small.
const MAX_VALUES_OF_SHARD: usize = 100_000;

/// Bounds a series may have: far more than anybody can look at.
const MAX_BOUNDS: usize = 500;

/// Longest label set, bytes of its canonical text.
const MAX_LABELS_BYTES: usize = 4 << 10;

/// Longest name of a family, bytes: it stands on every line of every shard that has it.
const MAX_NAME_BYTES: usize = 512;

/// Text a shard may have on a page, about: a name and labels within their limits may still stand on many lines.
const MAX_TEXT_OF_SHARD: usize = 16 << 20;

/// Longest help text that is kept, bytes.
pub(super) const MAX_HELP_BYTES: usize = 4 << 10;

/// What of a name is said in an answer, bytes.
const SAID_OF_NAME: usize = 100;

impl Registry {
    /// The place of a series in a shard, made now if there is room for it.
    pub(super) fn place(
        &self,
        shard: &mut Shard,
        family: &Arc<Family>,
        labels: &LabelSet,
        bounds: Bounds,
        created: UnixTime,
    ) -> Result<SeriesId, Rejected> {
        if let Some(id) = shard.store.find(family, labels, &bounds) {
            return Ok(id);
        }
        if shard.store.has_alike(family, labels) {
            return Err(Rejected {
                family: family.name.clone(),
                reason: Reason::DuplicateSeries,
                message: format!(
                    "{labels:?} is the same as other labels of this family once label names are escaped; rename a label"
                ),
                series: 0,
            });
        }
        self.check_room(shard, family, labels, bounds.len())?;
        Ok(shard.store.add(family, labels, self.families.share(bounds), created))
    }

    /// Whether a shard can have one more series, of a family called `name`.
    pub(super) fn check_shard(&self, shard: &Shard, name: &str) -> Result<(), Rejected> {
        if name.len() > MAX_NAME_BYTES {
            let message = format!("a name of {} bytes; {MAX_NAME_BYTES} is the limit", name.len());
            let said = name.get(..name.floor_char_boundary(SAID_OF_NAME)).unwrap_or_default();
            return Err(over_limit(&format!("{said}…"), message));
        }
        if shard.store.len() < self.settings.max_series_per_shard {
            return Ok(());
        }
        Err(over_limit(
            name,
            format!("shard {} has {} series, its limit", shard.id, shard.store.len()),
        ))
    }

    fn check_room(
        &self,
        shard: &Shard,
        family: &Family,
        labels: &LabelSet,
        bounds: usize,
    ) -> Result<(), Rejected> {
        self.check_shard(shard, &family.name)?;
        if bounds > MAX_BOUNDS {
            let message = format!("{labels:?} has {bounds} bounds; {MAX_BOUNDS} is the limit");
            return Err(over_limit(&family.name, message));
        }
        if shard.store.slots() + family.kind.width(bounds) > MAX_VALUES_OF_SHARD {
            let message = format!(
                "shard {} would have over {MAX_VALUES_OF_SHARD} values in its buckets and series",
                shard.id
            );
            return Err(over_limit(&family.name, message));
        }
        let length = labels.as_str().len();
        if length > MAX_LABELS_BYTES {
            let message = format!("a label set of {length} bytes; {MAX_LABELS_BYTES} is the limit");
            return Err(over_limit(&family.name, message));
        }
        if shard.store.text_with(family, labels, bounds) > MAX_TEXT_OF_SHARD {
            let message = format!(
                "shard {} would have over {MAX_TEXT_OF_SHARD} bytes of names and labels on the page; shorten them",
                shard.id
            );
            return Err(over_limit(&family.name, message));
        }
        let of_family = shard.store.len_of(family);
        if of_family >= self.settings.max_series_per_family {
            let message =
                format!("shard {} has {of_family} series of this family, its limit", shard.id);
            return Err(over_limit(&family.name, message));
        }
        let sets = shard.store.first_of(family, labels).map_or(0, |(_, sets)| sets);
        if sets >= MAX_BOUNDS_OF_SERIES {
            let message = format!("{labels:?} was reported with {sets} sets of bounds, the limit");
            return Err(over_limit(&family.name, message));
        }
        Ok(())
    }
}

fn over_limit(family: &str, message: String) -> Rejected {
    Rejected { family: family.into(), reason: Reason::Limit, message, series: 0 }
}
