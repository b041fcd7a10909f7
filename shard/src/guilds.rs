//! The guilds of one shard, counted through twilight's cache.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use twilight_cache_inmemory::{DefaultInMemoryCache, ResourceType, UpdateCache};
use twilight_model::{
    gateway::payload::incoming::{GuildCreate, GuildDelete, GuildUpdate, Ready},
    guild::Guild,
    id::{Id, marker::GuildMarker},
};

use crate::metrics::GuildMetrics;

/// The guilds of one shard. Member counts are what Discord stated last: it does not send who comes and goes without the
/// privileged members intent.
pub(crate) struct Guilds {
    /// Guilds Discord has described and can serve.
    cache: DefaultInMemoryCache,
    /// Guilds in an outage, and those of READY that are not described yet. Beside the cache, which does not tell which
    /// ones it holds and drops a guild at its outage.
    unavailable: HashSet<Id<GuildMarker>>,
    /// Members of the cached guilds.
    users: u64,
    metrics: GuildMetrics,
}

/// What a resumed session needs to know of its guilds: Discord replays what was missed, not what was known.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedGuilds {
    /// Guilds Discord has described and can serve, with their members.
    described: Vec<(Id<GuildMarker>, Option<u64>)>,
    unavailable: Vec<Id<GuildMarker>>,
}

impl Guilds {
    /// No guilds yet.
    pub(crate) fn new(metrics: GuildMetrics) -> Self {
        let cache = DefaultInMemoryCache::builder().resource_types(ResourceType::GUILD).build();
        Self { cache, unavailable: HashSet::new(), users: 0, metrics }
    }

    /// A new session: these guilds, and no others.
    pub(crate) fn ready(&mut self, ready: &Ready) {
        self.cache.clear();
        self.users = 0;
        self.unavailable = ready.guilds.iter().map(|guild| guild.id).collect();
        self.count();
    }

    /// Discord describes a guild. Tells whether the shard has just joined it.
    pub(crate) fn created(&mut self, event: &GuildCreate) -> bool {
        let id = event.id();
        let joined = !self.knows(id);
        match event {
            GuildCreate::Available(_) => self.unavailable.remove(&id),
            GuildCreate::Unavailable(_) => self.unavailable.insert(id),
        };
        self.update(id, event);
        joined
    }

    /// Discord updates its description of a guild.
    pub(crate) fn updated(&mut self, event: &GuildUpdate) {
        self.update(event.id, event);
    }

    /// A guild is in an outage, or the shard has left it. Tells whether it has left.
    pub(crate) fn deleted(&mut self, event: &GuildDelete) -> bool {
        let outage = event.unavailable == Some(true);
        if outage {
            self.unavailable.insert(event.id);
        } else {
            self.unavailable.remove(&event.id);
        }
        self.update(event.id, event);
        !outage
    }

    /// Whether the shard is in this guild.
    pub(crate) fn knows(&self, id: Id<GuildMarker>) -> bool {
        self.unavailable.contains(&id) || self.cache.guild(id).is_some()
    }

    /// What to save for a resume.
    pub(crate) fn save(&self) -> SavedGuilds {
        SavedGuilds {
            described: self
                .cache
                .iter()
                .guilds()
                .map(|guild| (guild.id(), guild.member_count()))
                .collect(),
            unavailable: self.unavailable.iter().copied().collect(),
        }
    }

    /// Back to what was saved, before the resume.
    pub(crate) fn restore(&mut self, saved: &SavedGuilds) {
        for &(id, members) in &saved.described {
            match described(id, members) {
                Ok(guild) => self.update(id, &GuildCreate::Available(guild)),
                Err(error) => tracing::warn!(%error, %id, "a saved guild does not come back"),
            }
        }
        self.unavailable.extend(&saved.unavailable);
        self.count();
    }

    fn update(
        &mut self,
        id: Id<GuildMarker>,
        event: &impl UpdateCache<twilight_cache_inmemory::DefaultCacheModels>,
    ) {
        let before = self.members(id);
        self.cache.update(event);
        self.users = self.users.saturating_sub(before).saturating_add(self.members(id));
        self.count();
    }

    fn members(&self, id: Id<GuildMarker>) -> u64 {
        self.cache.guild(id).and_then(|guild| guild.member_count()).unwrap_or(0)
    }

    fn count(&self) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.guild_count.set(gauge(self.cache.stats().guilds() as u64));
        self.metrics.user_count.set(gauge(self.users));
        self.metrics.unavailable_guilds.set(gauge(self.unavailable.len() as u64));
    }
}

/// The least Discord could say of a guild; the fields that do not matter here have no defaults in twilight.
fn described(id: Id<GuildMarker>, members: Option<u64>) -> Result<Guild, serde_json::Error> {
    serde_json::from_value(serde_json::json!({
        "id": id,
        "member_count": members,
        "name": "",
        "owner_id": "1",
        "afk_timeout": 300,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "features": [],
        "mfa_level": 0,
        "nsfw_level": 0,
        "preferred_locale": "en-US",
        "premium_progress_bar_enabled": false,
        "roles": [],
        "system_channel_flags": 0,
        "verification_level": 0,
    }))
}

#[cfg(test)]
mod tests;
