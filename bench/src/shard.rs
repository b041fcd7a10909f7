//! One shard's values as time goes on, and how they are written down for each way in.

use std::fmt::Write as _;

use fastrand::Rng;

use crate::workload::{Family, Kind, SERIES_PER_SHARD, families};

/// A tenth of a shard's series.
const TENTH: usize = SERIES_PER_SHARD / 10;

/// The series a shard always uses, by family: 7 counters of commands, 1 histogram, 2 of events, 2 gauges. Together a
/// [`TENTH`].
const HOT: [(&str, usize); 3] = [
    ("commands_executed_total", 7),
    ("command_execution_duration_seconds", 1),
    ("gateway_events_total", 2),
];
const HOT_GAUGES: usize = 2;

/// What changes from one report to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Nothing,
    /// The same tenth of the series each time; which ones differs from shard to shard.
    SameTenth,
    /// Another tenth each time.
    RandomTenth,
    All,
}

impl Change {
    /// What may have changed since the last page.
    pub(crate) const BEFORE_A_SCRAPE: [Self; 3] =
        [Self::Nothing, Self::SameTenth, Self::RandomTenth];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::SameTenth => "same 10 %",
            Self::RandomTenth => "random 10 %",
            Self::All => "100 %",
        }
    }
}

/// One label set: its place in the values, and how it moves.
struct Series {
    kind: Kind,
    start: usize,
    /// Gauges only: whether its value is a whole number.
    whole: bool,
}

/// One shard.
pub(crate) struct Shard {
    pub(crate) id: u32,
    pub(crate) families: Vec<Family>,
    /// By number of the label set.
    series: Vec<Series>,
    values: Vec<f64>,
    same_tenth: Vec<u32>,
    random: Rng,
}

impl Shard {
    pub(crate) fn new(id: u32) -> Self {
        let families = families(id);
        let mut series = Vec::new();
        let mut start = 0;
        for (n, family) in families.iter().enumerate() {
            for _ in &family.series {
                series.push(Series { kind: family.kind, start, whole: n % 2 == 0 });
                start += family.kind.width();
            }
        }
        let mut random = Rng::with_seed(id.into());
        let same_tenth = same_tenth(&families, &mut random);
        let mut shard = Self { id, families, series, values: vec![0.0; start], same_tenth, random };
        // Numbers as long as a bot's that has run for a day.
        for number in shard.all() {
            let by = f64::from(shard.random.u32(1..20_000));
            shard.add(number, by);
        }
        shard
    }

    /// Lets values change, and says which label sets have new ones.
    pub(crate) fn advance(&mut self, change: Change) -> Vec<u32> {
        let changed = match change {
            Change::Nothing => Vec::new(),
            Change::SameTenth => self.same_tenth.clone(),
            Change::RandomTenth => self.random_tenth(),
            Change::All => self.all(),
        };
        for number in &changed {
            self.add(*number, 1.0);
        }
        changed
    }

    /// The values of these label sets, one after the other, as the wire wants them.
    pub(crate) fn column(&self, numbers: &[u32]) -> Vec<f64> {
        let values = |n: &u32| {
            let series = &self.series[*n as usize];
            &self.values[series.start..][..series.kind.width()]
        };
        numbers.iter().flat_map(values).copied().collect()
    }

    /// All label sets.
    pub(crate) fn all(&self) -> Vec<u32> {
        (0..self.series.len() as u32).collect()
    }

    /// The whole shard in Prometheus' text format. `labelled`: with its `shard_id` in every line.
    pub(crate) fn text(&self, labelled: bool) -> String {
        let mut text = String::with_capacity(32 << 10);
        let own = if labelled { format!("shard_id=\"{}\"", self.id) } else { String::new() };
        let mut series = self.series.iter();
        for Family { name, help, kind, series: label_sets } in &self.families {
            let word = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {word}");
            for (labels, series) in label_sets.iter().zip(&mut series) {
                let mut inside = own.clone();
                for (label, value) in labels {
                    let comma = if inside.is_empty() { "" } else { "," };
                    let _ = write!(inside, "{comma}{label}=\"{value}\"");
                }
                let values = &self.values[series.start..][..kind.width()];
                put_series(&mut text, name, *kind, &inside, values);
            }
        }
        text
    }

