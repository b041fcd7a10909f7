//! How often each of many may do something: a bucket of turns for each, filled at a rate.

use std::{collections::HashMap, hash::Hash, num::NonZeroU32, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Seconds' worth of turns that may be taken at once: a shard that catches up, a page that loads.
const BURST: u32 = 5;

/// Buckets at most: some 20 MB. Beyond, newcomers share one with somebody else.
const MOST: usize = 1 << 18;

/// The buckets of all that may.
#[derive(Debug)]
pub struct Rates<Who> {
    per_second: NonZeroU32,
    buckets: Mutex<HashMap<Who, Arc<Rate<Who>>>>,
}

/// The bucket of one.
#[derive(Debug)]
pub struct Rate<Who> {
    who: Who,
    per_second: NonZeroU32,
    /// When the bucket will be full again. That it has a turn left is a matter of how far off this is.
    full_at: Mutex<Instant>,
}

/// Somebody does it too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFast<Who> {
    /// As they were named.
    pub who: Who,
    /// What they may, over time.
    pub per_second: NonZeroU32,
    /// By then there is a turn left.
    pub retry_after: Duration,
}

impl<Who: Copy + Eq + Hash> Rates<Who> {
    /// For all of them the same rate.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, buckets: Mutex::default() }
    }

    /// The bucket of one.
    pub fn of(&self, who: Who) -> Arc<Rate<Who>> {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MOST
            && !buckets.contains_key(&who)
            && let Some(shared) = buckets.values().next()
        {
            return Arc::clone(shared);
        }
        let rate = buckets.entry(who).or_insert_with(|| {
            let full_at = Mutex::new(Instant::now());
            Arc::new(Rate { who, per_second: self.per_second, full_at })
        });
        Arc::clone(rate)
    }

    /// Forgets buckets that are full and in nobody's hands: a new one is no different. Meant to be called every second.
    pub fn forget_full(&self) {
        let now = Instant::now();
        let mut buckets = self.buckets.lock();
        buckets.retain(|_, rate| Arc::strong_count(rate) > 1 || *rate.full_at.lock() > now);
    }
}

impl<Who: Copy> Rate<Who> {
    /// Takes a turn out of the bucket.
    ///
    /// # Errors
    /// If none is left.
    pub fn take(&self) -> Result<(), TooFast<Who>> {
        let now = Instant::now();
        let turn = Duration::from_secs(1) / self.per_second.get();
        let mut full_at = self.full_at.lock();
        let after = (*full_at).max(now) + turn;
        let room = turn * self.per_second.get() * BURST;
        if let Some(over) = after.checked_duration_since(now + room).filter(|d| !d.is_zero()) {
            let Self { who, per_second, .. } = *self;
            return Err(TooFast { who, per_second, retry_after: over });
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
        assert_eq!(rates.of(3).take(), Err(refused), "each has one bucket");
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

    #[test]
    fn strangers_make_no_endless_buckets() {
        let rates = Rates::new(NonZeroU32::MIN);
        let known = rates.of(7);
        for who in 0..MOST + 10 {
            rates.of(who);
        }
        assert_eq!(rates.buckets.lock().len(), MOST);
        assert!(Arc::ptr_eq(&known, &rates.of(7)));
        assert!(rates.of(MOST).take().is_ok(), "newcomers are let in all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn full_buckets_are_forgotten() {
        let rates = Rates::new(NonZeroU32::new(20).unwrap());
        let held = rates.of(1);
        rates.of(2).take().unwrap();
        rates.of(3);
        rates.forget_full();
        let mut known: Vec<_> = rates.buckets.lock().keys().copied().collect();
        known.sort_unstable();
        assert_eq!(known, [1, 2]);
        advance(Duration::from_secs(1)).await;
        drop(held);
        rates.forget_full();
        assert!(rates.buckets.lock().is_empty());
    }
}
