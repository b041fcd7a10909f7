//! Fleets that report anything a shard may, of the numbers of a seed.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fastrand::Rng;
use shardmeter_manager::{model::MetricType, registry::Registry};

use super::reported::{Bound, Family, Instance, Labels, Reported, Sent, shown_labels};

/// How large a fleet is, and how odd.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) shards: u32,
    /// At most, of one shard.
    pub(crate) instances: usize,
    pub(crate) families: usize,
    /// Series that an instance defines at once.
    pub(crate) series: usize,
    /// Whether it reports what OpenMetrics forbids and shards report all the same: sums and quantiles that are negative or
    /// NaN, buckets below 0.
    pub(crate) is_odd: bool,
    /// Whether histograms count parts of observations: in protobuf, Prometheus 2.42 reads whole ones alone.
    pub(crate) has_parts: bool,
    /// Whether names are all of the kind that was always allowed.
    pub(crate) is_legacy: bool,
}

const KINDS: [MetricType; 5] = [
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::Summary,
    MetricType::Untyped,
];

/// What families and labels are called. Families get a number, so that none takes another's name.
const FAMILY_NAMES: [&str; 5] = ["commands", "x:y", "_private", "Upper", "a_seconds"];
const FAMILY_NAMES_BEYOND: [&str; 4] = ["bot.commands", "größe 🦀", "1st", "a \"b\"\\{},c"];
const LABEL_NAMES_BEYOND: [&str; 3] = ["http.method", "größe", "x y=\"z\","];
const LABEL_NAMES: [&str; 11] = [
    "command_name",
    "guild_id",
    "a",
    "b_",
    "Z9",
    "job",
    "instance",
    "shard_id",
    "le",
    "quantile",
    "a_very_long_name_of_a_label_that_goes_on",
];
const UNITS: [&str; 3] = ["", "seconds", "bytes"];

/// Spelled as OpenMetrics' canonical numbers, which is what Prometheus makes of them.
const BOUNDS: [Bound; 16] = [
    (5e-324, "5e-324"),
    (1.25e-7, "1.25e-07"),
    (0.00001, "1e-05"),
    (0.0001, "0.0001"),
    (0.005, "0.005"),
    (0.1, "0.1"),
    (0.30000000000000004, "0.30000000000000004"),
    (1.0, "1.0"),
    (2.5, "2.5"),
    (10.0, "10.0"),
    (123456.0, "123456.0"),
    (1_000_000.0, "1e+06"),
    (1_234_567.5, "1.2345675e+06"),
    (1e10, "1e+10"),
    (1e21, "1e+21"),
    (f64::MAX, "1.7976931348623157e+308"),
];
const BOUNDS_BELOW: [Bound; 3] = [(-1e6, "-1e+06"), (-2.0, "-2.0"), (0.0, "0.0")];
const QUANTILES: [Bound; 5] =
    [(0.0, "0.0"), (0.5, "0.5"), (0.99, "0.99"), (0.999, "0.999"), (1.0, "1.0")];

/// Label values and HELP texts that have broken a parser somewhere.
const TEXTS: [&str; 31] = [
    "",
    "0",
    "plain",
    "with \"quotes\"",
    "\"",
    "\\",
    "back\\slash",
    "\\n is no line feed",
    "line\nfeed",
    "\n",
    "\\\n\"",
    "trailing\\",
    "trailing\\\"",
    "trailing\\\\",
    "emoji 🦀 ü é ﷺ",
    "{brace=\"}",
    "}",
    "{",
    ",",
    "=",
    "# EOF",
    "\n# EOF\n",
    " # {} 1",
    "# TYPE x counter",
    "\t",
    "carriage\rreturn",
    "\u{85}\u{2028}\u{2029}\u{feff}",
    "\u{0}\u{1}\u{1b}\u{7f}",
    "\u{10ffff}\u{fffd}\u{d7ff}",
    "NaN",
    "+Inf",
];
const CHARACTERS: [char; 14] =
    ['a', 'b', '"', '\\', '\n', ' ', ',', '{', '}', '=', '#', '🦀', 'ü', '\u{2028}'];

