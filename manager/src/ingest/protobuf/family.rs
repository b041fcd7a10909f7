//! What one message says: a family, and its metrics as series.

use std::time::Duration;

use super::{
    ProtobufProblem,
    messages::{self, Head, Histogram, Label, Metric, Number, Summary, Type},
};
use crate::{
    clock::UnixTime,
    ingest::{
        PROCESS_START,
        drafts::{AssembleError, AssembleProblem, DraftSeries, Drafts, Value},
    },
    model::{Bounds, Exemplar, ExemplarError, MetricType, is_name},
    registry::BodyPlace,
};

/// A family, as its message begins.
pub(super) struct Family {
    head: Head,
    kind: Type,
    place: BodyPlace,
}

impl Family {
    /// What message number `message` is about.
    pub(super) fn new(head: Head, message: usize) -> Result<Self, ProtobufProblem> {
        if !is_name(&head.name) {
            return Err(ProtobufProblem::Name(head.name));
        }
        match Type::try_from(head.kind) {
            Ok(kind) => Ok(Self { head, kind, place: BodyPlace::Message(message) }),
            Err(_) => Err(ProtobufProblem::Type { name: head.name, kind: head.kind }),
        }
    }

    /// Whether its value tells a process from others.
    pub(super) fn is_process_start(&self) -> bool {
        self.head.name == PROCESS_START
    }

    /// Makes room for its series.
    pub(super) fn declare(&self, drafts: &mut Drafts<'_>) -> Result<(), AssembleError> {
        for (suffix, kind) in self.parts() {
            let name = format!("{}{suffix}", self.head.name);
            let draft = drafts.named(&name);
            if draft.kind.replace(*kind).is_some() {
                return Err(self.error(AssembleProblem::FamilyAgain));
            }
            draft.help = Some(self.head.help.clone());
            draft.unit = Some(self.head.unit.clone());
        }
        Ok(())
    }

