//! How late the runtime is: a task that blocks a worker, or too much work, makes timers fire late, and with them heartbeats.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::RuntimeMetrics;

/// Between two measurements: often enough for a stall of a second to be seen, and two timers a second cost nothing.
const PERIOD: Duration = Duration::from_millis(500);

impl RuntimeMetrics {
    /// Measures for ever.
    pub(crate) async fn watch(self) {
        loop {
            let due = Instant::now() + PERIOD;
            sleep_until(due).await;
            self.runtime_lag_seconds.observe(due.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_fires_late_is_lag() {
        let metrics = RuntimeMetrics::register(&Registry::new()).unwrap();
        let watching = tokio::spawn(metrics.clone().watch());
        let lag = metrics.runtime_lag_seconds;
        tokio::task::yield_now().await;
        advance(PERIOD).await;
        tokio::task::yield_now().await;
        assert_eq!(lag.get_sample_count(), 1);
        assert!(lag.get_sample_sum() < 0.01, "{}", lag.get_sample_sum());
        advance(PERIOD + Duration::from_secs(2)).await;
        tokio::task::yield_now().await;
        assert_eq!(lag.get_sample_count(), 2);
        assert!((lag.get_sample_sum() - 2.0).abs() < 0.01, "{}", lag.get_sample_sum());
        watching.abort();
    }
}
