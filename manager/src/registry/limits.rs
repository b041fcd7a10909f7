//! What a shard may have at most, and the place of a series in it. What is over a limit is rejected by name; everything else
//! of the same frame or body is taken (design section 4, E6).

use std::{borrow::Cow, sync::Arc};

use super::{
    Family, Reason, Registry, Rejected, Settings, UnixTime,
    parts::PartId,
    shard::Shard,
    store::{OVERFLOW, SeriesId, is_overflow},
};
use crate::model::{Bounds, FamilyHead, LabelSet, MetricType};

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

/// Series of a shard that stand for those over a limit: one for each family and set of bounds.
const MAX_OVERFLOW_OF_SHARD: usize = 1_000;

/// Most labels of a series.
const MAX_LABELS: usize = 64;

/// Values of parts of merged series that a shard may have, over all its instances.
pub(super) const MAX_PARTS_OF_SHARD: usize = 1 << 20;

/// The same of the whole fleet.
pub(super) const MAX_PARTS: usize = 1 << 23;

/// Ids that a stream may define however many others have.
pub(super) const IDS_ALWAYS: usize = 20_000;

/// Ids that all streams may have together, beyond which none may have more than [`IDS_ALWAYS`]. One takes about 12 bytes, or
/// 50 where it is a part of a merged series.
pub(super) const MAX_IDS: usize = 1 << 24;

/// Where a sender's label set is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// As a series of its own.
    Series(SeriesId),
    /// As a part of a merged series.
    Part {
        /// The merged series.
        merged: SeriesId,
        /// Which part.
        part: PartId,
        /// There was no room for it.
        is_over: bool,
    },
}

/// Who asks for a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    /// Its instance's place in the shard, if that has joined.
    pub(super) at: Option<usize>,
    /// When it began to count.
    pub(super) started_at: UnixTime,
}

impl Registry {
    /// The place of a label set in a shard, made now if there is room for it. What is over a limit on numbers becomes part of
    /// the family's `overflow="true"`, if it counts.
    pub(super) fn place(
        &self,
        shard: &mut Shard,
        sender: Sender,
        family: &Arc<Family>,
        labels: &LabelSet,
        bounds: &Bounds,
    ) -> Result<Place, Rejected> {
        let is_part = family.treatment.merges();
        let kept = if is_part { &labels.without(&family.treatment.drop_labels) } else { labels };
        if is_overflow(family, kept) {
            // Who names the labels that stand for what is over a limit adds to it, as others do.
            return self.place_in_overflow(shard, sender, family, labels, bounds, false);
        }
        let kept_bounds =
            if is_part { merged_bounds(family.kind, bounds) } else { Cow::Borrowed(bounds) };
        let place = |id: SeriesId| {
            if !is_part {
                return Place::Series(id);
            }
            let part = PartId::of(family, labels.as_str(), &kept_bounds);
            Place::Part { merged: id, part, is_over: false }
        };
        let known = shard.store.find(family, kept, &kept_bounds);
        let overflowed = shard.has_overflowed(sender.at, family);
        if let Some(id) = known.filter(|id| !overflowed || shard.ever_had(sender.at, *id)) {
            self.check_parts(shard, family, is_part)?;
            return Ok(place(id));
        }
        if known.is_none() {
            check_series(shard, family, kept, kept_bounds.len())?;
        }
        match self.check_room(shard, family, kept, kept_bounds.len()) {
            Ok(()) if !overflowed => {
                self.check_parts(shard, family, is_part)?;
                let bounds = self.families.share(kept_bounds.clone().into_owned());
                let created = family.created(sender.started_at);
                Ok(place(shard.store.add(family, kept, bounds, created)))
            }
            // A gauge without its label set says nothing.
            Err(over) if !family.counts() => Err(over),
            _ => self.place_in_overflow(shard, sender, family, labels, bounds, true),
        }
    }

