//! Makes families and series of sample lines: `_bucket`, `_sum` and `_count` lines become one histogram, and every series
//! goes to the shard its label names.

use std::time::Duration;

use hashbrown::{HashMap, hash_map::Entry};

use super::{
    Body, IngestError, PROCESS_START, ShardIds, ValueAt,
    text::{self, Kind, Line, Sample, Syntax},
};
use crate::{
    clock::UnixTime,
    model::{Bounds, BoundsError, Exemplar, ExemplarError, LabelError, LabelSet, MetricType},
    registry::{ReportedExemplar, ReportedFamily, ReportedSeries},
};

/// Lines that are well-formed, but do not make metrics.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("line {line}: {name}: {problem}")]
pub struct AssembleError {
    /// Where, from 1.
    pub line: usize,
    /// The metric in question.
    pub name: String,
    /// What is wrong.
    pub problem: AssembleProblem,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AssembleProblem {
    /// A second HELP or TYPE line.
    #[error("a second {0} line")]
    Again(&'static str),
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
    #[error("this sample is already there; its series begins on line {0}")]
    Twice(usize),
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

/// Reads a body of shards `ids`.
pub(super) fn assemble(body: &str, ids: ShardIds) -> Result<Body, IngestError> {
    let syntax = Syntax::of(body);
    let mut assembly = Assembly {
        body,
        syntax,
        ids,
        drafts: Vec::new(),
        by_name: HashMap::new(),
        values: Vec::new(),
        process_start: None,
    };
    for line in text::lines(body, syntax) {
        let (number, line) = line?;
        let name = match &line {
            Line::Help { name, .. } | Line::Type { name, .. } | Line::Unit { name, .. } => name,
            Line::Sample(sample) => &sample.name,
        };
        let at = |problem| AssembleError { line: number, name: name.to_string(), problem };
        match &line {
            Line::Help { name, text } => assembly.help(name, text),
            Line::Type { name, kind } => assembly.kind(name, *kind),
            Line::Unit { name, unit } => assembly.unit(name, unit),
            Line::Sample(sample) => assembly.sample(number, sample),
        }
        .map_err(at)?;
    }
    Ok(assembly.finish()?)
}

struct Assembly<'a> {
    body: &'a str,
    syntax: Syntax,
    ids: ShardIds,
    drafts: Vec<Draft>,
    by_name: HashMap<String, usize>,
    /// Of each sample; the series are known once all samples are.
    values: Vec<ValueAt>,
    process_start: Option<f64>,
}

/// A family in the making.
struct Draft {
    /// As text format 0.0.4 has it; where OpenMetrics has another, it is found under both.
    name: String,
    kind: Option<MetricType>,
    help: Option<String>,
    unit: Option<String>,
    series: Vec<DraftSeries>,
    by_labels: HashMap<(u32, LabelSet), usize>,
}

/// A series in the making: its samples with their lines.
struct DraftSeries {
    shard_id: u32,
    labels: LabelSet,
    line: usize,
    bounded: Vec<(f64, Value)>,
    count: Option<Value>,
    sum: Option<Value>,
    plain: Option<Value>,
    /// By bound, of a counter under 0.
    exemplars: Vec<(f64, Result<Exemplar, ExemplarError>)>,
}

/// A value, and the number of the sample that it is of.
#[derive(Clone, Copy)]
struct Value {
    number: f64,
    sample: usize,
}

/// What a sample line is to its series.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Plain,
    Bounded(&'static str),
    Count,
    Sum,
    /// When it began, which the registry knows better.
    Created,
}

impl Assembly<'_> {
    fn draft(&mut self, name: &str) -> &mut Draft {
        let next = self.drafts.len();
        let at = *self.by_name.entry_ref(name).or_insert(next);
        if at == next {
            self.drafts.push(Draft {
                name: name.to_owned(),
                kind: None,
                help: None,
                unit: None,
                series: Vec::new(),
                by_labels: HashMap::new(),
            });
        }
        &mut self.drafts[at]
    }

    fn help(&mut self, name: &str, text: &str) -> Result<(), AssembleProblem> {
        match self.draft(name).help.replace(text.to_owned()) {
            Some(_) => Err(AssembleProblem::Again("HELP")),
            None => Ok(()),
        }
    }

    fn unit(&mut self, name: &str, unit: &str) -> Result<(), AssembleProblem> {
        match self.draft(name).unit.replace(unit.to_owned()) {
            Some(_) => Err(AssembleProblem::Again("UNIT")),
            None => Ok(()),
        }
    }

    fn kind(&mut self, name: &str, kind: Kind) -> Result<(), AssembleProblem> {
        match kind {
            Kind::Plain(kind) => self.declare(name, kind),
            Kind::Suffixed(kind, suffix) => {
                self.declare(name, kind)?;
                self.rename(name, format!("{name}{suffix}"))
            }
            Kind::GaugeHistogram => ["_bucket", "_gsum", "_gcount"]
                .iter()
                .try_for_each(|of| self.declare(&format!("{name}{of}"), MetricType::Gauge)),
        }
    }

    /// From now on the family `name` has the name of its samples.
    fn rename(&mut self, name: &str, samples: String) -> Result<(), AssembleProblem> {
        let Some(at) = self.by_name.get(name).copied() else { return Ok(()) };
        if self.by_name.contains_key(&samples) {
            return Err(AssembleProblem::Taken(samples));
        }
        self.by_name.insert(samples.clone(), at);
        self.drafts[at].name = samples;
        Ok(())
    }

    fn declare(&mut self, name: &str, kind: MetricType) -> Result<(), AssembleProblem> {
        let draft = self.draft(name);
        if !draft.series.is_empty() {
            return Err(AssembleProblem::LateType);
        }
        match draft.kind.replace(kind) {
            Some(_) => Err(AssembleProblem::Again("TYPE")),
            None => Ok(()),
        }
    }

    fn sample(&mut self, line: usize, sample: &Sample<'_>) -> Result<(), AssembleProblem> {
        if sample.name == PROCESS_START {
            self.process_start.get_or_insert(sample.value);
        }
        let (name, part) = self.place(&sample.name)?;
        let ids = self.ids;
        let number = self.values.len();
        if part != Part::Created {
            self.values.push(ValueAt::of(sample, self.body));
        }
        let draft = self.draft(name);
        let kind = draft.kind.unwrap_or(MetricType::Untyped);
        let bound_label = match kind {
            MetricType::Histogram => Some("le"),
            MetricType::Summary => Some("quantile"),
            _ => None,
        };
        let bound = match part {
            Part::Bounded(label) => Some(bound(kind, label, sample)?),
            _ => None,
        };
        // Without the one label that gave the bound; another of that name is refused below.
        let bound_at = bound.and_then(|_| {
            let labels = &mut sample.labels.iter();
            labels.position(|(name, _)| Some(&**name) == bound_label)
        });
        let of_series = (0..).zip(&sample.labels);
        let of_series = of_series.filter(|(at, _)| Some(*at) != bound_at);
        let shard_id = sample
            .labels
            .iter()
            .filter(|(name, _)| *name == "shard_id")
            .find_map(|(_, value)| value.parse().ok().filter(|id| ids.contains(*id)))
            .unwrap_or(ids.lowest());
        let labels = LabelSet::canonical(
            of_series.map(|(_, (name, value))| (name.as_ref(), value.as_ref())),
            shard_id,
            bound_label,
        )?;
        if sample.exemplar.is_some() && !has_exemplars(kind, part) {
            return Err(AssembleProblem::Exemplar);
        }
        if part == Part::Created {
            return Ok(());
        }
        let value = Value { number: sample.value, sample: number };
        let series = draft.series(shard_id, labels, line);
        let exemplar = sample.exemplar.as_ref().map(exemplar);
        series.exemplars.extend(exemplar.map(|exemplar| (bound.unwrap_or(0.0), exemplar)));
        let slot = match part {
            Part::Plain => &mut series.plain,
            Part::Count => &mut series.count,
            Part::Sum => &mut series.sum,
            Part::Bounded(_) => {
                series.bounded.extend(bound.map(|bound| (bound, value)));
                return Ok(());
            }
            Part::Created => return Ok(()),
        };
        match slot.replace(value) {
            Some(_) => Err(AssembleProblem::Twice(series.line)),
            None => Ok(()),
        }
    }

    /// Which family a sample name belongs to, and as what.
    fn place<'n>(&self, name: &'n str) -> Result<(&'n str, Part), AssembleProblem> {
        let draft = |name: &str| self.by_name.get(name).and_then(|at| self.drafts.get(*at));
        let typed = |name: &str| draft(name)?.kind;
        if let Some(draft) = draft(name).filter(|draft| draft.name != name) {
            // OpenMetrics' name of a counter, which no sample has.
            return Err(AssembleProblem::SampleName(draft.kind.unwrap_or(MetricType::Untyped)));
        }
        match typed(name) {
            Some(MetricType::Summary) => return Ok((name, Part::Bounded("quantile"))),
            Some(kind @ MetricType::Histogram) => return Err(AssembleProblem::SampleName(kind)),
            Some(_) => return Ok((name, Part::Plain)),
            None => {}
        }
        let suffixes = [
            ("_bucket", Part::Bounded("le")),
            ("_sum", Part::Sum),
            ("_count", Part::Count),
            ("_created", Part::Created),
        ];
        for (suffix, part) in suffixes {
            let Some(stem) = name.strip_suffix(suffix) else {
                continue;
            };
            match (typed(stem), part) {
                (
                    Some(MetricType::Counter | MetricType::Histogram | MetricType::Summary),
                    Part::Created,
                ) if self.syntax == Syntax::OpenMetrics => return Ok((stem, part)),
                (_, Part::Created) => {}
                (Some(MetricType::Histogram), _)
                | (Some(MetricType::Summary), Part::Sum | Part::Count) => {
                    return Ok((stem, part));
                }
                _ => {}
            }
        }
        Ok((name, Part::Plain))
    }