    /// The families that it becomes. What is no type of the registry's becomes gauges (design section 4).
    const fn parts(&self) -> &'static [(&'static str, MetricType)] {
        match self.kind {
            Type::Counter => &[("", MetricType::Counter)],
            Type::Gauge => &[("", MetricType::Gauge)],
            Type::Summary => &[("", MetricType::Summary)],
            Type::Untyped => &[("", MetricType::Untyped)],
            Type::Histogram => &[("", MetricType::Histogram)],
            Type::GaugeHistogram => &[
                ("_bucket", MetricType::Gauge),
                ("_gsum", MetricType::Gauge),
                ("_gcount", MetricType::Gauge),
            ],
        }
    }

    /// Takes one of its metrics.
    pub(super) fn take(
        &self,
        metric: Metric,
        drafts: &mut Drafts<'_>,
    ) -> Result<(), AssembleError> {
        self.put(metric, drafts).map_err(|problem| self.error(problem))
    }

    fn put(&self, metric: Metric, drafts: &mut Drafts<'_>) -> Result<(), AssembleProblem> {
        let Metric { label, gauge, counter, summary, untyped, histogram } = metric;
        let labels = Labels { all: &label, bound_label: None };
        match self.kind {
            Type::Counter => self.number(labels, counter, drafts),
            Type::Gauge => self.number(labels, gauge, drafts),
            Type::Untyped => self.number(labels, untyped, drafts),
            Type::Summary => {
                let labels = Labels { bound_label: Some("quantile"), ..labels };
                self.summary(labels, &summary.ok_or_else(|| self.missing())?, drafts)
            }
            Type::Histogram => {
                let labels = Labels { bound_label: Some("le"), ..labels };
                self.histogram(labels, &histogram.ok_or_else(|| self.missing())?, drafts)
            }
            Type::GaugeHistogram => {
                self.gauges(labels, &histogram.ok_or_else(|| self.missing())?, drafts)
            }
        }
    }

    fn number(
        &self,
        labels: Labels<'_>,
        number: Option<Number>,
        drafts: &mut Drafts<'_>,
    ) -> Result<(), AssembleProblem> {
        let number = number.ok_or_else(|| self.missing())?;
        let series = self.series("", labels, None, drafts)?;
        series.plain = Some(value(number.value));
        if self.kind == Type::Counter {
            series.exemplars.extend(number.exemplar.as_ref().map(|e| (0.0, exemplar(e))));
        }
        Ok(())
    }

    fn summary(
        &self,
        labels: Labels<'_>,
        summary: &Summary,
        drafts: &mut Drafts<'_>,
    ) -> Result<(), AssembleProblem> {
        let series = self.series("", labels, None, drafts)?;
        series.count = Some(value(summary.count as f64));
        series.sum = Some(value(summary.sum));
        for of in &summary.quantile {
            if !(0.0..=1.0).contains(&of.quantile) {
                let text = of.quantile.to_string();
                return Err(AssembleProblem::Bound { label: "quantile", text });
            }
            series.bounded.push((of.quantile, value(of.value)));
        }
        Ok(())
    }

    /// One with native buckets alone is taken as what it has in common with others: `_count` and `_sum`.
    fn histogram(
        &self,
        labels: Labels<'_>,
        histogram: &Histogram,
        drafts: &mut Drafts<'_>,
    ) -> Result<(), AssembleProblem> {
        let series = self.series("", labels, None, drafts)?;
        series.count = Some(value(histogram.count()));
        series.sum = Some(value(histogram.sum));
        for bucket in &histogram.bucket {
            series.bounded.push((bucket.bound, value(bucket.count())));
            series.exemplars.extend(bucket.exemplar.as_ref().map(|e| (bucket.bound, exemplar(e))));
        }
        Ok(())
    }

    /// A gauge histogram's buckets, sum and count.
    fn gauges(
        &self,
        labels: Labels<'_>,
        histogram: &Histogram,
        drafts: &mut Drafts<'_>,
    ) -> Result<(), AssembleProblem> {
        self.series("_gcount", labels, None, drafts)?.plain = Some(value(histogram.count()));
        self.series("_gsum", labels, None, drafts)?.plain = Some(value(histogram.sum));
        for bucket in &histogram.bucket {
            let le = match bucket.bound {
                f64::INFINITY => "+Inf".to_owned(),
                bound => Bounds::new(&[bound])?.spellings().collect(),
            };
            let series = self.series("_bucket", labels, Some(&le), drafts)?;
            series.plain = Some(value(bucket.count()));
        }
        Ok(())
    }

    /// A series that was not there before.
    fn series<'d>(
        &self,
        suffix: &str,
        labels: Labels<'_>,
        le: Option<&str>,
        drafts: &'d mut Drafts<'_>,
    ) -> Result<&'d mut DraftSeries, AssembleProblem> {
        let own = labels.all.iter().map(|label| (label.name.as_str(), label.value.as_str()));
        let all = own.chain(le.map(|le| ("le", le)));
        let (shard_id, labels) = drafts.identify(all, labels.bound_label)?;
        let draft = drafts.named(&format!("{}{suffix}", self.head.name));
        draft.new_series(shard_id, labels, self.place)
    }

    fn missing(&self) -> AssembleProblem {
        let kind = self.parts().first().map_or(MetricType::Untyped, |(_, kind)| *kind);
        AssembleProblem::Missing { kind, part: "its value" }
    }

    fn error(&self, problem: AssembleProblem) -> AssembleError {
        AssembleError { place: self.place, name: self.head.name.clone(), problem }
    }
}

/// Of a metric.
#[derive(Clone, Copy)]
struct Labels<'a> {
    all: &'a [Label],
    /// The name that none of them can have.
    bound_label: Option<&'static str>,
}

/// A value whose place in the body nobody asks for.
const fn value(number: f64) -> Value {
    Value { number, sample: 0 }
}

fn exemplar(said: &messages::Exemplar) -> Result<Exemplar, ExemplarError> {
    let labels = said.label.iter().map(|label| (label.name.as_str(), label.value.as_str()));
    let at = said.timestamp.as_ref().and_then(|at| {
        let nanos = u32::try_from(at.nanos).ok()?;
        Some(UnixTime::from_duration(Duration::new(u64::try_from(at.seconds).ok()?, nanos)))
    });
    Exemplar::new(labels, said.value, at)
}
