//! The bot process from start to end: [`Bot::build`] asks Discord and makes the shards, [`Bot::run`] runs them.

mod build;

use std::{future::Future, sync::Arc, time::Duration};

use prometheus::Registry;
use shardmeter_proto::events::Event;
use shardmeter_pubsub::Subscriber;
use shardmeter_telemetry::Reporter;
use tokio::{
    task::{JoinError, JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

pub use self::build::BuildError;
use crate::{
    commands::ANSWER_DEADLINE,
    config::Config,
    health::Health,
    platform::{Publisher, Settings},
    shard::{FatalClose, ShardTask, Shared},
};

/// How long the shards may take to close and save their sessions.
const SHARDS_DEADLINE: Duration = Duration::from_secs(4);

/// How long the last events may take to Redis.
const PUBLISHER_DEADLINE: Duration = Duration::from_secs(2);

/// Why a running bot ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Discord closed a shard for good.
    #[error(transparent)]
    FatalClose(#[from] FatalClose),
    /// A shard's task failed. A process with a dead shard would look alive, so it ends.
    #[error("the task of a shard failed")]
    Shard(#[from] JoinError),
}

impl RunError {
    /// Whether starting again with the same configuration changes nothing.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::FatalClose(_))
    }
}

/// The registries of a bot process: what it reports, readable by tests.
#[derive(Debug, Clone)]
pub struct Registries {
    /// What the shards share; reported with the lowest shard.
    pub process: Registry,
    /// One per shard, ascending.
    pub shards: Vec<(u32, Registry)>,
}

/// The bot process, built and not yet connected to the gateway.
pub struct Bot {
    registries: Registries,
    reporters: Vec<Reporter>,
    shards: Vec<ShardTask>,
    shared: Shared,
    settings: Settings,
    /// Publishes on Redis; ends with the last publisher.
    publishing: Option<JoinHandle<()>>,
    /// Says whether it is connected.
    health: Option<Health>,
    /// Hears on Redis of settings.
    _subscriber: Option<Subscriber>,
    /// Asks Discord for the identifies left, and measures the runtime.
    _watching: [AbortOnDropHandle<()>; 2],
}

impl Bot {
    /// Asks Discord where its gateway is, and makes shards, registries and reporters. Neither the manager nor Redis
    /// needs to be there.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        build::build(config, None).await
    }

    /// The same, with someone in this process who hears of the bot's events instead of Redis, and does not wait; settings
    /// come by [`Bot::settings`].
    pub async fn build_beside(
        config: Config,
        hear: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, BuildError> {
        build::build(config, Some(Publisher::Beside(Arc::new(hear)))).await
    }

    /// What guilds have set; for those who bring settings otherwise than by Redis.
    pub fn settings(&self) -> Settings {
        self.settings.clone()
    }

    /// The registries this bot reports.
    pub fn registries(&self) -> Registries {
        self.registries.clone()
    }

    /// Runs the shards until `shutdown`; then closes them such that their sessions can be resumed, lets the commands
    /// being answered end, saves the sessions, and sends the last reports. Each step has a deadline.
    ///
    /// An error is what reconnecting cannot cure; the same clean end comes before it is returned.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let _health = self.health.map(|health| AbortOnDropHandle::new(tokio::spawn(health.run())));
        let mut running = JoinSet::new();
        for shard in self.shards {
            running.spawn(shard.run());
        }
        let result = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = running.join_next() => flatten(ended),
        };
        let Shared { commands, publisher, stop, .. } = self.shared;
        stop.cancel();
        let result = close_shards(running, result).await;
        within(ANSWER_DEADLINE, "commands", commands.finish()).await;
        drop((commands, publisher));
        if let Some(publishing) = self.publishing {
            within(PUBLISHER_DEADLINE, "events for Redis", publishing).await;
        }
        finish_reports(self.reporters).await;
        result
    }
}

/// Waits for the shards to close and save; the first error is the one to tell.
async fn close_shards(
    mut running: JoinSet<Result<(), FatalClose>>,
    mut result: Result<(), RunError>,
) -> Result<(), RunError> {
    within(SHARDS_DEADLINE, "shards", async {
        while let Some(ended) = running.join_next().await {
            result = std::mem::replace(&mut result, Ok(())).and_then(|()| flatten(ended));
        }
    })
    .await;
    result
}

/// Sends the last reports; each reporter has a deadline of its own.
async fn finish_reports(reporters: Vec<Reporter>) {
    let mut ending: JoinSet<_> = reporters.into_iter().map(Reporter::shutdown).collect();
    while let Some(ended) = ending.join_next().await {
        if let Ok(Err(error)) = ended {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the manager may lack the last counts of a shard");
        }
    }
}

fn flatten(ended: Result<Result<(), FatalClose>, JoinError>) -> Result<(), RunError> {
    Ok(ended??)
}

/// Waits for the end of something, but not for ever.
async fn within<T>(deadline: Duration, what: &str, end: impl Future<Output = T>) {
    if timeout(deadline, end).await.is_err() {
        tracing::warn!(?deadline, "shutting down without waiting any longer for {what}");
    }
}