    fn finish(self) -> Result<Body, AssembleError> {
        let mut body =
            Body { process_start: self.process_start, values: self.values, ..Body::default() };
        body.shards.entry(self.ids.lowest()).or_default();
        // How many series each shard has yet.
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for draft in self.drafts {
            let kind = draft.kind.unwrap_or(MetricType::Untyped);
            let (name, help) = (&draft.name, draft.help.unwrap_or_default());
            let unit = draft.unit.unwrap_or_default();
            for series in draft.series {
                let (shard_id, line) = (series.shard_id, series.line);
                let count = counts.entry(shard_id).or_default();
                let place = |value: Value, at: usize| {
                    if let Some(value) = body.values.get_mut(value.sample) {
                        value.place(shard_id, *count, at);
                    }
                };
                let at = |problem| AssembleError { line, name: name.to_owned(), problem };
                let series = series.finish(kind, place).map_err(at)?;
                *count += 1;
                let families = body.shards.entry(shard_id).or_default();
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
        Ok(body)
    }
}

impl Draft {
    fn series(&mut self, shard_id: u32, labels: LabelSet, line: usize) -> &mut DraftSeries {
        let at = match self.by_labels.entry((shard_id, labels)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let labels = new.key().1.clone();
                new.insert(self.series.len());
                self.series.push(DraftSeries {
                    shard_id,
                    labels,
                    line,
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
}

impl DraftSeries {
    /// The series. Says of each value where it is among them.
    fn finish(
        mut self,
        kind: MetricType,
        mut place: impl FnMut(Value, usize),
    ) -> Result<ReportedSeries, AssembleProblem> {
        let missing = |part| AssembleProblem::Missing { kind, part };
        if let Some(value) = self.plain {
            place(value, 0);
            return Ok(ReportedSeries {
                labels: self.labels,
                bounds: Bounds::none(),
                values: vec![value.number],
                exemplars: self.exemplars.into_iter().map(|(_, e)| reported(0, e)).collect(),
                line: self.line,
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
                place(count, self.bounded.len());
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
            place(value, at);
            value.number
        });
        Ok(ReportedSeries {
            labels: self.labels,
            bounds: Bounds::new(&bounds)?,
            values: values.collect(),
            exemplars,
            line: self.line,
        })
    }
}

/// Whether such a sample can have an exemplar.
fn has_exemplars(kind: MetricType, part: Part) -> bool {
    matches!(
        (kind, part),
        (MetricType::Counter, Part::Plain) | (MetricType::Histogram, Part::Bounded(_))
    )
}

fn exemplar(said: &text::Exemplar<'_>) -> Result<Exemplar, ExemplarError> {
    let labels = said.labels.iter().map(|(name, value)| (&**name, &**value));
    // To the microsecond: as many digits as a sender can have meant.
    let micros =
        said.timestamp.map(|seconds| Duration::from_micros((seconds * 1e6).round() as u64));
    Exemplar::new(labels, said.value, micros.map(UnixTime::from_duration))
}

const fn reported(bucket: usize, exemplar: Result<Exemplar, ExemplarError>) -> ReportedExemplar {
    ReportedExemplar { bucket: bucket as u32, exemplar }
}

/// The bound that a bucket's or quantile's line names.
fn bound(
    kind: MetricType,
    label: &'static str,
    sample: &Sample<'_>,
) -> Result<f64, AssembleProblem> {
    let text =
        sample.labels.iter().find(|(name, _)| *name == label).map(|(_, value)| value.as_ref());
    let text = text.ok_or(AssembleProblem::NoBound { kind, label })?;
    let bound = text.parse().ok();
    bound
        .filter(|bound| kind != MetricType::Summary || (0.0..=1.0).contains(bound))
        .ok_or_else(|| AssembleProblem::Bound { label, text: text.to_owned() })
}
