//! Makes families and series of sample lines: `_bucket`, `_sum` and `_count` lines become one histogram, and every series
//! goes to the shard its label names.

use std::time::Duration;

use hashbrown::HashSet;

use super::{
    Body, IngestError, PROCESS_START, ValueAt,
    drafts::{AssembleError, AssembleProblem, Drafts, Value},
    text::{self, Kind, Line, Sample, Syntax},
};
use crate::{
    clock::UnixTime,
    model::{Exemplar, ExemplarError, MetricType},
    registry::BodyPlace,
};

/// Reads a body into `drafts`, of which there are none yet.
pub(super) fn assemble(body: &str, drafts: Drafts<'_>) -> Result<Body, IngestError> {
    let syntax = Syntax::of(body);
    let mut assembly = Assembly {
        body,
        syntax,
        drafts,
        gauge_buckets: HashSet::new(),
        values: Vec::new(),
        process_start: None,
    };
    for line in text::lines(body, syntax) {
        let (number, line) = line?;
        let name = match &line {
            Line::Help { name, .. } | Line::Type { name, .. } | Line::Unit { name, .. } => name,
            Line::Sample(sample) => &sample.name,
        };
        let at = |problem| AssembleError {
            place: BodyPlace::Line(number),
            name: name.to_string(),
            problem,
        };
        match &line {
            Line::Help { name, text } => assembly.help(name, text),
            Line::Type { name, kind } => assembly.kind(name, *kind),
            Line::Unit { name, unit } => assembly.unit(name, unit),
            Line::Sample(sample) => assembly.sample(number, sample),
        }
        .map_err(at)?;
    }
    let Assembly { drafts, mut values, process_start, .. } = assembly;
    let shards = drafts.finish(&mut values)?;
    Ok(Body { shards, process_start, values })
}

struct Assembly<'a> {
    body: &'a str,
    syntax: Syntax,
    drafts: Drafts<'a>,
    /// Families that are buckets of gauge histograms: in the body they may have exemplars.
    gauge_buckets: HashSet<String>,
    /// Of each sample; the series are known once all samples are.
    values: Vec<ValueAt>,
    process_start: Option<f64>,
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
    fn help(&mut self, name: &str, text: &str) -> Result<(), AssembleProblem> {
        match self.drafts.named(name).help.replace(text.to_owned()) {
            Some(_) => Err(AssembleProblem::Again("HELP")),
            None => Ok(()),
        }
    }

    fn unit(&mut self, name: &str, unit: &str) -> Result<(), AssembleProblem> {
        match self.drafts.named(name).unit.replace(unit.to_owned()) {
            Some(_) => Err(AssembleProblem::Again("UNIT")),
            None => Ok(()),
        }
    }

    fn kind(&mut self, name: &str, kind: Kind) -> Result<(), AssembleProblem> {
        match kind {
            Kind::Plain(kind) => self.declare(name, kind),
            Kind::Suffixed(kind, suffix) => {
                self.declare(name, kind)?;
                self.drafts.rename(name, format!("{name}{suffix}"))
            }
            Kind::GaugeHistogram => {
                self.gauge_buckets.insert(format!("{name}_bucket"));
                ["_bucket", "_gsum", "_gcount"]
                    .iter()
                    .try_for_each(|of| self.declare(&format!("{name}{of}"), MetricType::Gauge))
            }
        }
    }

    fn declare(&mut self, name: &str, kind: MetricType) -> Result<(), AssembleProblem> {
        let draft = self.drafts.named(name);
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
        let number = self.values.len();
        if part != Part::Created {
            self.values.push(ValueAt::of(sample, self.body));
        }
        let kind = self.drafts.named(name).kind.unwrap_or(MetricType::Untyped);
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
        let of_series = of_series.map(|(_, (name, value))| (name.as_ref(), value.as_ref()));
        let (shard_id, labels) = self.drafts.identify(of_series, bound_label)?;
        let exemplar = match &sample.exemplar {
            Some(said) if has_exemplars(kind, part) => Some(exemplar(said)),
            // Gauges have nowhere to keep one.
            Some(_) if !self.gauge_buckets.contains(name) => return Err(AssembleProblem::Exemplar),
            _ => None,
        };
        if part == Part::Created {
            return Ok(());
        }
        let value = Value { number: sample.value, sample: number };
        let series = self.drafts.named(name).series(shard_id, labels, BodyPlace::Line(line));
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
            Some(_) => Err(AssembleProblem::Twice(series.place)),
            None => Ok(()),
        }
    }

    /// Whether a gauge of text format 0.0.4 says when another family of the body began. Python's client writes one for each,
    /// which would take a name that is that family's in OpenMetrics.
    fn is_created(&self, name: &str) -> bool {
        let typed = |name: &str| self.drafts.find(name)?.kind;
        let stem = name.strip_suffix("_created").filter(|_| self.syntax == Syntax::Text);
        let is_of = |stem: &str| {
            matches!(typed(stem), Some(MetricType::Histogram | MetricType::Summary))
                || typed(&format!("{stem}_total")) == Some(MetricType::Counter)
        };
        stem.is_some_and(|stem| typed(name) == Some(MetricType::Gauge) && is_of(stem))
    }

    /// Which family a sample name belongs to, and as what.
    fn place<'n>(&self, name: &'n str) -> Result<(&'n str, Part), AssembleProblem> {
        let typed = |name: &str| self.drafts.find(name)?.kind;
        if let Some(draft) = self.drafts.find(name).filter(|draft| draft.name != name) {
            // OpenMetrics' name of a counter, which no sample has.
            return Err(AssembleProblem::SampleName(draft.kind.unwrap_or(MetricType::Untyped)));
        }
        if self.is_created(name) {
            return Ok((name, Part::Created));
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
