//! Families and series in the making: what all formats of a body have in common.

use std::collections::BTreeMap;

use hashbrown::{HashMap, hash_map::Entry};

use super::{Group, ShardIds, ValueAt};
use crate::{
    model::{Bounds, BoundsError, Exemplar, ExemplarError, LabelError, LabelSet, MetricType},
    registry::{BodyPlace, ReportedExemplar, ReportedFamily, ReportedSeries},
};

/// What is well-formed, but does not make metrics.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{place}: {name}: {problem}")]
pub struct AssembleError {
    /// Where.
    pub place: BodyPlace,
    /// The metric in question.
    pub name: String,
    /// What is wrong.
    pub problem: AssembleProblem,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AssembleProblem {
    /// A second HELP or TYPE.
    #[error("a second {0} line")]
    Again(&'static str),
    /// A second message of a family.
    #[error("the family is already there")]
    FamilyAgain,
    /// TYPE comes before the samples.
    #[error("TYPE after the first sample")]
    LateType,
    /// A bad label set.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// A bucket without `le`, or a quantile without `quantile`.
    #[error("a sample of a {} without label {label}", kind.as_str())]
    NoBound {
        /// The family's type.
        kind: MetricType,
        /// The label it needs.
        label: &'static str,
    },
    /// A bound that is no number, or a quantile that is none from 0 to 1.
    #[error("{label}={text:?} is no {}", if *label == "le" { "number" } else { "number from 0 to 1" })]
    Bound {
        /// `le` or `quantile`.
        label: &'static str,
        /// What it says.
        text: String,
    },
    /// Bounds that do not fit together.
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    /// Samples that get the name of another family.
    #[error("its samples are called {0}, and another family is too")]
    Taken(String),
    /// An exemplar of something that has none.
    #[error("an exemplar; only counters and buckets of histograms have some")]
    Exemplar,
    /// A sample name that a family of this type does not have.
    #[error("a {} has no sample of this name", .0.as_str())]
    SampleName(MetricType),
    /// The same sample twice.
    #[error("this sample is already there; its series begins at {0}")]
    Twice(BodyPlace),
    /// A part that must be there.
    #[error("a {} without {part}", kind.as_str())]
    Missing {
        /// The family's type.
        kind: MetricType,
        /// What is missing.
        part: &'static str,
    },
    /// The bucket of all does not hold all.
    #[error("the +Inf bucket holds {inf}, but _count is {count}")]
    InfIsNotCount {
        /// The bucket's count.
        inf: f64,
        /// The histogram's.
        count: f64,
    },
}

/// The families of a body.
pub(super) struct Drafts<'a> {
    ids: ShardIds,
    /// Whose labels every series has.
    group: Option<&'a Group>,
    families: Vec<Draft>,
    /// A family may have two names.
    by_name: HashMap<String, usize>,
}

/// A family in the making.
pub(super) struct Draft {
    /// As text format 0.0.4 has it; where OpenMetrics has another, it is found under both.
    pub(super) name: String,
    pub(super) kind: Option<MetricType>,
    pub(super) help: Option<String>,
    pub(super) unit: Option<String>,
    pub(super) series: Vec<DraftSeries>,
    by_labels: HashMap<(u32, LabelSet), usize>,
}

/// A series in the making: its samples.
pub(super) struct DraftSeries {
    shard_id: u32,
    labels: LabelSet,
    pub(super) place: BodyPlace,
    pub(super) bounded: Vec<(f64, Value)>,
    pub(super) count: Option<Value>,
    pub(super) sum: Option<Value>,
    pub(super) plain: Option<Value>,
    /// By bound, of a counter under 0.
    pub(super) exemplars: Vec<(f64, Result<Exemplar, ExemplarError>)>,
}

/// A value, and the number of the sample that it is of.
#[derive(Clone, Copy)]
pub(super) struct Value {
    pub(super) number: f64,
    pub(super) sample: usize,
}

impl<'a> Drafts<'a> {
    pub(super) fn new(ids: ShardIds, group: Option<&'a Group>) -> Self {
        Self { ids, group, families: Vec::new(), by_name: HashMap::new() }
    }

    /// The family of this name, which it may be the first to hear of.
    #[expect(clippy::indexing_slicing, reason = "what has a name is there, and stays")]
    pub(super) fn named(&mut self, name: &str) -> &mut Draft {
        let next = self.families.len();
        let at = *self.by_name.entry_ref(name).or_insert(next);
        if at == next {
            self.families.push(Draft {
                name: name.to_owned(),
                kind: None,
                help: None,
                unit: None,
                series: Vec::new(),
                by_labels: HashMap::new(),
            });
        }
        &mut self.families[at]
    }

    /// The family of this name, if there is one.
    pub(super) fn find(&self, name: &str) -> Option<&Draft> {
        self.families.get(*self.by_name.get(name)?)
    }

    /// From now on the family `name` has the name of its samples.
    pub(super) fn rename(&mut self, name: &str, samples: String) -> Result<(), AssembleProblem> {
        let Some(at) = self.by_name.get(name).copied() else { return Ok(()) };
        if self.by_name.contains_key(&samples) {
            return Err(AssembleProblem::Taken(samples));
        }
        if let Some(family) = self.families.get_mut(at) {
            family.name.clone_from(&samples);
        }
        self.by_name.insert(samples, at);
        Ok(())
    }

