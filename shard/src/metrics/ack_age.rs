//! A kind of family of the shard's own.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus::{
    Gauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use shardmeter_process::metrics::Family;
use tokio::time::Instant;

/// Time since the last heartbeat ack, computed when it is gathered, so that it grows while Discord is silent.
#[derive(Clone)]
pub(crate) struct AckAge {
    gauge: Gauge,
    started: Instant,
    /// The last ack, in milliseconds after `started`.
    acked: Arc<AtomicU64>,
}

impl AckAge {
    /// An ack arrived now.
    pub(crate) fn ack(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.acked.store(now, Ordering::Relaxed);
    }
}

impl Family for AckAge {
    fn new(opts: Opts, _labels: &[&str]) -> prometheus::Result<Self> {
        Ok(Self { gauge: Gauge::with_opts(opts)?, started: Instant::now(), acked: Arc::default() })
    }
}

impl Collector for AckAge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let acked = std::time::Duration::from_millis(self.acked.load(Ordering::Relaxed));
        self.gauge.set(self.started.elapsed().saturating_sub(acked).as_secs_f64());
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use shardmeter_process::metrics::register;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_ack_age_grows_in_silence_and_falls_with_an_ack() {
        let registry = Registry::new();
        let age: AckAge = register(&registry, "age", "help", &[]).unwrap();
        let read = || registry.gather()[0].get_metric()[0].get_gauge().get_value();
        tokio::time::advance(std::time::Duration::from_secs(90)).await;
        assert!((read() - 90.0).abs() < 0.01, "{}", read());
        age.ack();
        assert!(read().abs() < 0.01, "{}", read());
        tokio::time::advance(std::time::Duration::from_secs(5)).await;
        assert!((read() - 5.0).abs() < 0.01, "{}", read());
    }
}
