//! What is left of Discord's limit of invalid requests, over a window that slides.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::{
    IntGauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use shardmeter_process::metrics::Family;
use tokio::time::Instant;

/// Discord shuts an address out that sends more than this many invalid requests (reference, "Invalid Request Limit") ...
const LIMIT: i64 = 10_000;

/// ... in this time.
const WINDOW: Duration = Duration::from_secs(600);

/// Requests are forgotten together that came within this time, so that no flood of them takes memory.
const STEP: Duration = Duration::from_secs(5);

/// How many invalid requests this process could still send before it alone had its address shut out. Computed when it is
/// gathered, so that it rises again while nothing is sent.
#[derive(Clone)]
pub(crate) struct InvalidRequestsLeft {
    gauge: IntGauge,
    /// Requests of the window by step, with when the step began.
    sent: Arc<Mutex<VecDeque<(Instant, i64)>>>,
}

impl InvalidRequestsLeft {
    /// One was sent now.
    pub(crate) fn sent(&self) {
        let now = Instant::now();
        let mut sent = self.sent.lock();
        forget(&mut sent, now);
        match sent.back_mut() {
            Some((began, count)) if now.duration_since(*began) < STEP => *count += 1,
            _ => sent.push_back((now, 1)),
        }
    }
}

/// Not before the last of a step is out of the window: better a few seconds too careful.
fn forget(sent: &mut VecDeque<(Instant, i64)>, now: Instant) {
    while sent.front().is_some_and(|(began, _)| now.duration_since(*began) > WINDOW + STEP) {
        sent.pop_front();
    }
}

impl Family for InvalidRequestsLeft {
    fn new(opts: Opts, _labels: &[&str]) -> prometheus::Result<Self> {
        Ok(Self { gauge: IntGauge::with_opts(opts)?, sent: Arc::default() })
    }
}

impl Collector for InvalidRequestsLeft {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut sent = self.sent.lock();
        forget(&mut sent, Instant::now());
        self.gauge.set(LIMIT - sent.iter().map(|(_, count)| count).sum::<i64>());
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use shardmeter_process::metrics::register;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_the_window_is_forgotten() {
        let registry = Registry::new();
        let left: InvalidRequestsLeft = register(&registry, "left", "help", &[]).unwrap();
        let read = || registry.gather()[0].get_metric()[0].get_gauge().get_value();
        assert_eq!(read(), 10_000.0);
        for _ in 0..100 {
            left.sent();
        }
        advance(Duration::from_secs(300)).await;
        for _ in 0..10 {
            left.sent();
        }
        assert_eq!(read(), 9_890.0);
        advance(Duration::from_secs(300)).await;
        assert_eq!(read(), 9_890.0, "still within the window");
        advance(Duration::from_secs(6)).await;
        assert_eq!(read(), 9_990.0);
        advance(Duration::from_secs(300)).await;
        assert_eq!(read(), 10_000.0, "without another request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_takes_no_memory() {
        let left = InvalidRequestsLeft::new(Opts::new("left", "help"), &[]).unwrap();
        for _ in 0..100_000 {
            left.sent();
            advance(Duration::from_millis(20)).await;
        }
        assert!(left.sent.lock().len() <= 123, "{}", left.sent.lock().len());
    }
}
