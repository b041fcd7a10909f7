//! A body that repeats the one before it with other values: nearly every one does, and then nothing has to be looked up.
//! Whatever is out of the ordinary about it is left to [`Registry::report`], where the rules are.

use std::{ops::RangeInclusive, time::Duration};

use super::{Applied, InstanceKey, News, Registry, Report, Scope, Shard, UnixTime, check, is_late};
use crate::registry::store::SeriesId;

/// Where the series of a body stand. It holds until another report of the sender is applied.
#[derive(Debug)]
pub struct Placement {
    /// In rising order of shard.
    parts: Vec<Part>,
}

/// What a body says of one shard.
#[derive(Debug)]
pub(super) struct Part {
    shard_id: u32,
    /// The sender's instance.
    ordinal: u64,
    /// Its reports applied, with this one.
    reports: u64,
    /// In the order of the body.
    series: Box<[SeriesId]>,
}

/// A value that is not as the body before had it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewValue {
    /// Its series: how many stand before it in the body, shard after shard.
    pub series: u32,
    /// Its place among the values of the series.
    pub at: u16,
    /// The value.
    pub value: f64,
}

/// What a body says that is not in its text.
#[derive(Debug, Clone)]
pub struct Repeat<'a> {
    /// Who reports.
    pub sender: &'a InstanceKey,
    /// The shards it may speak for.
    pub shards: RangeInclusive<u32>,
    /// As in [`Report`].
    pub sequence: Option<u64>,
    /// As in [`Report`].
    pub interval: Option<Duration>,
    /// What changed, in rising order of series.
    pub values: &'a [NewValue],
}

impl Placement {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        Self { parts }
    }

    /// How many series the body has of each shard, in order.
    pub fn series(&self) -> impl Iterator<Item = (u32, usize)> {
        self.parts.iter().map(|part| (part.shard_id, part.series.len()))
    }
}

impl Part {
    /// What instance `at` said just now.
    pub(super) fn new(shard: &Shard, at: usize, series: Box<[SeriesId]>) -> Option<Self> {
        let instance = shard.instances.get(at)?;
        let (ordinal, reports) = (instance.ordinal, instance.reports);
        Some(Self { shard_id: shard.id, ordinal, reports, series })
    }

    /// Where the instance is, if this is still what it said last.
    fn position(&self, shard: &Shard, sender: &InstanceKey) -> Option<usize> {
        let at = shard.position(sender)?;
        let instance = shard.instances.get(at)?;
        (instance.ordinal == self.ordinal && instance.reports == self.reports).then_some(at)
    }
}

impl Registry {
    /// Takes a body that differs from the one `placement` was made of in values alone, and becomes what [`Registry::report`]
    /// of all of it would. `None`: it is not as simple as that, and nothing was changed.
    pub fn repeat(
        &self,
        placement: &mut Placement,
        repeat: &Repeat<'_>,
        now: UnixTime,
    ) -> Option<Applied> {
        // A shard that the sender reported for since, and that this body does not name, would lose its gauges.
        let one = repeat.shards.start() == repeat.shards.end();
        let known = || self.shards_of(repeat.sender, *repeat.shards.start(), *repeat.shards.end());
        if !one && !known().into_iter().eq(placement.parts.iter().map(|part| part.shard_id)) {
            return None;
        }
        let shared: Vec<_> = placement.parts.iter().map(|part| self.shard(part.shard_id)).collect();
        // As in `report`: all at once, in order of id.
        let mut shards: Vec<_> = shared.iter().map(|shard| shard.lock()).collect();
        let (mut judged, mut before) = (Vec::with_capacity(shards.len()), 0);
        let mut rest = repeat.values;
        for (part, shard) in placement.parts.iter().zip(&mut shards) {
            let end = before + part.series.len() as u32;
            let (values, after) = rest.split_at(rest.partition_point(|new| new.series < end));
            judged.push(self.judge(part, shard, repeat, values, before, now)?);
            (rest, before) = (after, end);
        }
        let mut all = Applied { samples: 0, rejected: Vec::new(), durable: true };
        let parts = placement.parts.iter_mut().zip(&mut shards);
        for ((part, shard), (at, report, news)) in parts.zip(judged) {
            all.durable &= self.commit(shard, at, &report, news, now);
            all.samples += part.series.len();
            part.reports += 1;
        }
        Some(all)
    }

    /// What a body comes to in one shard, if it is a plain repetition there. The first of `values` are of series `first`.
    fn judge<'a>(
        &self,
        part: &Part,
        shard: &mut Shard,
        repeat: &Repeat<'_>,
        values: &[NewValue],
        first: u32,
        now: UnixTime,
    ) -> Option<(usize, Report<'a>, News)> {
        let at = part.position(shard, repeat.sender)?;
        let report = Report {
            shard_id: part.shard_id,
            sender: repeat.sender.clone(),
            sequence: repeat.sequence,
            // It stands in the text, and did not change.
            started_at: shard.instances.get(at)?.about.started_at,
            interval: repeat.interval,
            scope: Scope::Everything,
            families: &[],
        };
        self.check_sender(&report, shard, now).ok()?;
        let instance = shard.instances.get(at)?;
        if is_late(&report, instance) {
            return None;
        }
        let is_anonymous = *repeat.sender == InstanceKey::Anonymous;
        let mut news = News::default();
        for of_series in values.chunk_by(|a, b| a.series == b.series) {
            let place = of_series.first()?.series.checked_sub(first)?;
            let id = *part.series.get(place as usize)?;
            let series = shard.store.get(id)?;
            let begin = news.values.len();
            let slots = series.slot()..series.slot() + series.width();
            news.values.extend(slots.map(|slot| instance.reported(slot)));
            let now_reported = news.values.get_mut(begin..)?;
            for new in of_series {
                *now_reported.get_mut(usize::from(new.at))? = new.value;
            }
            check::check(series.kind, &series.bounds, None, now_reported).ok()?;
            let count = shard.count_of(id, now_reported).filter(|_| is_anonymous);
            if count.is_some_and(|count| shard.fell(at, id, count)) {
                return None;
            }
            if shard.has_reported(at, id, now_reported) {
                news.values.truncate(begin);
            } else {
                news.series.push(id.index() as u32);
            }
        }
        Some((at, report, news))
    }
}