    /// The place of a label set as a part of the family's overflow.
    fn place_in_overflow(
        &self,
        shard: &mut Shard,
        sender: Sender,
        family: &Arc<Family>,
        labels: &LabelSet,
        bounds: &Bounds,
        is_over: bool,
    ) -> Result<Place, Rejected> {
        self.check_parts(shard, family, true)?;
        let bounds = merged_bounds(family.kind, bounds);
        let part = PartId::of(family, labels.as_str(), &bounds);
        let merged = self.overflow(shard, sender, family, &bounds)?;
        Ok(Place::Part { merged, part, is_over })
    }

    /// The series that stands for those of the family that are over a limit.
    fn overflow(
        &self,
        shard: &mut Shard,
        sender: Sender,
        family: &Arc<Family>,
        bounds: &Bounds,
    ) -> Result<SeriesId, Rejected> {
        let labels = LabelSet::restore(OVERFLOW);
        if let Some(id) = shard.store.find(family, &labels, bounds) {
            return Ok(id);
        }
        check_series(shard, family, &labels, bounds.len())?;
        let slots = shard.store.slots() + family.kind.width(bounds.len());
        if shard.store.overflowing() >= MAX_OVERFLOW_OF_SHARD || slots > 2 * MAX_VALUES_OF_SHARD {
            let message = format!(
                "shard {} has no room for more series, nor for another overflow=\"true\"",
                shard.id
            );
            return Err(over_limit(&family.name, message));
        }
        let created = family.created(sender.started_at);
        Ok(shard.store.add(family, &labels, self.families.share(bounds.clone()), created))
    }

    /// Whether there is room for more parts, if the label set is one.
    fn check_parts(&self, shard: &Shard, family: &Family, is_part: bool) -> Result<(), Rejected> {
        if !is_part || (shard.parts() < MAX_PARTS_OF_SHARD && !self.is_full_of_parts()) {
            return Ok(());
        }
        let message = format!(
            "shard {} has {} values of label sets that are counted together; {MAX_PARTS_OF_SHARD} are its limit, and \
             {MAX_PARTS} the fleet's",
            shard.id,
            shard.parts()
        );
        Err(over_limit(&family.name, message))
    }

    /// Whether a family can be made for a shard.
    pub(super) fn check_family(&self, shard: &Shard, head: FamilyHead<'_>) -> Result<(), Rejected> {
        let name = head.name;
        if name.len() > MAX_NAME_BYTES {
            let message = format!("a name of {} bytes; {MAX_NAME_BYTES} is the limit", name.len());
            let said = name.get(..name.floor_char_boundary(SAID_OF_NAME)).unwrap_or_default();
            return Err(over_limit(&format!("{said}…"), message));
        }
        // Gauges over the limit are refused; counts have their overflow.
        let limit = match head.kind.count_at(0) {
            None => self.settings.max_series_per_shard,
            Some(_) => self.settings.max_series_per_shard + MAX_OVERFLOW_OF_SHARD,
        };
        if shard.store.len() < limit {
            return Ok(());
        }
        Err(over_limit(name, is_full(shard)))
    }

    /// Whether a shard can have one more series: only numbers are judged, which grow with time.
    fn check_room(
        &self,
        shard: &Shard,
        family: &Family,
        labels: &LabelSet,
        bounds: usize,
    ) -> Result<(), Rejected> {
        if self.short(shard, 1) > 0 {
            return Err(over_limit(&family.name, is_full(shard)));
        }
        if self.short_of(shard, family, 1) > 0 {
            let of_family = shard.store.len_of(family);
            let message =
                format!("shard {} has {of_family} series of this family, its limit", shard.id);
            return Err(over_limit(&family.name, message));
        }
        if shard.store.slots() + family.kind.width(bounds) > MAX_VALUES_OF_SHARD {
            let message = format!(
                "shard {} would have over {MAX_VALUES_OF_SHARD} values in its buckets and series",
                shard.id
            );
            return Err(over_limit(&family.name, message));
        }
        if shard.store.text_with(family, labels, bounds) > MAX_TEXT_OF_SHARD {
            let message = format!(
                "shard {} would have over {MAX_TEXT_OF_SHARD} bytes of names and labels on the page; shorten them",
                shard.id
            );
            return Err(over_limit(&family.name, message));
        }
        Ok(())
    }

