//! How many identifies Discord still allows this bot today: what it said last, less what this process spent since.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use twilight_model::gateway::SessionStartLimit;

use crate::metrics::{IdentifyMetrics, unix_seconds};

/// From the first identify to the reset (reference, "Session Start Limit Object").
const PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// What is left of the day's identifies; cheap to clone.
#[derive(Clone)]
pub(crate) struct Budget {
    limit: Arc<Mutex<Limit>>,
    metrics: IdentifyMetrics,
}

struct Limit {
    remaining: u32,
    total: u32,
    resets_at: Instant,
}

impl Budget {
    /// A budget of nothing, until Discord has said what it is.
    pub(crate) fn new(metrics: IdentifyMetrics) -> Self {
        let limit = Limit { remaining: 0, total: 0, resets_at: Instant::now() + PERIOD };
        Self { limit: Arc::new(Mutex::new(limit)), metrics }
    }

    /// Discord says what it is.
    pub(crate) fn told(&self, said: &SessionStartLimit) {
        let reset_after = Duration::from_millis(said.reset_after).min(PERIOD);
        *self.limit.lock() = Limit {
            remaining: said.remaining,
            total: said.total,
            resets_at: Instant::now() + reset_after,
        };
        let metrics = &self.metrics;
        metrics.gateway_identify_remaining.set(said.remaining.into());
        metrics.gateway_identify_limit.set(said.total.into());
        metrics.gateway_identify_max_concurrency.set(said.max_concurrency.into());
        let reset = unix_seconds() + reset_after.as_secs_f64();
        metrics.gateway_identify_reset_timestamp_seconds.set(reset);
    }

    /// Takes one identify; false if none is left.
    pub(crate) fn spend(&self) -> bool {
        let mut limit = self.limit.lock();
        limit.reset_when_due();
        let Some(less) = limit.remaining.checked_sub(1) else { return false };
        limit.remaining = less;
        self.metrics.gateway_identify_remaining.set(less.into());
        true
    }

    /// How long none is left; nothing if one is.
    pub(crate) fn spent_for(&self) -> Option<Duration> {
        let mut limit = self.limit.lock();
        limit.reset_when_due();
        (limit.remaining == 0).then(|| limit.resets_at.saturating_duration_since(Instant::now()))
    }
}

impl Limit {
    fn reset_when_due(&mut self) {
        let now = Instant::now();
        if self.resets_at <= now {
            (self.remaining, self.resets_at) = (self.total, now + PERIOD);
        }
    }
}
