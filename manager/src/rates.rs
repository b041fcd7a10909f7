//! How often a shard may send: a bucket of frames for each, filled at the rate that `[limits]` states.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Seconds' worth of frames that may come at once: a shard that catches up, or is asked for snapshots.
const BURST: u32 = 5;

/// The buckets of all shards.
#[derive(Debug)]
pub(crate) struct Rates {
    per_second: NonZeroU32,
    shards: Mutex<HashMap<u32, Arc<Rate>>>,
}

/// A shard's bucket. What all its streams and posts take comes out of one.
#[derive(Debug)]
pub(crate) struct Rate {
    shard_id: u32,
    per_second: NonZeroU32,
    /// When the bucket will be full again. That it has room for a frame is a matter of how far off this is.
    full_at: Mutex<Instant>,
}

/// A shard sends too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "shard {shard_id} sends more than {per_second} reports a second, the manager's limit; one each report interval is enough"
)]
pub(crate) struct TooFast {
    shard_id: u32,
    per_second: NonZeroU32,
    /// By then there is room for a frame.
    pub(crate) retry_after: Duration,
}

impl Rates {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, shards: Mutex::default() }
    }

    /// A shard's bucket.
    pub(crate) fn of(&self, shard_id: u32) -> Arc<Rate> {
        let mut shards = self.shards.lock();
        let rate = shards.entry(shard_id).or_insert_with(|| {
            let full_at = Mutex::new(Instant::now());
            Arc::new(Rate { shard_id, per_second: self.per_second, full_at })
        });
        Arc::clone(rate)
    }

    /// Forgets buckets that are full and in nobody's hands: a new one is no different.
    pub(crate) fn forget_full(&self) {
        let now = Instant::now();
        let mut shards = self.shards.lock();
        shards.retain(|_, rate| Arc::strong_count(rate) > 1 || *rate.full_at.lock() > now);
    }
}

impl Rate {
    /// Takes a frame out of the bucket.
    pub(crate) fn take(&self) -> Result<(), TooFast> {
        let now = Instant::now();
        let frame = Duration::from_secs(1) / self.per_second.get();
        let mut full_at = self.full_at.lock();
        let after = (*full_at).max(now) + frame;
        let room = frame * self.per_second.get() * BURST;
        if let Some(over) = after.checked_duration_since(now + room).filter(|d| !d.is_zero()) {
            let Self { shard_id, per_second, .. } = *self;
            return Err(TooFast { shard_id, per_second, retry_after: over });
        }
        *full_at = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_rate() {
        let rates = Rates::new(NonZeroU32::new(20).unwrap());
        let rate = rates.of(3);
        for _ in 0..100 {
            rate.take().unwrap();
        }
        let refused = rate.take().unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(50));
        assert_eq!(rates.of(3).take(), Err(refused), "a shard has one bucket");
        rates.of(4).take().unwrap();
        for _ in 0..200 {
            advance(Duration::from_millis(50)).await;
            rate.take().unwrap();
            assert!(rate.take().is_err());
        }
        // Ten reports a second, and a snapshot for each, never meet it.
        advance(Duration::from_secs(5)).await;
        for _ in 0..1_000 {
            advance(Duration::from_millis(100)).await;
            rate.take().and_then(|()| rate.take()).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_buckets_are_forgotten() {
        let rates = Rates::new(NonZeroU32::new(20).unwrap());
        let held = rates.of(1);
        rates.of(2).take().unwrap();
        rates.of(3);
        rates.forget_full();
        let mut known: Vec<_> = rates.shards.lock().keys().copied().collect();
        known.sort_unstable();
        assert_eq!(known, [1, 2]);
        advance(Duration::from_secs(1)).await;
        drop(held);
        rates.forget_full();
        assert!(rates.shards.lock().is_empty());
    }
}