    /// Whether a shard can have so many more series whatever their families are.
    pub(super) fn has_room(&self, shard: &Shard, new: usize) -> bool {
        let Settings { max_series_per_family, max_series_per_shard, .. } = self.settings;
        shard.store.len() + new <= max_series_per_family.min(max_series_per_shard)
    }

    /// By how many series a shard would be over its limit with `new` more. Those that stand for others are not counted.
    pub(super) fn short(&self, shard: &Shard, new: usize) -> usize {
        let series = shard.store.len() - shard.store.overflowing();
        (series + new).saturating_sub(self.settings.max_series_per_shard)
    }

    /// The same of one family.
    pub(super) fn short_of(&self, shard: &Shard, family: &Family, new: usize) -> usize {
        let series = shard.store.len_of(family) - shard.store.overflow_of(family).len();
        (series + new).saturating_sub(self.settings.max_series_per_family)
    }
}

impl Shard {
    /// Whether the instance counts some label sets of a family in its overflow. Then all that are new to it go there until it
    /// ends, however much room there is: else what a label set counted would be exposed twice.
    pub(super) fn has_overflowed(&self, at: Option<usize>, family: &Family) -> bool {
        self.store.overflow_of(family).iter().any(|id| self.ever_had(at, *id))
    }

    /// Whether the instance ever counted anything in a series.
    fn ever_had(&self, at: Option<usize>, id: SeriesId) -> bool {
        let instance = at.and_then(|at| self.instances.get(at));
        let series = self.store.get(id);
        instance
            .zip(series)
            .is_some_and(|(i, series)| i.ever_had(id, series.slot(), series.width()))
    }
}

/// Whether a series of this family can be, whatever others there are.
fn check_series(
    shard: &Shard,
    family: &Family,
    labels: &LabelSet,
    bounds: usize,
) -> Result<(), Rejected> {
    let refuse = |message| Err(over_limit(&family.name, message));
    let length = labels.as_str().len();
    if length > MAX_LABELS_BYTES {
        return refuse(format!("a label set of {length} bytes; {MAX_LABELS_BYTES} is the limit"));
    }
    let count = labels.count();
    if count > MAX_LABELS {
        return refuse(format!("{labels:?} has {count} labels; {MAX_LABELS} is the limit"));
    }
    if bounds > MAX_BOUNDS {
        return refuse(format!("{labels:?} has {bounds} bounds; {MAX_BOUNDS} is the limit"));
    }
    let sets = shard.store.first_of(family, labels).map_or(0, |(_, sets)| sets);
    if sets >= MAX_BOUNDS_OF_SERIES {
        return refuse(format!("{labels:?} was reported with {sets} sets of bounds, the limit"));
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
    Ok(())
}

/// The bounds of a series that is merged from others: quantiles cannot be.
pub(super) fn merged_bounds(kind: MetricType, bounds: &Bounds) -> Cow<'_, Bounds> {
    if kind == MetricType::Summary { Cow::Owned(Bounds::none()) } else { Cow::Borrowed(bounds) }
}

fn is_full(shard: &Shard) -> String {
    format!("shard {} has {} series, its limit", shard.id, shard.store.len())
}

/// Says that what is over a limit is counted all the same.
pub(super) fn overflowed(family: &Family) -> Rejected {
    Rejected {
        family: family.name.clone(),
        reason: Reason::Overflow,
        message: "its shard has no room for more series (of this family, or in all): they are counted together, in the \
                  series overflow=\"true\""
            .to_owned(),
        series: 0,
    }
}

fn over_limit(family: &str, message: String) -> Rejected {
    Rejected { family: family.into(), reason: Reason::Limit, message, series: 0 }
}
