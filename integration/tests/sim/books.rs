//! What really happened: the truth that the manager's page is compared with.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::scrape::{Samples, Series};

/// What the manager must have of a run in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It still runs: everything, once it had the time to report it.
    Running,
    /// It confirmed its end: everything.
    Left,
    /// It was killed, or could not say goodbye: what its last acknowledged frame held at least.
    Lost,
}

/// One process run of a shard.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) shard: u32,
    pub(crate) host: usize,
    pub(crate) end: End,
    /// Upper bounds of its histogram's buckets, +Inf too.
    bounds: Vec<f64>,
    counted: Counts,
    /// `counted` as the last gather saw it.
    gathered: Counts,
    /// How many gathers there were.
    pub(crate) gathers: u64,
    /// `counted` as the last acknowledged frame, or an earlier one, saw it.
    confirmed: Counts,
    /// The sequence the reporter's status said at the last look.
    acknowledged: u64,
    /// What the gauge was last set to.
    pub(crate) gauge: f64,
    /// A gauge that comes and goes.
    pub(crate) extra: Option<f64>,
}

/// What one run counted, by one of the moments above.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counts {
    kinds: BTreeMap<&'static str, f64>,
    /// Observations by the first bucket they fall into.
    observations: BTreeMap<usize, f64>,
    sum: f64,
}

/// All runs, in the order of their start.
pub(crate) type Runs = Arc<Mutex<Vec<Run>>>;

impl Run {
    pub(crate) fn new(shard: u32, host: usize, bounds: &[f64]) -> Self {
        Self {
            shard,
            host,
            end: End::Running,
            bounds: bounds.iter().copied().chain([f64::INFINITY]).collect(),
            counted: Counts::default(),
            gathered: Counts::default(),
            gathers: 0,
            confirmed: Counts::default(),
            acknowledged: 0,
            gauge: 0.0,
            extra: None,
        }
    }

    /// The registry is being gathered while the reporter's status says this.
    pub(crate) fn gather(&mut self, acknowledged: u64) {
        self.look(acknowledged);
        self.gathers += 1;
        self.gathered = self.counted.clone();
    }

    /// Learns what was acknowledged. A frame holds what was gathered just before it was made, and there is no gather
    /// between its making and its acknowledgement.
    pub(crate) fn look(&mut self, acknowledged: u64) {
        if acknowledged != self.acknowledged {
            self.acknowledged = acknowledged;
            self.confirmed = self.gathered.clone();
        }
    }

    /// Whether everything that was counted is confirmed.
    pub(crate) fn is_settled(&self) -> bool {
        self.confirmed == self.counted
    }

    /// Whether the last gather saw all that a counter counted.
    pub(crate) fn has_gathered(&self, kind: &str) -> bool {
        self.gathered.kinds.get(kind) == self.counted.kinds.get(kind)
    }

    pub(crate) fn count(&mut self, kind: &'static str, by: f64) {
        *self.counted.kinds.entry(kind).or_default() += by;
    }

    pub(crate) fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        *self.counted.observations.entry(bucket).or_default() += 1.0;
        self.counted.sum += value;
    }

    /// Adds `counts`, of this run, to those of others.
    fn add(&self, counts: &Counts, total: &mut Samples) {
        let mut add = |name: &str, label: Option<(&str, String)>, by: f64| {
            *total.entry(series(name, self.shard, label)).or_default() += by;
        };
        for (kind, count) in &counts.kinds {
            add("c_total", Some(("kind", (*kind).to_owned())), *count);
        }
        let mut count = 0.0;
        for (bucket, bound) in self.bounds.iter().enumerate() {
            count += counts.observations.get(&bucket).copied().unwrap_or_default();
            add("h_seconds_bucket", Some(("le", bound.to_string())), count);
        }
        add("h_seconds_count", None, count);
        add("h_seconds_sum", None, counts.sum);
    }
}

fn series(name: &str, shard: u32, label: Option<(&str, String)>) -> Series {
    let labels = label.into_iter().chain([("shard_id", shard.to_string())]);
    (name.to_owned(), labels.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// E1 at rest: each count is what all runs counted; of those that were lost, what was confirmed at least.
pub(crate) fn check_counts(runs: &[Run], counts: &Samples) -> Result<(), String> {
    let mut least = Samples::new();
    let mut most = Samples::new();
    for run in runs {
        let sure = if run.end == End::Lost { &run.confirmed } else { &run.counted };
        run.add(sure, &mut least);
        run.add(&run.counted, &mut most);
    }
    for (series, most) in &most {
        let least = least.get(series).copied().unwrap_or_default();
        let exposed = counts.get(series).copied().unwrap_or_default();
        if !(least..=*most).contains(&exposed) {
            return Err(format!("{series:?} is {exposed}, not from {least} to {most}"));
        }
    }
    match counts.keys().find(|series| !most.contains_key(*series)) {
        Some(series) => Err(format!("{series:?} is exposed, and was never counted")),
        None => Ok(()),
    }
}

/// E3 and `shard_up` at rest, when each shard has one running process, which is the newest.
pub(crate) fn check_living(runs: &[Run], page: &Samples, shards: u32) -> Result<(), String> {
    let mut gauges = Samples::new();
    for (serial, run) in runs.iter().enumerate().filter(|(_, run)| run.end == End::Running) {
        let of_run = series("g", run.shard, Some(("run", serial.to_string())));
        gauges.insert(of_run, run.gauge);
        let extra = series("g", run.shard, Some(("run", format!("{serial} extra"))));
        gauges.extend(run.extra.map(|value| (extra, value)));
    }
    let named = |name: &str| -> Samples {
        page.iter().filter(|((n, _), _)| n == name).map(|(s, v)| (s.clone(), *v)).collect()
    };
    let exposed = named("g");
    if exposed != gauges {
        return Err(format!("gauges are {exposed:?}, not {gauges:?}"));
    }
    let up: Samples = (0..shards).map(|shard| (series("shard_up", shard, None), 1.0)).collect();
    match named("shard_up") {
        exposed if exposed == up => Ok(()),
        exposed => Err(format!("shard_up is {exposed:?}")),
    }
}

/// E2: compares each page with all before it.
#[derive(Debug, Default)]
pub(crate) struct Monotone(BTreeMap<Series, f64>);

impl Monotone {
    pub(crate) fn check(&mut self, counts: Samples) -> Result<(), String> {
        for (series, before) in &self.0 {
            match counts.get(series) {
                Some(now) if now >= before => {}
                now => return Err(format!("{series:?} was {before} and is {now:?}")),
            }
        }
        self.0 = counts;
        Ok(())
    }
}
