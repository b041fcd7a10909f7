//! How many identifies Discord still allows this bot today: what it said last, less what this process spent since.
//!
//! What other processes spent since, it cannot know. Where there are some, a few are therefore left for them, and Discord is
//! asked again and again while the budget is scarce.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use twilight_model::gateway::SessionStartLimit;

use crate::metrics::{IdentifyMetrics, unix_seconds};

/// From the first identify to the reset (reference, "Session Start Limit Object").
const PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// Turns of a key that others may have had since Discord was asked: it is asked once in a turn.
const TURNS_UNKNOWN: u32 = 3;

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
    others: Others,
}

/// What other processes of the bot may spend.
#[derive(Clone, Copy, Default)]
struct Others {
    /// Before this process knows.
    soon: u32,
    /// At a start of the whole bot.
    all: u32,
}

impl Budget {
    /// A budget of nothing, until Discord has said what it is.
    pub(crate) fn new(metrics: IdentifyMetrics) -> Self {
        let resets_at = Instant::now() + PERIOD;
        let limit = Limit { remaining: 0, total: 0, resets_at, others: Others::default() };
        Self { limit: Arc::new(Mutex::new(limit)), metrics }
    }

    /// Other processes spend of it too: `keys` shards at once, and `shards` in all.
    pub(super) fn share(&self, keys: u32, shards: u32) {
        self.limit.lock().others = Others { soon: keys.saturating_mul(TURNS_UNKNOWN), all: shards };
    }

    /// Whether somebody waits, and others may have spent what seems to be left.
    pub(crate) fn is_scarce(&self) -> bool {
        let limit = self.limit.lock();
        let waits = self.metrics.gateway_identifies_waiting.get() > 0;
        waits
            && limit.others.all > 0
            && limit.remaining <= limit.kept().saturating_add(limit.others.all)
    }

    /// Discord says what it is.
    pub(crate) fn told(&self, said: &SessionStartLimit) {
        let reset_after = Duration::from_millis(said.reset_after).min(PERIOD);
        let mut limit = self.limit.lock();
        limit.remaining = said.remaining;
        limit.total = said.total;
        limit.resets_at = Instant::now() + reset_after;
        drop(limit);
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
        if limit.remaining <= limit.kept() {
            return false;
        }
        let less = limit.remaining - 1;
        limit.remaining = less;
        self.metrics.gateway_identify_remaining.set(less.into());
        true
    }

    /// How long none is left; nothing if one is.
    pub(crate) fn spent_for(&self) -> Option<Duration> {
        let mut limit = self.limit.lock();
        limit.reset_when_due();
        (limit.remaining <= limit.kept())
            .then(|| limit.resets_at.saturating_duration_since(Instant::now()))
    }
}

impl Limit {
    /// What is left for others, of a small budget a small part.
    fn kept(&self) -> u32 {
        self.others.soon.min(self.total / 4)
    }

    fn reset_when_due(&mut self) {
        let now = Instant::now();
        if self.resets_at <= now {
            (self.remaining, self.resets_at) = (self.total, now + PERIOD);
        }
    }
}