    /// The shard and the labels of a series that has these in the body.
    pub(super) fn identify<'l>(
        &'l self,
        labels: impl Iterator<Item = (&'l str, &'l str)> + Clone,
        bound_label: Option<&str>,
    ) -> Result<(u32, LabelSet), LabelError> {
        let shard_id = labels
            .clone()
            .filter(|(name, _)| *name == "shard_id")
            .find_map(|(_, value)| value.parse().ok().filter(|id| self.ids.contains(*id)))
            .unwrap_or(self.ids.lowest());
        let Some(group) = self.group else {
            return LabelSet::canonical(labels, shard_id, bound_label).map(|set| (shard_id, set));
        };
        let own = labels.filter(|(name, _)| !group.has(name));
        let all = own.chain(group.labels());
        LabelSet::canonical(all, shard_id, bound_label).map(|set| (shard_id, set))
    }

    /// The families of each shard, where all their values are; says so of each of `values`. A shard of which nothing is said
    /// is left out, but for the lowest.
    pub(super) fn finish(
        self,
        values: &mut [ValueAt],
    ) -> Result<BTreeMap<u32, Vec<ReportedFamily>>, AssembleError> {
        let mut shards: BTreeMap<u32, Vec<ReportedFamily>> = BTreeMap::new();
        shards.entry(self.ids.lowest()).or_default();
        // How many series each shard has yet.
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for draft in self.families {
            let kind = draft.kind.unwrap_or(MetricType::Untyped);
            let (name, help) = (&draft.name, draft.help.unwrap_or_default());
            let unit = draft.unit.unwrap_or_default();
            for series in draft.series {
                let (shard_id, place) = (series.shard_id, series.place);
                let count = counts.entry(shard_id).or_default();
                let found = |value: Value, at: usize| {
                    if let Some(value) = values.get_mut(value.sample) {
                        value.place(shard_id, *count, at);
                    }
                };
                let at = |problem| AssembleError { place, name: name.to_owned(), problem };
                let series = series.finish(kind, found).map_err(at)?;
                *count += 1;
                let families = shards.entry(shard_id).or_default();
                match families.last_mut().filter(|f| f.name == *name) {
                    Some(family) => family.series.push(series),
                    None => families.push(ReportedFamily {
                        name: name.to_owned(),
                        kind,
                        help: help.clone(),
                        unit: unit.clone(),
                        series: vec![series],
                    }),
                }
            }
        }
        Ok(shards)
    }
}

impl Draft {
    /// The series of a shard with these labels, which begins at `place` if it is new.
    #[expect(clippy::indexing_slicing, reason = "what has labels is there, and stays")]
    pub(super) fn series(
        &mut self,
        shard_id: u32,
        labels: LabelSet,
        place: BodyPlace,
    ) -> &mut DraftSeries {
        let at = match self.by_labels.entry((shard_id, labels)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let labels = new.key().1.clone();
                new.insert(self.series.len());
                self.series.push(DraftSeries {
                    shard_id,
                    labels,
                    place,
                    bounded: Vec::new(),
                    count: None,
                    sum: None,
                    plain: None,
                    exemplars: Vec::new(),
                });
                self.series.len() - 1
            }
        };
        &mut self.series[at]
    }

    /// The series, unless it is already there.
    pub(super) fn new_series(
        &mut self,
        shard_id: u32,
        labels: LabelSet,
        place: BodyPlace,
    ) -> Result<&mut DraftSeries, AssembleProblem> {
        let series = self.series(shard_id, labels, place);
        let is_new = series.plain.is_none() && series.count.is_none();
        if is_new { Ok(series) } else { Err(AssembleProblem::Twice(series.place)) }
    }
}

impl DraftSeries {
    /// The series. Says of each value where it is among them.
    fn finish(
        mut self,
        kind: MetricType,
        mut found: impl FnMut(Value, usize),
    ) -> Result<ReportedSeries, AssembleProblem> {
        let missing = |part| AssembleProblem::Missing { kind, part };
        if let Some(value) = self.plain {
            found(value, 0);
            return Ok(ReportedSeries {
                labels: self.labels,
                bounds: Bounds::none(),
                values: vec![value.number],
                exemplars: self.exemplars.into_iter().map(|(_, e)| reported(0, e)).collect(),
                place: self.place,
            });
        }
        self.bounded.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut count = self.count;
        if kind == MetricType::Histogram {
            let inf =
                self.bounded.pop_if(|(bound, _)| *bound == f64::INFINITY).map(|(_, count)| count);
            if let (Some(inf), Some(count)) = (inf, count) {
                if inf.number != count.number {
                    let (inf, count) = (inf.number, count.number);
                    return Err(AssembleProblem::InfIsNotCount { inf, count });
                }
                found(count, self.bounded.len());
            }
            count = inf.or(count);
        }
        let count = count.ok_or_else(|| missing("_count"))?;
        let sum = self.sum.ok_or_else(|| missing("_sum"))?;
        let (bounds, mut values): (Vec<_>, Vec<_>) = self.bounded.into_iter().unzip();
        values.extend([count, sum]);
        let exemplars = self.exemplars.into_iter().map(|(bound, exemplar)| {
            let at = bounds.iter().position(|b| *b == bound);
            reported(at.unwrap_or(bounds.len()), exemplar)
        });
        let exemplars = exemplars.collect();
        let values = values.into_iter().enumerate().map(|(at, value)| {
            found(value, at);
            value.number
        });
        Ok(ReportedSeries {
            labels: self.labels,
            bounds: Bounds::new(&bounds)?,
            values: values.collect(),
            exemplars,
            place: self.place,
        })
    }
}

const fn reported(bucket: usize, exemplar: Result<Exemplar, ExemplarError>) -> ReportedExemplar {
    ReportedExemplar { bucket: bucket as u32, exemplar }
}
