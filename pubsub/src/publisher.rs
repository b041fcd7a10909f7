//! Publishes this process's events. A queue that is full costs events, which are counted; nobody waits.

use std::{sync::Arc, time::Duration};

use redis::{Pipeline, RedisError, RedisResult};
use shardmeter_process::traces::part_of_trace;
use shardmeter_proto::events::{
    EVENTS_CHANNEL, Event, GuildSettings, Message, SETTINGS_CHANNEL, SETTINGS_KEY,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Span, info_span};

use crate::{
    line::{Dialer, Line, Redis},
    metrics::{Lost, Purpose, RedisMetrics},
};

/// Events waiting for Redis: some seconds of a busy bot, a few hundred kB. Those that find it away wait for it here.
const QUEUE: usize = 4096;

/// Events sent to Redis at once; under load fewer and larger writes.
const BATCH: usize = 128;

/// How often Redis is asked whether it still has what it was told.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A mark of this process beside the settings lasts that long in seconds, unless it is asked for. Who is stopped longer than
/// that tells all settings once more.
const MARK_LASTS: u32 = 60;

/// Keeps a guild's settings and tells of them; then it says how many were told. If Redis has the same it says -1, if it has
/// newer ones -2. Settings that cannot be read are none; what cannot be kept is not told.
const SET_IF_NEWER: &str = r"
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  local readable, settings = pcall(cjson.decode, known)
  local revision = readable and type(settings) == 'table' and tonumber(settings.revision) or -1
  if revision > tonumber(ARGV[2]) then
    return -2
  elseif revision == tonumber(ARGV[2]) then
    return -1
  end
end
local kept = redis.pcall('HSET', KEYS[1], ARGV[1], ARGV[3])
if type(kept) == 'table' and kept.err then
  return kept
end
return redis.call('PUBLISH', ARGV[4], ARGV[5])";