    /// One more of whatever it counts, `by` times.
    fn add(&mut self, number: u32, by: f64) {
        let series = &self.series[number as usize];
        let values = &mut self.values[series.start..][..series.kind.width()];
        match (series.kind, values) {
            (Kind::Histogram, [buckets @ .., sum]) => {
                // Quick ones: every bucket has it, so that every line changes.
                buckets.iter_mut().for_each(|bucket| *bucket += by);
                *sum += by * 0.003_127;
            }
            (Kind::Gauge, values) if !series.whole => {
                values.iter_mut().for_each(|value| *value += by * 0.061_7);
            }
            (_, values) => values.iter_mut().for_each(|value| *value += by),
        }
    }

    fn random_tenth(&mut self) -> Vec<u32> {
        let mut numbers = self.all();
        self.random.shuffle(&mut numbers);
        let mut left = TENTH;
        numbers.retain(|n| {
            let lines = self.series[*n as usize].kind.lines();
            let fits = lines <= left;
            left -= if fits { lines } else { 0 };
            fits
        });
        numbers
    }
}

fn same_tenth(families: &[Family], random: &mut Rng) -> Vec<u32> {
    let mut gauges = Vec::new();
    let mut chosen = Vec::new();
    let mut next = 0;
    for family in families {
        let end = next + family.series.len() as u32;
        if family.kind == Kind::Gauge {
            gauges.extend(next..end);
        }
        if let Some((_, count)) = HOT.iter().find(|(name, _)| *name == family.name) {
            let mut numbers: Vec<u32> = (next..end).collect();
            random.shuffle(&mut numbers);
            chosen.extend(numbers.into_iter().take(*count));
        }
        next = end;
    }
    random.shuffle(&mut gauges);
    chosen.extend(gauges.into_iter().take(HOT_GAUGES));
    chosen.sort_unstable();
    chosen
}

fn put_series(text: &mut String, name: &str, kind: Kind, labels: &str, values: &[f64]) {
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    // Writing to a String cannot fail.
    match (kind, values) {
        (Kind::Histogram, [buckets @ .., count, sum]) => {
            for (bound, value) in kind.bounds().iter().zip(buckets) {
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {value}");
            }
            let _ = writeln!(
                text,
                "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n{name}_sum{braced} {sum}\n{name}_count{braced} {count}"
            );
        }
        (_, values) => {
            for value in values {
                let _ = writeln!(text, "{name}{braced} {value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Value of each line.
    fn lines(shard: &Shard) -> HashMap<String, f64> {
        let text = shard.text(false);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn as_many_lines_change_as_it_says_and_none_falls_but_gauges_may() {
        let mut shard = Shard::new(3);
        assert_eq!(lines(&shard).len(), SERIES_PER_SHARD);
        for (change, expected) in [
            (Change::Nothing, 0),
            (Change::SameTenth, TENTH),
            (Change::RandomTenth, TENTH),
            (Change::All, SERIES_PER_SHARD),
        ] {
            let before = lines(&shard);
            let numbers = shard.advance(change);
            let after = lines(&shard);
            let changed = after.iter().filter(|(series, value)| before[*series] != **value);
            assert_eq!(changed.count(), expected, "{change:?}");
            assert!(after.iter().all(|(series, value)| before[series] <= *value));
            let widths = numbers.iter().map(|n| shard.series[*n as usize].kind.width());
            assert_eq!(shard.column(&numbers).len(), widths.sum::<usize>());
        }
    }

    #[test]
    fn the_same_tenth_is_the_same_and_a_random_one_is_not() {
        let mut shard = Shard::new(0);
        assert_eq!(shard.advance(Change::SameTenth), shard.advance(Change::SameTenth));
        assert_ne!(shard.advance(Change::RandomTenth), shard.advance(Change::RandomTenth));
        assert_ne!(Shard::new(1).same_tenth, shard.same_tenth);
    }
}
