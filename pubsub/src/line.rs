//! A connection to Redis that comes back: made with backoff, asked now and then, and known to have ended when it did.

use std::{convert::Infallible, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind,
    RedisError, RedisResult, aio::MultiplexedConnection,
};
use tokio::{
    sync::Notify,
    time::{Interval, MissedTickBehavior, interval, sleep},
};

use crate::metrics::{Purpose, RedisMetrics};

/// How often Redis is asked whether it is there: this long may a connection that broke without a word go unnoticed.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// A Redis next door answers in a millisecond; one that takes this long is away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Pauses between attempts to connect double from the first to the last: a Redis that was started anew is found within
/// the second in which people expect settings to be obeyed.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Where a Redis is. RESP3 is spoken (Redis 6 and later): there a connection that subscribes can ask too.
#[derive(Debug, Clone)]
pub struct Redis(Client);

impl Redis {
    /// The Redis at this address, whether it is there or not.
    ///
    /// # Errors
    /// If it is no address.
    pub fn at(url: &str) -> Result<Self, RedisError> {
        let info = url.into_connection_info()?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Client::open(info.set_redis_settings(settings)).map(Self)
    }
}

/// What is done to have a connection, and what is said of it.
pub(crate) struct Dialer {
    redis: Redis,
    purpose: Purpose,
    metrics: RedisMetrics,
    /// Whether Redis answered last; nothing before the first answer.
    up: Option<bool>,
    pause: Duration,
}

impl Dialer {
    pub(crate) fn new(redis: Redis, purpose: Purpose, metrics: RedisMetrics) -> Self {
        metrics.status(purpose, false);
        Self { redis, purpose, metrics, up: None, pause: FIRST_PAUSE }
    }

    /// A connection, as soon as there is one; what Redis says unasked goes to `told`.
    pub(crate) async fn dial(
        &mut self,
        told: impl Fn(PushInfo) + Clone + Send + Sync + 'static,
    ) -> Line {
        loop {
            match self.try_dial(told.clone()).await {
                Ok(line) => return line,
                Err(error) => self.lost(&error).await,
            }
        }
    }

    async fn try_dial(
        &self,
        told: impl Fn(PushInfo) + Clone + Send + Sync + 'static,
    ) -> RedisResult<Line> {
        let ended = Arc::new(Notify::new());
        let notify = Arc::clone(&ended);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(move |push: PushInfo| {
                match push.kind {
                    PushKind::Disconnection => notify.notify_one(),
                    _ => told(push),
                }
                Ok::<_, Infallible>(())
            });
        let redis = self.redis.0.get_multiplexed_async_connection_with_config(&config).await?;
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Line { redis, ended, ping })
    }

    /// Whether there was a time when Redis should have answered and did not.
    pub(crate) fn was_away(&self) -> bool {
        self.up == Some(false)
    }

    /// Redis answered as it should.
    pub(crate) fn up(&mut self) {
        self.pause = FIRST_PAUSE;
        self.metrics.status(self.purpose, true);
        if self.up.replace(true) != Some(true) {
            tracing::info!(connection = self.purpose.label(), "Redis is connected");
        }
    }

    /// Redis is away: says so once, and pauses before the next attempt, a bit longer each time.
    pub(crate) async fn lost(&mut self, error: &RedisError) {
        self.metrics.status(self.purpose, false);
        if self.up.replace(false) != Some(false) {
            tracing::warn!(connection = self.purpose.label(), %error, "Redis is away");
        }
        // Many that lost it at once do not come back at once.
        sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }
}

/// A connection.
pub(crate) struct Line {
    pub(crate) redis: MultiplexedConnection,
    ended: Arc<Notify>,
    ping: Interval,
}

impl Line {
    /// Watches over the connection while it has nothing else to do; returns when it broke. Can be dropped at any time, but
    /// when it just asked Redis, that is not noticed then.
    pub(crate) async fn broken(&mut self) -> RedisError {
        loop {
            tokio::select! {
                biased;
                () = self.ended.notified() => return broken_pipe(),
                _ = self.ping.tick() => {
                    if let Err(error) = redis::cmd("PING").query_async::<()>(&mut self.redis).await {
                        return error;
                    }
                }
            }
        }
    }
}

fn broken_pipe() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()
}