/// Hands events to the task that publishes them; the task ends when the last of its publishers is dropped and what is
/// queued is sent, or cannot be.
#[derive(Debug, Clone)]
pub struct Publisher {
    events: mpsc::Sender<Queued>,
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
            mark: format!("{SETTINGS_KEY}:mark:{:016x}", fastrand::u64(..)),
            whole: false,
            full: false,
            behind: None,
        };
        metrics.expect_to_publish();
        let task = tokio::spawn(task.run());
        let alive = Arc::new(gone.drop_guard());
        (Self { events, settings, lacking, metrics, _alive: alive }, task)
    }

    /// Publishes the event, if there is room. Never waits.
    pub fn publish(&self, event: Event) {
        if let Err(refused) = self.events.try_send(event.into()) {
            let event = refused.into_inner().event;
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

    /// Changes whenever Redis may lack settings: with every connection to it, when it was emptied, when it was full and takes
    /// some again, and when some could not be queued, or are not known ([`Publisher::lack`]). Whoever knows all settings then tells them by [`Publisher::restore`].
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

/// An event on its way to Redis.
#[derive(Debug)]
struct Queued {
    event: Event,
    /// Of the trace that it is part of, until it has ended.
    _span: Span,
}

impl From<Event> for Queued {
    fn from(event: Event) -> Self {
        let span = || info_span!("publish", otel.kind = "producer", event = event.name());
        Self { _span: part_of_trace(span), event }
    }
}

struct Task {
    dialer: Dialer,
    queue: mpsc::Receiver<Queued>,
    restoring: mpsc::Receiver<GuildSettings>,
    lacking: Arc<watch::Sender<u64>>,
    from: Option<String>,
    metrics: RedisMetrics,
    /// No publisher is left.
    gone: CancellationToken,
    /// A key of this process's own in Redis: who lost it, lost settings.
    mark: String,
    /// Redis has the mark, and took all settings that it was told since.
    whole: bool,
    /// It was said that Redis is full.
    full: bool,
    /// Which time that all settings were told it was said that Redis has newer ones.
    behind: Option<u64>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let dialed = self.gone.run_until_cancelled(self.dialer.dial(|_nothing_asked_for| {}));
            let Some(mut line) = dialed.await else {
                return self.give_up();
            };
            self.dialer.up();
            self.whole = false;
            match self.publish_on(&mut line).await {
                Ok(()) => return,
                Err(error) => self.dialer.lost(&error).await,
            }
        }
    }

    /// Publishes until there is nobody left to publish for.
    async fn publish_on(&mut self, line: &mut Line) -> Result<(), RedisError> {
        let mut events = Vec::with_capacity(BATCH);
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                error = line.broken() => return Err(error),
                _ = look.tick() => {
                    self.look(line).await?;
                    continue;
                }
                some = self.queue.recv_many(&mut events, BATCH) => if some == 0 {
                    return Ok(());
                },
                Some(settings) = self.restoring.recv() => {
                    events.push(Event::GuildSettingsUpdated(settings).into());
                    while events.len() < BATCH && let Ok(settings) = self.restoring.try_recv() {
                        events.push(Event::GuildSettingsUpdated(settings).into());
                    }
                }
            }
            self.send(line, &mut events).await?;
        }
    }

    /// Has all settings told anew if Redis lost its mark, as one that was emptied did, or had no room for some.
    async fn look(&mut self, line: &mut Line) -> Result<(), RedisError> {
        if self.lacking.receiver_count() == 0 {
            return Ok(()); // a bot, which knows no settings
        }
        if self.whole {
            let mut expire = redis::cmd("EXPIRE");
            if expire.arg(&self.mark).arg(MARK_LASTS).query_async(&mut line.redis).await? {
                return Ok(());
            }
            tracing::warn!("Redis was emptied; it is told all settings anew");
        }
        // First the mark: what is lost while settings are told is lost with it.
        let mut set = redis::cmd("SET");
        set.arg(&self.mark).arg("").arg("EX").arg(MARK_LASTS);
        match set.query_async::<()>(&mut line.redis).await {
            Ok(()) => {
                (self.whole, self.full) = (true, false);
                self.lacking.send_modify(|times| *times += 1);
                Ok(())
            }
            Err(error) if is_full(&error) => {
                self.has_no_room(&error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the events; what is not confirmed is not sent again, for it may have been heard.
    async fn send(&mut self, line: &mut Line, events: &mut Vec<Queued>) -> Result<(), RedisError> {
        let mut pipeline = Pipeline::with_capacity(events.len());
        events.retain(|Queued { event, .. }| match self.command(event) {
            Ok(command) => {
                pipeline.add_command(command);
                true
            }
            Err(_no_json) => {
                self.metrics.lost(event.name(), Lost::NotConfirmed);
                false
            }
        });
        // Each has its own answer: one for which there is no room is none of the others' business.
        let told: RedisResult<Vec<RedisResult<i64>>> =
            pipeline.ignore_errors().query_async(&mut line.redis).await;
        match told {
            Ok(told) => {
                // All are looked at, whatever the first says.
                let mut done = Ok(());
                for (queued, told) in events.drain(..).zip(told) {
                    done = done.and(self.was_told(&queued.event, told));
                }
                done
            }
            Err(error) => {
                for Queued { event, .. } in events.drain(..) {
                    self.metrics.lost(event.name(), Lost::NotConfirmed);
                }
                Err(error)
            }
        }
    }

    /// What Redis said to an event. An error if the connection is of no use.
    fn was_told(&mut self, event: &Event, told: RedisResult<i64>) -> Result<(), RedisError> {
        match told {
            // It had these settings.
            Ok(-1) => {}
            Ok(subscribers) => match u64::try_from(subscribers) {
                Ok(subscribers) => self.metrics.published(event.name(), subscribers),
                Err(_negative) => {
                    self.metrics.lost(event.name(), Lost::Older);
                    self.is_behind(event);
                }
            },
            Err(error) if is_full(&error) => {
                self.metrics.lost(event.name(), Lost::NoRoom);
                self.has_no_room(&error);
            }
            Err(error) => {
                self.metrics.lost(event.name(), Lost::NotConfirmed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// What Redis did not take it is told anew when it takes the mark.
    fn has_no_room(&mut self, error: &RedisError) {
        self.whole = false;
        if !std::mem::replace(&mut self.full, true) {
            tracing::error!(%error, "Redis is full: bots do not learn of settings that change");
        }
    }

    /// Of many guilds if the database was put back to an earlier state.
    fn is_behind(&mut self, event: &Event) {
        let times = *self.lacking.borrow();
        if self.behind.replace(times) != Some(times) {
            let guild_id = event.guild_id().map(tracing::field::display);
            tracing::warn!(guild_id, "Redis has newer settings than the api, and bots obey those");
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
        while let Ok(Queued { event, .. }) = self.queue.try_recv() {
            self.metrics.lost(event.name(), Lost::NotConfirmed);
        }
    }
}

/// Whether Redis has reached its `maxmemory`: it does what takes no memory, as publishing.
fn is_full(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}
