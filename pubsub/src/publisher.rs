//! Publishes this process's events. A queue that is full costs events, which are counted; nobody waits.

use std::sync::Arc;

use redis::{Pipeline, RedisError};
use shardmeter_proto::events::{
    EVENTS_CHANNEL, Event, GuildSettings, Message, SETTINGS_CHANNEL, SETTINGS_KEY,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    line::{Dialer, Line, Redis},
    metrics::{Lost, Purpose, RedisMetrics},
};

/// Events waiting for Redis: some seconds of a busy bot, a few hundred kB. Those that find it away wait for it here.
const QUEUE: usize = 4096;

/// Events sent to Redis at once; under load fewer and larger writes.
const BATCH: usize = 128;

/// Keeps a guild's settings and tells of them, unless Redis has the same or newer ones: then it says -1, else how many were
/// told. Settings that cannot be read are none.
const SET_IF_NEWER: &str = r"
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  local readable, settings = pcall(cjson.decode, known)
  if readable and type(settings) == 'table' and (tonumber(settings.revision) or -1) >= tonumber(ARGV[2]) then
    return -1
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return redis.call('PUBLISH', ARGV[4], ARGV[5])";

/// Hands events to the task that publishes them; the task ends when the last of its publishers is dropped and what is
/// queued is sent, or cannot be.
#[derive(Debug, Clone)]
pub struct Publisher {
    events: mpsc::Sender<Event>,
    settings: mpsc::Sender<GuildSettings>,
    lacking: Arc<watch::Sender<u64>>,
    metrics: RedisMetrics,
    _alive: Arc<DropGuard>,
}

impl Publisher {
    /// Starts the task. Messages say that they are `from` this process, if it has to know its own.
    #[must_use]
    pub fn start(
        redis: Redis,
        from: Option<String>,
        metrics: RedisMetrics,
    ) -> (Self, JoinHandle<()>) {
        let (events, queue) = mpsc::channel(QUEUE);
        let (settings, restoring) = mpsc::channel(BATCH);
        let lacking = Arc::new(watch::channel(0).0);
        let gone = CancellationToken::new();
        let task = Task {
            dialer: Dialer::new(redis, Purpose::Publisher, metrics.clone()),
            queue,
            restoring,
            lacking: Arc::clone(&lacking),
            from,
            metrics: metrics.clone(),
            gone: gone.clone(),
        };
        let task = tokio::spawn(task.run());
        let alive = Arc::new(gone.drop_guard());
        (Self { events, settings, lacking, metrics, _alive: alive }, task)
    }

    /// Publishes the event, if there is room. Never waits.
    pub fn publish(&self, event: Event) {
        if let Err(refused) = self.events.try_send(event) {
            let event = refused.into_inner();
            self.metrics.lost(event.name(), Lost::QueueFull);
            if matches!(event, Event::GuildSettingsUpdated(_)) {
                self.lack();
            }
        }
    }

    /// Says that Redis may lack settings.
    pub fn lack(&self) {
        self.lacking.send_modify(|times| *times += 1);
    }

    /// Changes whenever Redis may lack settings: with every connection to it (it may have been emptied), and when some
    /// could not be queued, or are not known ([`Publisher::lack`]). Whoever knows all settings then tells them by [`Publisher::restore`].
    #[must_use]
    pub fn lacking(&self) -> watch::Receiver<u64> {
        self.lacking.subscribe()
    }

    /// Tells Redis settings that it may have already; waits for room.
    pub async fn restore(&self, settings: GuildSettings) {
        // A task that ended has nobody to tell.
        let _ = self.settings.send(settings).await;
    }
}

struct Task {
    dialer: Dialer,
    queue: mpsc::Receiver<Event>,
    restoring: mpsc::Receiver<GuildSettings>,
    lacking: Arc<watch::Sender<u64>>,
    from: Option<String>,
    metrics: RedisMetrics,
    /// No publisher is left.
    gone: CancellationToken,
}

impl Task {
    async fn run(mut self) {
        loop {
            let dialed = self.gone.run_until_cancelled(self.dialer.dial(|_nothing_asked_for| {}));
            let Some(mut line) = dialed.await else {
                return self.give_up();
            };
            self.dialer.up();
            self.lacking.send_modify(|times| *times += 1);
            match self.publish_on(&mut line).await {
                Ok(()) => return,
                Err(error) => self.dialer.lost(&error).await,
            }
        }
    }

    /// Publishes until there is nobody left to publish for.
    async fn publish_on(&mut self, line: &mut Line) -> Result<(), RedisError> {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                error = line.broken() => return Err(error),
                some = self.queue.recv_many(&mut events, BATCH) => if some == 0 {
                    return Ok(());
                },
                Some(settings) = self.restoring.recv() => {
                    events.push(Event::GuildSettingsUpdated(settings));
                    while events.len() < BATCH && let Ok(settings) = self.restoring.try_recv() {
                        events.push(Event::GuildSettingsUpdated(settings));
                    }
                }
            }
            self.send(line, &mut events).await?;
        }
    }

    /// Sends the events; what is not confirmed is not sent again, for it may have been heard.
    async fn send(&self, line: &mut Line, events: &mut Vec<Event>) -> Result<(), RedisError> {
        let mut pipeline = Pipeline::with_capacity(events.len());
        events.retain(|event| match self.command(event) {
            Ok(command) => {
                pipeline.add_command(command);
                true
            }
            Err(_no_json) => {
                self.metrics.lost(event.name(), Lost::NotConfirmed);
                false
            }
        });
        let told: Result<Vec<i64>, RedisError> = pipeline.query_async(&mut line.redis).await;
        match told {
            Ok(told) => {
                for (event, subscribers) in events.drain(..).zip(told) {
                    // Negative: Redis had these settings.
                    if let Ok(subscribers) = u64::try_from(subscribers) {
                        self.metrics.published(event.name(), subscribers);
                    }
                }
                Ok(())
            }
            Err(error) => {
                for event in events.drain(..) {
                    self.metrics.lost(event.name(), Lost::NotConfirmed);
                }
                Err(error)
            }
        }
    }

    fn command(&self, event: &Event) -> Result<redis::Cmd, serde_json::Error> {
        let from = self.from.as_deref().map(Into::into);
        let message = serde_json::to_vec(&Message { event, from })?;
        Ok(match event {
            Event::GuildSettingsUpdated(settings) => {
                let mut eval = redis::cmd("EVAL");
                eval.arg(SET_IF_NEWER).arg(1).arg(SETTINGS_KEY);
                eval.arg(settings.guild_id.get()).arg(settings.revision);
                eval.arg(serde_json::to_vec(settings)?).arg(SETTINGS_CHANNEL).arg(message);
                eval
            }
            Event::CommandExecuted { .. } | Event::GuildJoined { .. } | Event::GuildLeft { .. } => {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(EVENTS_CHANNEL).arg(message);
                publish
            }
        })
    }

    /// Nobody waits for a Redis that is away at the end.
    fn give_up(&mut self) {
        while let Ok(event) = self.queue.try_recv() {
            self.metrics.lost(event.name(), Lost::NotConfirmed);
        }
    }
}
