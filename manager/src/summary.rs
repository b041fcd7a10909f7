//! One log line a minute that sums up, so that the logs alone show a fleet that is well.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{registry::ShardState, session::Sessions};

const EVERY: Duration = Duration::from_secs(60);

/// Starts the task that logs; abort it to stop.
pub(crate) fn every_minute(sessions: Arc<Sessions>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await; // the first is at once, when there is nothing to say
        loop {
            tick.tick().await;
            let shards = sessions.registry.status(sessions.clock.now());
            let up = shards.iter().filter(|s| s.state == ShardState::Up).count();
            let series: usize = shards.iter().map(|s| s.series).sum();
            let rejects: u64 = shards.iter().flat_map(|s| &s.rejected).map(|(_, n)| n).sum();
            let samples = sessions.metrics.samples.get();
            tracing::info!(up, shards = shards.len(), series, samples, rejects, "fleet");
        }
    })
}
