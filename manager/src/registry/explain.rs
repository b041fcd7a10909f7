//! Where a number on the page comes from: what ended instances counted, and what each living one says.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Family, InstanceStatus, Reason, Registry, SeriesId, ShardState, ShardView,
    instance::Instance,
    shard::Shard,
    store::Series,
    view::{add_counts, total},
};
use crate::{
    clock::UnixTime,
    model::{Bounds, MetricType, unescape},
};

/// Series explained at once.
pub const MAX_EXPLAINED: usize = 100;

/// Bytes that they take as messages, about: gRPC clients take four million, unless they are told otherwise.
const MAX_EXPLAINED_BYTES: usize = 3_000_000;

/// Series of a shard's family, and where their values come from.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The first [`MAX_EXPLAINED`] at most.
    pub series: Vec<Explained>,
    /// How many more there are.
    pub more: usize,
    /// Samples of the shard that were rejected, of whatever family, by reason.
    pub rejected: [(Reason, u64); Reason::COUNTED.len()],
}

/// One series, and where its values come from.
#[derive(Debug, Clone)]
pub struct Explained {
    /// Its family.
    pub family: Arc<Family>,
    /// Its labels without `shard_id`, in canonical form.
    pub labels: Box<str>,
    /// Its bounds or quantiles.
    pub bounds: Arc<Bounds>,
    /// Since when it is counted.
    pub created: UnixTime,
    /// Why the page does not show it, if it does not.
    pub hidden: Option<Hidden>,
    /// It stands for series over the limits.
    pub is_overflow: bool,
    /// Its values, laid out as its type says.
    pub values: Vec<ExplainedValue>,
    /// The instances that values are of.
    pub instances: Vec<InstanceStatus>,
}

/// One value of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedValue {
    /// What the page shows, if it does.
    pub shown: Option<f64>,
    /// What instances counted that ended.
    pub base: f64,
    /// What each of [`Explained::instances`] says.
    pub of_instances: Vec<f64>,
}

/// Why a series is not on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// No sample of it came since it was defined.
    NoSample,
    /// It is a gauge, and the instance whose it is has none.
    NoOwner,
    /// The same labels came with other bounds too, and all they count is shown with those.
    OtherBounds,
    /// A rule shows all shards together.
    AllShards,
}

/// Why nothing can be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotExplained {
    /// The shard never reported.
    #[error("shard {0} has never reported: see ListShards")]
    NoShard(u32),
    /// No shard has the family.
    #[error("no shard has a family {0:?}{hint}; names are as in TYPE lines of the page", hint = stem(.0))]
    NoFamily(String),
    /// Operators want none.
    #[error("a rule drops family {0:?}: see [[rules]] in the manager's --config")]
    Dropped(String),
    /// This shard does not.
    #[error(
        "shard {shard_id} has no {family:?}, which shard {first} reported first, as a {kind}; samples of this shard that were \
         not taken, by reason: {rejected}"
    )]
    NotOfShard {
        /// Which.
        shard_id: u32,
        /// The family's name.
        family: String,
        /// Who reported it first.
        first: u32,
        /// As what.
        kind: &'static str,
        /// Why it may be missing.
        rejected: String,
    },
    /// No series has these labels.
    #[error(
        "shard {shard_id} has {series} series of {family:?}, none with all these labels; one has {{{example}}}{rule}"
    )]
    NoSeries {
        /// Which.
        shard_id: u32,
        /// The family's name.
        family: String,
        /// How many it has.
        series: usize,
        /// The labels of one.
        example: String,
        /// What a rule does with the family.
        rule: String,
    },
}

impl Explained {
    /// What it takes as a message, about.
    fn bytes(&self) -> usize {
        let instances = self.instances.iter().map(|i| 100 + i.client.len());
        let values = self.values.len() * (50 + 8 * self.instances.len());
        self.labels.len() + instances.sum::<usize>() + values
    }
}

/// A histogram's samples are asked for by the family's name.
fn stem(name: &str) -> String {
    let stem = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
    stem.map(|stem| format!(" (is it {stem:?}?)")).unwrap_or_default()
}

impl Registry {
    /// Explains the series of a shard's family whose labels have all of `labels`.
    ///
    /// # Errors
    /// If there is none.
    pub fn explain(
        &self,
        shard_id: u32,
        family: &str,
        labels: &BTreeMap<String, String>,
        now: UnixTime,
    ) -> Result<Explanation, NotExplained> {
        let shared = self.shards.read().get(&shard_id).map(Arc::clone);
        let shared = shared.ok_or(NotExplained::NoShard(shard_id))?;
        let mut shard = shared.peek();
        shard.settle(now, self.settings.stale_after);
        let view = ShardView::new(&shard);
        let status = view.status(now, self.settings.stale_after);
        if status.state == ShardState::NeverSeen {
            return Err(NotExplained::NoShard(shard_id));
        }
        // One that gave its name to another is still there.
        let is_it = |of: &Family| *of.name == *family && !of.gave_way();
        let Some(block) = shard.store.blocks().iter().find(|block| is_it(&block.family)) else {
            return Err(self.not_of_shard(shard_id, family, &status.rejected));
        };
        let has_all = |id: &&SeriesId| shard.has_all(**id, labels);
        let found: Vec<_> = block.series.iter().filter(has_all).copied().collect();
        if found.is_empty() {
            let example = block.series.first().and_then(|id| shard.store.get(*id));
            let rule = block.family.treatment.to_string();
            let rule = if rule.is_empty() { rule } else { format!("; by a rule: {rule}") };
            return Err(NotExplained::NoSeries {
                shard_id,
                family: family.to_owned(),
                series: block.series.len(),
                example: example.map_or_else(String::new, |s| shard.store.labels(s).to_owned()),
                rule,
            });
        }
        let (mut explained, mut bytes) = (Vec::new(), 0);
        let some = found.iter().take(MAX_EXPLAINED);
        for series in some.filter_map(|id| shard.explain(&block.family, *id, &status.instances)) {
            bytes += series.bytes();
            if bytes > MAX_EXPLAINED_BYTES && !explained.is_empty() {
                break;
            }
            explained.push(series);
        }
        let more = found.len() - explained.len();
        Ok(Explanation { series: explained, more, rejected: status.rejected })
    }

