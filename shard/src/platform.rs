//! The bot's side of the platform: who hears what happens, and what its guilds have set.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::RwLock;
use prometheus::Registry;
use shardmeter_process::traces::part_of_trace;
use shardmeter_proto::events::{Event, GuildId, GuildSettings, SETTINGS_CHANNEL};
use shardmeter_pubsub::{Heard, Redis, RedisError, RedisMetrics, Subscriber, Wanted};
use tokio::task::JoinHandle;
use tracing::info_span;

use crate::{commands::Command, config::ShardIds};

/// Guilds whose settings are kept: more than the shards of one process serve.
const MAX_GUILDS: usize = 1_000_000;

/// Who hears of the bot's events.
#[derive(Clone)]
pub(crate) enum Publisher {
    /// Nobody.
    Nobody,
    /// Everybody on Redis.
    Redis(shardmeter_pubsub::Publisher),
    /// Someone in this process; does not wait.
    Beside(Arc<dyn Fn(Event) + Send + Sync>),
}

impl Publisher {
    /// Tells of an event. Never waits.
    pub(crate) fn publish(&self, event: Event) {
        match self {
            Self::Nobody => {}
            Self::Redis(publisher) => publisher.publish(event),
            Self::Beside(hear) => {
                let span = || info_span!("publish", otel.kind = "producer", event = event.name());
                part_of_trace(span).in_scope(|| hear(event));
            }
        }
    }
}

/// What guilds have set, as far as it concerns the shards of this process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The shards of this process, and how many the bot has.
    shards: (ShardIds, u32),
    guilds: Arc<RwLock<HashMap<GuildId, GuildRules>>>,
}

/// What the newest settings of a guild say.
#[derive(Debug)]
struct GuildRules {
    revision: u64,
    disabled: Vec<Command>,
}

impl Settings {
    pub(crate) fn new(shards: ShardIds, shard_count: u32) -> Self {
        Self { shards: (shards, shard_count), guilds: Arc::default() }
    }

    /// From now on the guild's commands go by these settings, unless newer ones are known.
    pub fn apply(&self, settings: &GuildSettings) {
        let GuildSettings { guild_id, revision, disabled_commands, .. } = settings;
        let (shards, shard_count) = self.shards;
        let serves = |shard| (shards.first()..=shards.last()).contains(&shard);
        if !guild_id.shard(shard_count).is_some_and(serves) {
            return;
        }
        let disabled = Command::ALL.into_iter();
        let disabled = disabled.filter(|own| disabled_commands.iter().any(|c| c == own.name()));
        let rules = GuildRules { revision: *revision, disabled: disabled.collect() };
        let mut guilds = self.guilds.write();
        let is_full = guilds.len() >= MAX_GUILDS;
        match guilds.entry(*guild_id) {
            Entry::Occupied(known) if known.get().revision >= *revision => {}
            Entry::Occupied(mut known) => drop(known.insert(rules)),
            Entry::Vacant(_) if is_full => {
                tracing::warn!(%guild_id, "too many guilds have settings; these are not obeyed");
            }
            Entry::Vacant(new) => {
                new.insert(rules);
            }
        }
    }

    pub(crate) fn disable(&self, guild: GuildId, command: Command) -> bool {
        let guilds = self.guilds.read();
        guilds.get(&guild).is_some_and(|rules| rules.disabled.contains(&command))
    }
}

/// What this process has to do with Redis.
pub(crate) struct OnRedis {
    pub(crate) publisher: Publisher,
    /// Publishes; ends with the last publisher.
    pub(crate) publishing: JoinHandle<()>,
    redis: Redis,
    metrics: RedisMetrics,
}

impl OnRedis {
    /// Starts to publish on the Redis at `url`.
    pub(crate) fn start(url: &str, registry: &Registry) -> Result<Self, OnRedisError> {
        let redis = Redis::at(url)?;
        let metrics = RedisMetrics::register(registry)?;
        let (publisher, publishing) =
            shardmeter_pubsub::Publisher::start(redis.clone(), None, metrics.clone());
        Ok(Self { publisher: Publisher::Redis(publisher), publishing, redis, metrics })
    }

    /// Starts to listen for settings: those there are, and those that change.
    pub(crate) fn obey(&self, settings: Settings) -> Subscriber {
        let wanted = Wanted { channels: &[SETTINGS_CHANNEL], settings: true, own: None };
        Subscriber::start(self.redis.clone(), wanted, self.metrics.clone(), move |heard| {
            match heard {
                Heard::Event(Event::GuildSettingsUpdated(changed)) => settings.apply(&changed),
                // After an interruption, all settings are told anew.
                Heard::Event(_) | Heard::Interrupted => {}
            }
        })
    }
}

/// Why there is no Redis to have to do with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OnRedisError {
    #[error(transparent)]
    Address(#[from] RedisError),
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(guild: u64, revision: u64, disabled: &[&str]) -> GuildSettings {
        GuildSettings {
            guild_id: GuildId::new(guild).unwrap(),
            revision,
            disabled_commands: disabled.iter().map(|name| (*name).to_owned()).collect(),
            command_prefix: None,
        }
    }

    #[test]
    fn the_newest_settings_of_own_guilds_count() {
        let known = Settings::new(ShardIds::new(1, 1).unwrap(), 2);
        let (own, foreign) = (1 << 22, 2 << 22);
        let disabled = |guild| {
            let guild = GuildId::new(guild).unwrap();
            Command::ALL.map(|command| known.disable(guild, command))
        };
        assert_eq!(disabled(own), [false; 3]);
        known.apply(&settings(own, 5, &["ping", "of_another_version"]));
        assert_eq!(disabled(own), [true, false, false]);
        for late in [4, 5] {
            known.apply(&settings(own, late, &["stats"]));
            assert_eq!(disabled(own), [true, false, false]);
        }
        known.apply(&settings(own, 6, &["shards", "stats"]));
        assert_eq!(disabled(own), [false, true, true]);
        known.apply(&settings(own, 7, &[]));
        assert_eq!(disabled(own), [false; 3]);
        known.apply(&settings(foreign, 1, &["ping"]));
        assert_eq!(disabled(foreign), [false; 3], "another process serves it");
    }
}
