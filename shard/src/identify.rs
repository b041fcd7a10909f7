//! Whose turn it is to identify: of the shards with one rate limit key (`shard_id % max_concurrency`) one in five seconds,
//! whatever processes they run in (reference, "Rate Limiting" of sharding), and none beyond the day's budget.
//!
//! Within the process the shards of a key queue up. Beside other processes each turn is also leased in Redis. While that is
//! away, each shard has its own turns by the clock, so that processes that cannot talk still do not meet: to meet costs an
//! identify, and what a whole fleet would waste at a start can cost the bot its token.

mod budget;
mod lease;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use redis::RedisError;
use tokio::{
    sync::{Mutex, oneshot},
    time::{Instant, sleep, sleep_until},
};
use twilight_gateway::queue::Queue;

pub(crate) use self::budget::Budget;
use self::lease::Lease;
use crate::metrics::IdentifyMetrics;

/// Between two identifies of a key. Discord says 5 s; the way there takes longer at one time than at another.
pub(crate) const IDENTIFY_INTERVAL: Duration = Duration::from_millis(5_250);

/// How long after a spent budget it is looked at again: Discord may have said something new.
const LONGEST_BUDGET_PAUSE: Duration = Duration::from_secs(10);

/// What gave a shard its turn; also the label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The queue of this process alone.
    Process,
    /// A lease in Redis.
    Redis,
    /// The clock, because Redis is away.
    Clock,
}

impl Source {
    const ALL: [Self; 3] = [Self::Process, Self::Redis, Self::Clock];

    fn label(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Redis => "redis",
            Self::Clock => "clock",
        }
    }
}

impl IdentifyMetrics {
    /// Shows every way to a turn from the start, so that a rate sees the first.
    pub(crate) fn start_at_zero(&self) {
        for source in Source::ALL {
            self.gateway_identify_turns_total.with_label_values(&[source.label()]);
        }
    }
}

/// What turns go by.
pub(crate) struct Pace {
    /// Discord's number of keys; 0: nobody waits.
    pub(crate) max_concurrency: u16,
    /// Shards of the bot.
    pub(crate) shard_count: u32,
    /// Between two turns of a key.
    pub(crate) interval: Duration,
}

impl Pace {
    fn key(&self, shard: u32) -> Option<u32> {
        shard.checked_rem(self.max_concurrency.into())
    }

    /// How long until the shard's next turn by the clock that is not sooner than `quiet`. The shards of a key have one after
    /// the other, over and over: at this moment, not after it, or the next in line would come too soon.
    fn by_clock(&self, shard: u32, now: Duration, quiet: Duration) -> Duration {
        let keys = u32::from(self.max_concurrency).max(1);
        let interval = self.interval.as_nanos().max(1);
        let cycle = interval * u128::from(self.shard_count.div_ceil(keys).max(1));
        let turn = interval * u128::from(shard / keys);
        let earliest = (now + quiet).as_nanos();
        // Both are below the cycle.
        let rest = (turn + cycle - earliest % cycle) % cycle;
        quiet + Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
    }
}

/// The queue of the process's shards, as twilight asks for it.
#[derive(Clone)]
pub(crate) struct IdentifyQueue(Arc<Turns>);

impl IdentifyQueue {
    /// Turns for these shards; beside other processes by leases in the Redis at `redis`.
    pub(crate) fn new(
        shards: impl Iterator<Item = u32>,
        pace: Pace,
        budget: Budget,
        redis: Option<&str>,
        metrics: IdentifyMetrics,
    ) -> Result<Self, RedisError> {
        let shards: Vec<_> = shards.collect();
        let alone = shards.len() as u64 == u64::from(pace.shard_count);
        if !alone {
            budget.share(pace.max_concurrency.into(), pace.shard_count);
        }
        let now = Instant::now();
        let keys = shards.into_iter().filter_map(|shard| pace.key(shard));
        let keys = keys.map(|key| (key, Mutex::new(now))).collect();
        let lease = redis.map(|url| Lease::at(url, pace.interval)).transpose()?;
        Ok(Self(Arc::new(Turns { pace, alone, keys, lease, budget, metrics })))
    }
}