const NUMBERS: [f64; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    -0.3,
    1.0 / 3.0,
    0.1 + 0.2,
    1e-7,
    5e-324,
    f64::MIN_POSITIVE,
    1e15,
    1e16,
    9_007_199_254_740_991.0,
    9_007_199_254_740_992.0,
    9_007_199_254_740_994.0,
    1e21,
    f64::MAX,
    f64::MIN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

fn text(rng: &mut Rng) -> String {
    if rng.u8(..4) > 0 {
        return pick(rng, &TEXTS).to_owned();
    }
    let length = rng.usize(..8);
    (0..length).map(|_| pick(rng, &CHARACTERS)).collect()
}

fn pick<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

/// Some of `all`, in their order.
fn some<T: Copy>(rng: &mut Rng, all: &[T]) -> Vec<T> {
    all.iter().copied().filter(|_| rng.bool()).collect()
}

/// Any number.
fn number(rng: &mut Rng) -> f64 {
    match rng.u8(..4) {
        0 => pick(rng, &NUMBERS),
        1 => f64::from(rng.u32(..1000)),
        2 => rng.f64() * 1e6,
        // A NaN with a message stays one, but nobody else keeps the message.
        _ => Some(f64::from_bits(rng.u64(..))).filter(|n| !n.is_nan()).unwrap_or(f64::NAN),
    }
}

/// What a counter may be.
fn count(rng: &mut Rng) -> f64 {
    Some(number(rng)).filter(|n| n.is_finite()).unwrap_or_default().abs()
}

/// How many observations there were.
fn observations(rng: &mut Rng, has_parts: bool) -> f64 {
    match rng.u8(..4) {
        0 => 0.0,
        1 if has_parts => rng.f64() * 10.0,
        2 => rng.u64(..1 << 44) as f64,
        _ => f64::from(rng.u32(..1000)),
    }
}

/// A sum of observations, or a quantile.
fn observed(rng: &mut Rng, is_odd: bool) -> f64 {
    if is_odd { number(rng) } else { count(rng) }
}

/// New values of a series that had `before`, all zero at first: counts rise.
fn values(rng: &mut Rng, kind: MetricType, before: &[f64], shape: Shape) -> Vec<f64> {
    let Shape { is_odd, has_parts, .. } = shape;
    match (kind, before) {
        (MetricType::Counter, _) => vec![before[0].max(count(rng))],
        (MetricType::Histogram, [buckets @ .., all, _]) => {
            let mut more = 0.0;
            let counts = buckets.iter().chain([all]).map(|before| {
                more += observations(rng, has_parts);
                before + more
            });
            let mut values: Vec<f64> = counts.collect();
            values.push(observed(rng, is_odd));
            values
        }
        (MetricType::Summary, [quantiles @ .., all, _]) => {
            let mut values: Vec<f64> = quantiles.iter().map(|_| observed(rng, is_odd)).collect();
            // A page of protobuf has no place for a part of an observation here.
            values.extend([all + observations(rng, false), observed(rng, is_odd)]);
            values
        }
        _ => vec![number(rng)],
    }
}

impl Reported {
    /// A fleet that has reported once.
    pub(crate) fn random(
        rng: &mut Rng,
        registry: Arc<Registry>,
        shape: Shape,
        now: Duration,
    ) -> Self {
        let families = (0..shape.families).map(|number| {
            let kind = KINDS[number % KINDS.len()];
            let (unit, named_unit) = (pick(rng, &UNITS), pick(rng, &UNITS));
            let total = if kind == MetricType::Counter && rng.u8(..3) > 0 { "_total" } else { "" };
            let is_legacy = shape.is_legacy || rng.bool();
            let name = pick(rng, if is_legacy { &FAMILY_NAMES } else { &FAMILY_NAMES_BEYOND[..] });
            let of_unit = if named_unit.is_empty() { "" } else { "_" };
            let name = format!("{name}_{number}{of_unit}{named_unit}{total}");
            Family { name, kind, help: text(rng), unit }
        });
        let families = families.collect();
        let mut reported = Self::new(registry, families);
        for shard_id in 0..shape.shards {
            for _ in 0..rng.usize(1..=shape.instances) {
                let age = Duration::from_nanos(rng.u64(..1 << 52));
                reported.attach(shard_id, now - age, now);
                let instance = reported.instances.len() - 1;
                let ids = reported.add_series(rng, instance, shape, now);
                reported.report(instance, &ids, &[], now);
            }
        }
        reported
    }

    /// Each instance reports or does not: new values, new series, series that left, and some that are back; or just new
    /// values of the few series that always change, so that nothing else on a page moves.
    pub(crate) fn go_on(&mut self, rng: &mut Rng, shape: Shape, now: Duration) {
        let is_busy = rng.u8(..3) == 0;
        for at in 0..self.instances.len() {
            if is_busy && rng.u8(..4) == 0 {
                continue;
            }
            let (mut changed, mut removed) = (Vec::new(), Vec::new());
            for (id, sent) in (0..).zip(&mut self.instances[at].series) {
                let kind = self.families[sent.family].kind;
                let always = sent.is_here && id % 4 == 0;
                let dice = rng.u8(..8);
                if is_busy && dice == 0 && sent.is_here {
                    removed.push(id);
                } else if always || is_busy && dice < 4 {
                    sent.values = values(rng, kind, &sent.values, shape);
                    changed.push(id);
                }
            }
            if is_busy && rng.bool() {
                let few = Shape { series: 1.max(shape.series / 8), ..shape };
                changed.extend(self.add_series(rng, at, few, now));
            }
            self.report(at, &changed, &removed, now);
        }
    }

    /// Defines new series, and returns their ids.
    fn add_series(
        &mut self,
        rng: &mut Rng,
        instance: usize,
        shape: Shape,
        now: Duration,
    ) -> Vec<u32> {
        let Instance { shard_id, series, .. } = &self.instances[instance];
        let shard_id = *shard_id;
        let key = |sent: &Sent| (sent.family, shown_labels(&sent.labels, shard_id));
        let mut known: HashSet<_> = series.iter().map(key).collect();
        let first = series.len();
        let new: Vec<Sent> = (0..shape.series)
            .map(|_| self.series(rng, shape, shard_id))
            .filter(|s| known.insert(key(s)))
            .collect();
        let end = first + new.len();
        for sent in new {
            self.define(instance, sent, now);
        }
        (first as u32..end as u32).collect()
    }

    fn series(&self, rng: &mut Rng, shape: Shape, shard_id: u32) -> Sent {
        let family = rng.usize(..self.families.len());
        let kind = self.families[family].kind;
        let mut labels = Labels::new();
        for _ in 0..rng.u8(..5) {
            let is_legacy = shape.is_legacy || rng.u8(..4) > 0;
            let names = if is_legacy { &LABEL_NAMES } else { &LABEL_NAMES_BEYOND[..] };
            labels.insert(pick(rng, names).to_owned(), text(rng));
        }
        let bound_label = match kind {
            MetricType::Histogram => "le",
            MetricType::Summary => "quantile",
            _ => "",
        };
        labels.remove(bound_label);
        // One label set of a shard has one set of bounds, whichever instance reports it.
        let shown = shown_labels(&labels, shard_id);
        let of_labels = &mut Rng::with_seed(shown.values().map(|value| value.len() as u64).sum());
        let bounds = match kind {
            MetricType::Histogram => {
                let below = if shape.is_odd { some(of_labels, &BOUNDS_BELOW) } else { Vec::new() };
                below.into_iter().chain(some(of_labels, &BOUNDS)).collect()
            }
            MetricType::Summary => some(of_labels, &QUANTILES),
            _ => Vec::new(),
        };
        let width = if bound_label.is_empty() { 1 } else { bounds.len() + 2 };
        let values = values(rng, kind, &vec![0.0; width], shape);
        Sent { family, labels, bounds, values, is_here: true }
    }
}
