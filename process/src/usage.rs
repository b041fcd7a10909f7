//! Memory and CPU of the process, read from procfs when they are gathered. A reading that fails leaves the last value.

use std::sync::{Arc, Mutex, PoisonError};

use procfs::process::Process;
use prometheus::{
    Gauge, GaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::time::{Duration, Instant};

use crate::metrics::Family;

/// Readings closer together than this would be noise: clock ticks are 10 ms.
const SHORTEST_CPU_READING: Duration = Duration::from_millis(500);

/// procfs states sizes in kB.
const KILOBYTE: u64 = 1024;

/// Resident memory by type.
#[derive(Clone)]
pub(crate) struct MemoryUsage(GaugeVec);

impl MemoryUsage {
    fn read(&self) {
        let Ok(status) = Process::myself().and_then(|process| process.status()) else {
            return;
        };
        let set = |kind: &str, kilobytes: Option<u64>| {
            if let Some(kilobytes) = kilobytes {
                self.0.with_label_values(&[kind]).set((kilobytes * KILOBYTE) as f64);
            }
        };
        set("rss", status.vmrss);
        set("heap", status.rssanon);
        set("external", status.rssfile.zip(status.rssshmem).map(|(file, shared)| file + shared));
    }
}

impl Family for MemoryUsage {
    fn new(opts: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        GaugeVec::new(opts, labels).map(Self)
    }
}

impl Collector for MemoryUsage {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.0.collect()
    }
}

/// CPU time used between two readings.
#[derive(Clone)]
pub(crate) struct CpuUsage {
    gauge: Gauge,
    last: Arc<Mutex<(Instant, u64)>>,
}

impl CpuUsage {
    fn read(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, ticks_then) = *last;
        let (elapsed, ticks) = (then.elapsed(), cpu_ticks());
        if elapsed < SHORTEST_CPU_READING {
            return;
        }
        let seconds = ticks.saturating_sub(ticks_then) as f64 / procfs::ticks_per_second() as f64;
        self.gauge.set(100.0 * seconds / elapsed.as_secs_f64());
        *last = (then + elapsed, ticks);
    }
}

impl Family for CpuUsage {
    fn new(opts: Opts, _labels: &[&str]) -> prometheus::Result<Self> {
        let last = Arc::new(Mutex::new((Instant::now(), cpu_ticks())));
        Ok(Self { gauge: Gauge::with_opts(opts)?, last })
    }
}

impl Collector for CpuUsage {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.gauge.collect()
    }
}

/// Clock ticks this process has run, in user and kernel mode.
fn cpu_ticks() -> u64 {
    Process::myself().and_then(|process| process.stat()).map_or(0, |stat| stat.utime + stat.stime)
}
