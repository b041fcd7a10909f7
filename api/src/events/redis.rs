//! The bus on Redis: what others publish is told here, what is published here is told there, and Redis is made to know
//! all settings.

use std::time::Duration;

use prometheus::Registry;
use shardmeter_proto::events::{self, EVENTS_CHANNEL, GuildId, GuildSettings, SETTINGS_CHANNEL};
use shardmeter_pubsub::{Heard, Publisher, Redis, RedisError, RedisMetrics, Subscriber, Wanted};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Event, EventTasks, Events};
use crate::store::{Settings, Store, StoreError};

/// Settings read from the database at once.
const PAGE: u32 = 500;

/// Before the database is asked again that could not say.
const PAUSE: Duration = Duration::from_secs(1);

/// What the bus has of Redis.
#[derive(Debug)]
pub(super) struct OnRedis {
    publisher: Publisher,
    metrics: RedisMetrics,
}

impl OnRedis {
    /// Tells others, if there is room. Never waits.
    pub(super) fn publish(&self, event: events::Event) {
        self.publisher.publish(event);
    }

    /// Has all settings told anew.
    pub(super) fn settings_unknown(&self) {
        self.publisher.lack();
    }

    pub(super) fn is_up(&self) -> bool {
        self.metrics.is_up()
    }
}

/// Why the bus cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `REDIS_URL` is no address.
    #[error("REDIS_URL cannot be used: {0}")]
    Redis(#[from] RedisError),
    /// A mistake of this crate.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Starts the bus on the Redis at `url`, or without one within this process.
///
/// # Errors
/// If the address is none. A Redis that is away is waited for.
pub(crate) fn start(
    url: Option<&str>,
    store: Store,
    registry: &Registry,
    stop: CancellationToken,
) -> Result<(Events, EventTasks), StartError> {
    let Some(url) = url else {
        tracing::warn!("no REDIS_URL: events and settings stay within this process");
        return Ok(Events::within_process(stop));
    };
    let redis = Redis::at(url)?;
    let metrics = RedisMetrics::register(registry)?;
    // Nothing but another than other processes have.
    let own = format!("{:016x}", fastrand::u64(..));
    let (publisher, publishing) =
        Publisher::start(redis.clone(), Some(own.clone()), metrics.clone());
    let restoring = tokio::spawn(keep_restoring(publisher.clone(), store));
    let on_redis = OnRedis { publisher, metrics: metrics.clone() };
    let (events, mut tasks) = Events::new(Some(on_redis), stop);
    let hearing = events.clone();
    let channels = &[EVENTS_CHANNEL, SETTINGS_CHANNEL];
    let wanted = Wanted { channels, settings: false, own: Some(own) };
    let subscriber = Subscriber::start(redis, wanted, metrics, move |heard| {
        hearing.0.push(match heard {
            Heard::Event(event) => Event::Platform(event),
            Heard::Interrupted => Event::Gap,
        });
    });
    tasks.add("publisher", publishing);
    tasks.add("restoring of settings", restoring);
    tasks.add("subscriber", tokio::spawn(subscriber.ended()));
    Ok((events, tasks))
}

/// Tells Redis all settings whenever it may lack some: so one that was emptied knows them again, and what changed while it
/// was away is obeyed after. So too when the database comes back: if it was put back to an earlier state, Redis says so.
async fn keep_restoring(publisher: Publisher, store: Store) {
    let mut lacking = publisher.lacking();
    let mut database = store.comings();
    loop {
        tokio::select! {
            changed = lacking.changed() => if changed.is_err() {
                return;
            },
            Ok(()) = database.changed() => {
                publisher.lack();
                continue;
            }
        }
        while let Err(error) = restore(&publisher, &store).await {
            tracing::debug!(%error, "the settings for Redis cannot be read yet");
            sleep(PAUSE).await;
        }
    }
}

async fn restore(publisher: &Publisher, store: &Store) -> Result<(), StoreError> {
    let mut after = 0;
    let mut guilds = 0_u64;
    loop {
        let page = store.settings_after(after, PAGE).await?;
        let Some(last) = page.last() else {
            tracing::info!(guilds, "Redis knows the settings of all guilds");
            return Ok(());
        };
        after = last.guild_id;
        for settings in page.into_iter().filter_map(told) {
            publisher.restore(settings).await;
            guilds += 1;
        }
    }
}

/// Settings as bots are told of them.
pub(crate) fn told(settings: Settings) -> Option<GuildSettings> {
    let Settings { guild_id, revision, disabled_commands, command_prefix, .. } = settings;
    Some(GuildSettings {
        guild_id: GuildId::new(guild_id)?,
        revision,
        disabled_commands: disabled_commands.into_iter().collect(),
        command_prefix,
    })
}