    fn not_of_shard(
        &self,
        shard_id: u32,
        family: &str,
        rejected: &[(Reason, u64)],
    ) -> NotExplained {
        let is_it = |of: &Arc<Family>| *of.name == *family && !of.gave_way();
        let Some(known) = self.families.all().into_iter().find(is_it) else {
            let said = if self.families.is_dropped(family) {
                NotExplained::Dropped
            } else {
                NotExplained::NoFamily
            };
            return said(family.to_owned());
        };
        let some = rejected.iter().filter(|(_, n)| *n > 0);
        let some: Vec<_> = some.map(|(reason, n)| format!("{} {n}", reason.as_str())).collect();
        let rejected = if some.is_empty() { "none".to_owned() } else { some.join(", ") };
        let (first, kind) = (known.first, known.kind.as_str());
        NotExplained::NotOfShard { shard_id, family: family.to_owned(), first, kind, rejected }
    }
}

impl Shard {
    fn has_all(&self, id: SeriesId, labels: &BTreeMap<String, String>) -> bool {
        let Some(series) = self.store.get(id) else { return false };
        let of_series = self.store.labels(series);
        let has =
            |name: &str, value: &str| unescape(of_series).any(|(n, v)| n == name && v == value);
        labels.iter().all(|(name, value)| has(name, value))
    }

    /// `statuses` are those of its instances, in order.
    fn explain(
        &self,
        family: &Arc<Family>,
        id: SeriesId,
        statuses: &[InstanceStatus],
    ) -> Option<Explained> {
        let series = self.store.get(id)?;
        let hidden = self.why_hidden(id);
        // What the same labels count in other bounds is shown with it.
        let alike = if hidden.is_none() { self.store.alike(&id) } else { &[id] };
        let with = self.instances.iter().zip(statuses);
        let with: Vec<_> = with.filter(|(instance, _)| self.counts_in(instance, alike)).collect();
        let base = self.added(series, alike, |slot| total(&self.base, &[], slot));
        let of_instances: Vec<_> = with
            .iter()
            .map(|(instance, _)| self.added(series, alike, |slot| instance.value(slot)))
            .collect();
        let owned = series.kind.owned(series.bounds.len());
        let is_shown = |at: usize| hidden.is_none() && (at >= owned || series.owned);
        let shown = |at: usize| self.exposed.get(series.slot() + at).copied();
        let value = |(at, base): (usize, f64)| ExplainedValue {
            shown: is_shown(at).then(|| shown(at)).flatten(),
            base,
            of_instances: of_instances.iter().filter_map(|of| of.get(at)).copied().collect(),
        };
        Some(Explained {
            family: Arc::clone(family),
            labels: self.store.labels(series).into(),
            bounds: Arc::clone(&series.bounds),
            created: series.created(),
            hidden,
            is_overflow: self.store.overflow_of(family).contains(&id),
            values: base.into_iter().enumerate().map(value).collect(),
            instances: with.into_iter().map(|(_, status)| status.clone()).collect(),
        })
    }

    /// Whether some of what is shown of these series is an instance's: counts stay after the series has left its registry.
    fn counts_in(&self, instance: &Instance, alike: &[SeriesId]) -> bool {
        let mut series = alike.iter().filter_map(|id| Some((*id, self.store.get(*id)?)));
        series.any(|(id, series)| match series.kind {
            MetricType::Gauge | MetricType::Untyped => instance.has(id),
            _ => instance.ever_had(id, series.slot(), series.width()),
        })
    }

    /// What `value` has of a series, with what it has of those like it in the bounds of this one.
    fn added(&self, series: &Series, alike: &[SeriesId], value: impl Fn(usize) -> f64) -> Vec<f64> {
        let values = |of: &Series| (of.slot()..of.slot() + of.width()).map(&value).collect();
        let mut sum: Vec<f64> = values(series);
        let others = alike.iter().filter_map(|id| self.store.get(*id));
        for other in others.filter(|other| other.slot() != series.slot()) {
            let of_other: Vec<f64> = values(other);
            add_counts(series.kind, (&series.bounds, &mut sum), (&other.bounds, &of_other));
        }
        sum
    }

    fn why_hidden(&self, id: SeriesId) -> Option<Hidden> {
        let series = self.store.get(id)?;
        if self.store.group(id).is_some_and(|(shown, _)| shown != id) {
            return Some(Hidden::OtherBounds);
        }
        if self.store.family_of(series).is_some_and(|family| family.treatment.collapse_shards) {
            return Some(Hidden::AllShards);
        }
        match series.kind {
            MetricType::Gauge | MetricType::Untyped => (!series.owned).then_some(Hidden::NoOwner),
            _ => (!series.counted).then_some(Hidden::NoSample),
        }
    }
}
