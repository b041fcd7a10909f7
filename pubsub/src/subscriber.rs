//! Hears what others publish: one connection that subscribes, anew after every outage.

use redis::{Msg, PushInfo, RedisError, aio::MultiplexedConnection};
use shardmeter_proto::events::{Event, GuildSettings, MAX_MESSAGE_BYTES, Message, SETTINGS_KEY};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    line::{Dialer, Line, Redis},
    metrics::{Lost, Purpose, RedisMetrics, UNKNOWN},
};

/// Messages that came and were not looked at yet; of the longest ones 64 MiB. Who cannot keep up with that begins anew.
const MESSAGES: usize = 4096;

/// Settings asked of Redis at once: Redis does nothing else while it looks for them.
const SETTINGS_AT_ONCE: usize = 512;

/// A field of the hash: the guild's id, and its settings.
type Kept = (Vec<u8>, Vec<u8>);

/// What a process wants to hear.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The channels.
    pub channels: &'static [&'static str],
    /// Whether it also wants all guilds' settings, told as events after each connection.
    pub settings: bool,
    /// How this process signs what it publishes, which it does not hear.
    pub own: Option<String>,
}

/// What a process hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something happened.
    Event(Event),
    /// Something may have happened meanwhile that nobody will tell: Redis was away.
    Interrupted,
}

/// A subscription; it ends when this is dropped.
#[derive(Debug)]
pub struct Subscriber {
    task: AbortOnDropHandle<()>,
}

impl Subscriber {
    /// Starts to listen; `hear` is told, in the order in which Redis says it, and does not wait.
    #[must_use]
    pub fn start(
        redis: Redis,
        wanted: Wanted,
        metrics: RedisMetrics,
        hear: impl FnMut(Heard) + Send + 'static,
    ) -> Self {
        metrics.expect_to_hear();
        let dialer = Dialer::new(redis, Purpose::Subscriber, metrics.clone());
        let task = Task { dialer, wanted, metrics, hear };
        Self { task: AbortOnDropHandle::new(tokio::spawn(task.run())) }
    }

    /// Listens on until it cannot any more, which is a mistake that was reported where it was.
    pub async fn ended(self) {
        let _ended = self.task.await;
    }
}

struct Task<F> {
    dialer: Dialer,
    wanted: Wanted,
    metrics: RedisMetrics,
    hear: F,
}

impl<F: FnMut(Heard)> Task<F> {
    async fn run(mut self) {
        loop {
            let error = self.listen().await;
            self.dialer.lost(&error).await;
        }
    }

    /// One connection, from the first to the last that is heard on it.
    async fn listen(&mut self) -> RedisError {
        let (sender, mut messages) = mpsc::channel(MESSAGES);
        let (overrun, mut overran) = mpsc::channel(1);
        let metrics = self.metrics.clone();
        let told = move |push: PushInfo| {
            let Some(message) = Msg::from_push_info(push) else {
                return;
            };
            if message.get_payload_bytes().len() > MAX_MESSAGE_BYTES {
                metrics.lost(UNKNOWN, Lost::TooLarge);
            } else if sender.try_send(message).is_err() {
                metrics.lost(UNKNOWN, Lost::QueueFull);
                // Full is as good as one more.
                let _ = overrun.try_send(());
            }
        };
        let mut line = self.dialer.dial(told).await;
        // First to hear of changes, then how things stand: what changes in between is heard of twice, and never missed.
        if let Err(error) = line.redis.subscribe(self.wanted.channels).await {
            return error;
        }
        if self.dialer.was_away() {
            (self.hear)(Heard::Interrupted);
        }
        self.dialer.up();
        if self.wanted.settings
            && let Err(error) = self.ask_for_settings(&mut line.redis).await
        {
            return error;
        }
        self.hear_on(&mut line, &mut messages, &mut overran).await
    }

    async fn hear_on(
        &mut self,
        line: &mut Line,
        messages: &mut mpsc::Receiver<Msg>,
        overran: &mut mpsc::Receiver<()>,
    ) -> RedisError {
        loop {
            tokio::select! {
                biased;
                Some(()) = overran.recv() => return slow(),
                Some(message) = messages.recv() => self.hear(message.get_payload_bytes()),
                error = line.broken() => return error,
            }
        }
    }

    fn hear(&mut self, payload: &[u8]) {
        let Some(Message { event, from }) = Message::read(payload) else {
            return self.metrics.lost(UNKNOWN, Lost::Undecodable);
        };
        if from.is_some() && from.as_deref() == self.wanted.own.as_deref() {
            return;
        }
        self.metrics.received(event.name());
        (self.hear)(Heard::Event(event));
    }

    /// Tells of all settings that Redis has, some at a time.
    async fn ask_for_settings(
        &mut self,
        redis: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let mut cursor = 0;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(SETTINGS_KEY).arg(cursor).arg("COUNT").arg(SETTINGS_AT_ONCE);
            let (next, some): (u64, Vec<Kept>) = scan.query_async(redis).await?;
            for (_guild, json) in some {
                match serde_json::from_slice::<GuildSettings>(&json) {
                    Ok(settings) => {
                        (self.hear)(Heard::Event(Event::GuildSettingsUpdated(settings)));
                    }
                    Err(_) => self.metrics.lost(UNKNOWN, Lost::Undecodable),
                }
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

fn slow() -> RedisError {
    std::io::Error::other("more was said than this process could listen to").into()
}
