//! The bot's events on Redis. One task owns the connection; a full queue or a Redis that is away costs events, which are
//! counted, and never makes a command wait.

use std::time::Duration;

use redis::{
    Client,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinHandle, time::MissedTickBehavior};
use twilight_model::id::{Id, marker::GuildMarker};

use crate::metrics::RedisMetrics;

/// The Redis channel the bot's events are published on.
pub const EVENTS_CHANNEL: &str = "shardmeter:events";

/// Events waiting for Redis: some seconds of a busy bot, a few hundred kB.
const QUEUE: usize = 4096;

/// How often Redis is asked whether it is there while there is nothing to publish.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A Redis next door answers in a millisecond; one that takes this long is away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// This process's one kind of connection to Redis.
const CONNECTION: &str = "publisher";

/// What others on Redis may want to know, as JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum BotEvent {
    /// Discord confirmed the answer to a command.
    CommandExecuted { shard_id: u32, command_name: &'static str, guild_id: Option<Id<GuildMarker>> },
    /// The bot was added to a guild.
    GuildJoined { shard_id: u32, guild_id: Id<GuildMarker> },
    /// The bot was removed from a guild.
    GuildLeft { shard_id: u32, guild_id: Id<GuildMarker> },
}

impl BotEvent {
    /// The event's name, in JSON and as a label value.
    fn name(&self) -> &'static str {
        match self {
            Self::CommandExecuted { .. } => "command_executed",
            Self::GuildJoined { .. } => "guild_joined",
            Self::GuildLeft { .. } => "guild_left",
        }
    }
}

/// Why an event was not published; also the label value.
#[derive(Clone, Copy)]
enum Lost {
    QueueFull,
    NotConfirmed,
}

impl Lost {
    fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::NotConfirmed => "not_confirmed",
        }
    }
}

/// Hands events to the task that publishes them; without a Redis it hands them to nobody.
#[derive(Clone)]
pub(crate) struct Publisher(Option<Queue>);

#[derive(Clone)]
struct Queue {
    events: mpsc::Sender<BotEvent>,
    metrics: RedisMetrics,
}

impl Publisher {
    /// Nobody wants the events.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Starts the task that publishes on the Redis at `url`; it ends when the last publisher is dropped and the queue is
    /// empty. Fails if the address is none: a Redis that is away is waited for.
    pub(crate) fn start(
        url: &str,
        metrics: RedisMetrics,
    ) -> Result<(Self, JoinHandle<()>), redis::RedisError> {
        // One retry by the connection itself, for the next event is one as well.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(ANSWER_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let redis = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        metrics.redis_connection_status.with_label_values(&[CONNECTION]).set(0);
        let (events, queue) = mpsc::channel(QUEUE);
        let connection = Connection { redis, metrics: metrics.clone(), up: None };
        let task = tokio::spawn(connection.run(queue));
        Ok((Self(Some(Queue { events, metrics })), task))
    }

    /// Publishes the event, if there is room. Never waits.
    pub(crate) fn publish(&self, event: BotEvent) {
        if let Some(Queue { events, metrics }) = &self.0
            && let Err(refused) = events.try_send(event)
        {
            count_lost(metrics, &refused.into_inner(), Lost::QueueFull);
        }
    }
}

fn count_lost(metrics: &RedisMetrics, event: &BotEvent, reason: Lost) {
    let labels = [event.name(), reason.label()];
    metrics.redis_pubsub_messages_dropped_total.with_label_values(&labels).inc();
}

/// The task's side: the connection, and what is known of it.
struct Connection {
    redis: ConnectionManager,
    metrics: RedisMetrics,
    /// Whether Redis answered last; nothing before the first answer.
    up: Option<bool>,
}

impl Connection {
    async fn run(mut self, mut queue: mpsc::Receiver<BotEvent>) {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = ping.tick() => {
                    let pong: redis::RedisResult<()> = redis::cmd("PING").query_async(&mut self.redis).await;
                    self.answered(&pong);
                }
                event = queue.recv() => match event {
                    Some(event) => self.publish(&event).await,
                    None => return,
                },
            }
        }
    }

    async fn publish(&mut self, event: &BotEvent) {
        let Ok(json) = serde_json::to_string(event) else {
            return count_lost(&self.metrics, event, Lost::NotConfirmed);
        };
        let subscribers: redis::RedisResult<u64> =
            redis::cmd("PUBLISH").arg(EVENTS_CHANNEL).arg(json).query_async(&mut self.redis).await;
        self.answered(&subscribers);
        match subscribers {
            Ok(subscribers) => {
                let labels = [event.name()];
                let metrics = &self.metrics;
                metrics.redis_pubsub_messages_published_total.with_label_values(&labels).inc();
                metrics
                    .redis_pubsub_messages_delivered_total
                    .with_label_values(&labels)
                    .inc_by(subscribers);
            }
            Err(_) => count_lost(&self.metrics, event, Lost::NotConfirmed),
        }
    }

    /// Shows whether Redis is there, and says so when that changes.
    fn answered<T>(&mut self, answer: &redis::RedisResult<T>) {
        let up = answer.is_ok();
        self.metrics.redis_connection_status.with_label_values(&[CONNECTION]).set(up.into());
        if self.up.replace(up) == Some(up) {
            return;
        }
        match answer {
            Ok(_) => tracing::info!("Redis is connected"),
            Err(error) => tracing::warn!(%error, "Redis is away; events are dropped"),
        }
    }
}