impl Queue for IdentifyQueue {
    fn enqueue(&self, shard: u32) -> oneshot::Receiver<()> {
        let (mut turn, waiting) = oneshot::channel();
        let turns = Arc::clone(&self.0);
        let counted = Waiting::new(&turns.metrics);
        // One task a shard at most: twilight forgets the old question before it asks anew, which ends its task.
        tokio::spawn(async move {
            let _counted = counted;
            tokio::select! {
                biased;
                () = turn.closed() => {}
                source = turns.wait(shard) => {
                    turns.metrics.gateway_identify_turns_total.with_label_values(&[source.label()]).inc();
                    // Who is gone by now wastes the turn.
                    let _ = turn.send(());
                }
            }
        });
        waiting
    }
}

/// A shard that waits, as long as it does.
struct Waiting(prometheus::IntGauge);

impl Waiting {
    fn new(metrics: &IdentifyMetrics) -> Self {
        let waiting = metrics.gateway_identifies_waiting.clone();
        waiting.inc();
        Self(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Turns {
    pace: Pace,
    /// No other process has shards of this bot, or only while it replaces this one.
    alone: bool,
    /// When each key of this process's shards is free. Locked as long as a shard waits for its turn: first come, first served.
    keys: BTreeMap<u32, Mutex<Instant>>,
    lease: Option<Lease>,
    budget: Budget,
    metrics: IdentifyMetrics,
}

impl Turns {
    async fn wait(&self, shard: u32) -> Source {
        let key = self.pace.key(shard).and_then(|key| Some((key, self.keys.get(&key)?)));
        let Some((key, turn)) = key else {
            while !self.budget.spend() {
                self.within_budget(shard).await;
            }
            return Source::Process;
        };
        let mut free_at = turn.lock().await;
        loop {
            self.within_budget(shard).await;
            let source = match &self.lease {
                Some(lease) => self.beside_others(lease, key, shard, *free_at).await,
                None => {
                    sleep_until(*free_at).await;
                    Source::Process
                }
            };
            if self.budget.spend() {
                *free_at = Instant::now() + self.pace.interval;
                return source;
            }
        }
    }

    /// Waits while the day's identifies are used up: one more, and Discord ends all sessions and resets the token.
    async fn within_budget(&self, shard: u32) {
        let Some(mut left) = self.budget.spent_for() else { return };
        tracing::error!(
            shard_id = shard,
            reset_in = ?left,
            "no identify can be spared before Discord's reset; the shard waits, for one too many would cost the token"
        );
        loop {
            sleep(left.min(LONGEST_BUDGET_PAUSE)).await;
            match self.budget.spent_for() {
                Some(still) => left = still,
                None => return,
            }
        }
    }

    async fn beside_others(&self, lease: &Lease, key: u32, shard: u32, free_at: Instant) -> Source {
        loop {
            // A turn by the clock may begin just when the one before it ends: it is not to be missed by waiting for that.
            if self.alone || !lease.is_away() {
                sleep_until(free_at).await;
            }
            match lease.take(key).await {
                Ok(None) if Instant::now() >= free_at => return Source::Redis,
                // Redis is back too soon for this process. A lease that began now would end too soon for others.
                Ok(None) => sleep_until(free_at).await,
                Ok(Some(left)) => sleep(left).await,
                Err(_away) if self.alone => return Source::Process,
                Err(away) => {
                    // Who leased while Redis was there may identify until an interval is over; this process has its own turns
                    // by the clock an interval apart, give or take how late a timer is.
                    let own = free_at.checked_sub(lease.pause()).unwrap_or(free_at);
                    let quiet = (away.since + self.pace.interval).max(own);
                    let quiet = quiet.saturating_duration_since(Instant::now());
                    let wait = self.pace.by_clock(shard, away.unix_now(), quiet);
                    // Asked once more, Redis could take so long that the turn is missed.
                    if wait > lease.patience() {
                        sleep(lease.pause()).await;
                        continue;
                    }
                    let turn = Instant::now() + wait;
                    sleep_until(turn).await;
                    // Who was stopped meanwhile has missed it, for the next in line keeps to its own. So late is the interval
                    // longer than Discord's.
                    if turn.elapsed() <= self.pace.interval / 20 {
                        return Source::Clock;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
