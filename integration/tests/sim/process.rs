//! A shard's process: a real reporter on a real registry, counting at random times.

use std::{rc::Rc, sync::Arc, time::Duration};

use fastrand::Rng;
use parking_lot::Mutex;
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use shardmeter_telemetry::{Connection, Reporter, Shard};
use tokio::time::sleep;

use crate::{
    books::{End, Run, Runs},
    fleet::Shared,
    network,
};

/// Label values of the counter.
const KINDS: [&str; 4] = ["a", "b", "c", "d"];
/// Observed values; sums of them are exact.
const VALUES: [f64; 5] = [0.25, 0.5, 0.75, 2.0, 8.0];
const PAUSE_MILLIS: std::ops::Range<u64> = 10..400;

/// The metrics of one run, and their books.
struct Bot {
    runs: Runs,
    serial: usize,
    counter: CounterVec,
    histogram: Histogram,
    gauge: GaugeVec,
    rng: Rng,
    /// A counter that was removed, and how many gathers there were then.
    removed: Option<(&'static str, u64)>,
}

/// Runs on a host until it is told to stop and has said goodbye.
pub(crate) async fn run(shared: Rc<Shared>, host: usize) -> turmoil::Result {
    let Some(shard) = shared.hosts[host].shard.get() else {
        return Ok(());
    };
    let serial = shared.runs.lock().len();
    shared.runs.lock().push(Run::new(shard, host, &shared.bounds));
    let rng = Rng::with_seed(shared.seed ^ (serial as u64) << 32);
    let registry = Registry::new();
    let histogram = HistogramOpts::new("h_seconds", "Observes").buckets(shared.bounds.clone());
    let histogram = Histogram::with_opts(histogram)?;
    let mut bot = Bot::new(&registry, histogram, Arc::clone(&shared.runs), serial, rng)?;

    let reporter = Arc::new(Mutex::new(None));
    let probe = Probe {
        desc: Desc::new("probe".into(), "Sees gathers".into(), vec![], Default::default())?,
        runs: Arc::clone(&shared.runs),
        serial,
        reporter: Arc::clone(&reporter),
    };
    registry.register(Box::new(probe))?;
    let open = Arc::clone(&shared.hosts[host].open);
    open.lock().clear();
    let connect = move || network::connect(Arc::clone(&open));
    let connection = Connection::with_connector("http://manager", connect)?;
    let shard = Shard { id: shard, count: shared.shards };
    *reporter.lock() = Some(Reporter::builder(&connection, shard).registry(registry).build()?);
    shared.hosts[host].reporter.replace(Some(Arc::clone(&reporter)));

    let stop = shared.hosts[host].stop.borrow().clone();
    while !stop.is_cancelled() {
        let pause = Duration::from_millis(bot.rng.u64(PAUSE_MILLIS));
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sleep(pause) => if shared.counting.get() { bot.work() },
        }
    }
    let Some(leaving) = reporter.lock().take() else {
        return Ok(());
    };
    let outcome = leaving.shutdown().await;
    let end = if outcome.is_ok() { End::Left } else { End::Lost };
    shared.runs.lock()[serial].end = end;
    Ok(())
}

impl Bot {
    fn new(
        registry: &Registry,
        histogram: Histogram,
        runs: Runs,
        serial: usize,
        rng: Rng,
    ) -> prometheus::Result<Self> {
        let counter = CounterVec::new(Opts::new("c_total", "Counts"), &["kind"])?;
        let gauge = GaugeVec::new(Opts::new("g", "The run and its last step"), &["run"])?;
        registry.register(Box::new(counter.clone()))?;
        registry.register(Box::new(gauge.clone()))?;
        registry.register(Box::new(histogram.clone()))?;
        let bot = Self { runs, serial, counter, histogram, gauge, rng, removed: None };
        bot.gauge.with_label_values(&[&bot.serial.to_string()]).set(0.0);
        Ok(bot)
    }

    /// Counts, observes, sets, and now and then removes a label set.
    fn work(&mut self) {
        let mut runs = self.runs.lock();
        let run = &mut runs[self.serial];
        // Nobody can see what comes back between two gathers.
        if self.removed.is_some_and(|(_, gathers)| gathers < run.gathers) {
            self.removed = None;
        }
        let resting = self.removed.map(|(kind, _)| kind);
        for _ in 0..self.rng.usize(1..4) {
            let kind = KINDS[self.rng.usize(..KINDS.len())];
            if resting != Some(kind) {
                let by = f64::from(self.rng.u32(1..10));
                self.counter.with_label_values(&[kind]).inc_by(by);
                run.count(kind, by);
            }
        }
        let value = VALUES[self.rng.usize(..VALUES.len())];
        self.histogram.observe(value);
        run.observe(value);
        run.gauge += 1.0;
        self.gauge.with_label_values(&[&self.serial.to_string()]).set(run.gauge);

        let extra = format!("{} extra", self.serial);
        match self.rng.u8(..8) {
            0 => {
                run.extra = Some(run.gauge);
                self.gauge.with_label_values(&[&extra]).set(run.gauge);
            }
            1 if run.extra.take().is_some() => {
                let _ = self.gauge.remove_label_values(&[&extra]);
            }
            _ => {}
        }

        let kind = KINDS[self.rng.usize(..KINDS.len())];
        if self.rng.u8(..20) == 0
            && resting.is_none()
            && run.has_gathered(kind)
            && self.counter.remove_label_values(&[kind]).is_ok()
        {
            self.removed = Some((kind, run.gathers));
        }
    }
}

/// The reporter of a run, until it is told to leave.
pub(crate) type Handle = Arc<Mutex<Option<Reporter>>>;

/// Tells the books when the registry is gathered.
struct Probe {
    desc: Desc,
    runs: Runs,
    serial: usize,
    reporter: Handle,
}

impl Collector for Probe {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(reporter) = &*self.reporter.lock() {
            self.runs.lock()[self.serial].gather(reporter.status().acknowledged);
        }
        Vec::new()
    }
}
