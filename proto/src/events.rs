//! What shards and the api tell each other over Redis: JSON, one object a message. Discord's ids are strings, as
//! Discord writes them, for readers whose numbers end at 2^53. Who reads passes over fields it does not know.

use std::{borrow::Cow, fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Where shards publish what happens.
pub const EVENTS_CHANNEL: &str = "shardmeter:events";

/// Where the api publishes settings that changed; apart from [`EVENTS_CHANNEL`], so that a shard does not hear of every
/// command of every other.
pub const SETTINGS_CHANNEL: &str = "shardmeter:settings";

/// The Redis hash of all guilds' settings: the guild's id, and [`GuildSettings`] as JSON.
pub const SETTINGS_KEY: &str = "shardmeter:guild_settings";

/// The longest message read: a guild's settings with a hundred disabled commands have some kB.
pub const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// A guild's id; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuildId(NonZeroU64);

impl GuildId {
    /// The id with this number, unless that is 0.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The shard that serves the guild, of a bot with `shard_count` of them (Discord's reference, "Sharding").
    #[must_use]
    pub fn shard(self, shard_count: u32) -> Option<u32> {
        let shard = (self.get() >> 22).checked_rem(shard_count.into())?;
        u32::try_from(shard).ok()
    }
}

impl From<NonZeroU64> for GuildId {
    fn from(id: NonZeroU64) -> Self {
        Self(id)
    }
}

impl fmt::Display for GuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no guild's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuildIdError;

impl fmt::Display for GuildIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a guild's id is a whole number from 1 up, in digits")
    }
}

impl std::error::Error for GuildIdError {}

impl FromStr for GuildId {
    type Err = GuildIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The type would take a sign, and zeros in front; two texts for one guild.
        if !text.starts_with(|first: char| ('1'..='9').contains(&first)) {
            return Err(GuildIdError);
        }
        text.parse().map(Self).map_err(|_| GuildIdError)
    }
}

impl Serialize for GuildId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GuildId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What was set for a guild.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuildSettings {
    /// Whose settings these are.
    pub guild_id: GuildId,
    /// Grows with every change; of two settings of a guild the one with the higher revision counts.
    pub revision: u64,
    /// Names of the commands that the bot refuses in this guild.
    pub disabled_commands: Vec<String>,
    /// What commands in messages begin with, where the bot reads messages.
    pub command_prefix: Option<String>,
}

/// What happens, and who wants to know hears of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Discord confirmed the answer to a command.
    CommandExecuted {
        /// The shard the command came to.
        shard_id: u32,
        /// Its name, or `unknown`.
        command_name: Cow<'static, str>,
        /// Where; none outside guilds, and in guilds the shard is not in.
        guild_id: Option<GuildId>,
    },
    /// The bot was added to a guild.
    GuildJoined {
        /// The shard that serves it.
        shard_id: u32,
        /// The guild.
        guild_id: GuildId,
    },
    /// The bot was removed from a guild.
    GuildLeft {
        /// The shard that served it.
        shard_id: u32,
        /// The guild.
        guild_id: GuildId,
    },
    /// Someone changed a guild's settings.
    GuildSettingsUpdated(GuildSettings),
}

impl Event {
    /// The names of all events, as [`Event::name`] says them.
    pub const NAMES: [&str; 4] =
        ["command_executed", "guild_joined", "guild_left", "guild_settings_updated"];

    /// The event's name, in JSON and as a label value.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CommandExecuted { .. } => "command_executed",
            Self::GuildJoined { .. } => "guild_joined",
            Self::GuildLeft { .. } => "guild_left",
            Self::GuildSettingsUpdated(_) => "guild_settings_updated",
        }
    }

    /// The guild it happened in.
    #[must_use]
    pub const fn guild_id(&self) -> Option<GuildId> {
        match self {
            Self::CommandExecuted { guild_id, .. } => *guild_id,
            Self::GuildJoined { guild_id, .. } | Self::GuildLeft { guild_id, .. } => {
                Some(*guild_id)
            }
            Self::GuildSettingsUpdated(settings) => Some(settings.guild_id),
        }
    }
}

/// A message on a channel: an event, and who sent it, so that who publishes and listens on one channel knows its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<'a, E = Event> {
    /// What happened.
    #[serde(flatten)]
    pub event: E,
    /// The sender's own choice, another for each run of each process; none where nobody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Cow<'a, str>>,
}

impl Message<'static> {
    /// Reads a message; nothing if it is none that this version knows.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn guild(id: u64) -> GuildId {
        GuildId::new(id).unwrap()
    }

    #[test]
    fn the_json_of_each_event() {
        let settings = GuildSettings {
            guild_id: guild(7),
            revision: 3,
            disabled_commands: vec!["ping".to_owned()],
            command_prefix: None,
        };
        let command = |guild_id| Event::CommandExecuted {
            shard_id: 2,
            command_name: Cow::Borrowed("ping"),
            guild_id,
        };
        for (event, json) in [
            (
                command(Some(guild(u64::MAX))),
                json!({"type": "command_executed", "shard_id": 2, "command_name": "ping",
                       "guild_id": "18446744073709551615"}),
            ),
            (
                command(None),
                json!({"type": "command_executed", "shard_id": 2, "command_name": "ping", "guild_id": null}),
            ),
            (
                Event::GuildJoined { shard_id: 1, guild_id: guild(5) },
                json!({"type": "guild_joined", "shard_id": 1, "guild_id": "5"}),
            ),
            (
                Event::GuildLeft { shard_id: 1, guild_id: guild(5) },
                json!({"type": "guild_left", "shard_id": 1, "guild_id": "5"}),
            ),
            (
                Event::GuildSettingsUpdated(settings),
                json!({"type": "guild_settings_updated", "guild_id": "7", "revision": 3,
                       "disabled_commands": ["ping"], "command_prefix": null}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&event).unwrap(), json);
            assert_eq!(json["type"], event.name());
            assert!(Event::NAMES.contains(&event.name()));
            // A later version's fields change nothing, nor does the sender.
            let mut wider = json.clone();
            wider["from"] = json!("ab");
            wider["more"] = json!([1]);
            let read = Message::read(wider.to_string().as_bytes()).unwrap();
            assert_eq!(read, Message { event: event.clone(), from: Some("ab".into()) });
            let message = Message { event: &event, from: None };
            assert_eq!(serde_json::to_value(message).unwrap(), json);
        }
    }

    #[test]
    fn what_is_no_message() {
        for bad in [
            "",
            "end",
            "{}",
            r#"{"type":"guild_left","shard_id":1,"guild_id":5}"#,
            r#"{"type":"guild_left","shard_id":-1,"guild_id":"5"}"#,
            r#"{"type":"guild_left","shard_id":1,"guild_id":"0"}"#,
            r#"{"type":"another","shard_id":1,"guild_id":"5"}"#,
        ] {
            assert_eq!(Message::read(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn ids_of_guilds() {
        for bad in ["", "0", "01", "+1", "-1", " 1", "1 ", "1.0", "18446744073709551616", "a"] {
            assert_eq!(bad.parse::<GuildId>(), Err(GuildIdError), "{bad:?}");
        }
        let id: GuildId = "613425648685547541".parse().unwrap();
        assert_eq!(id.to_string(), "613425648685547541");
        assert_eq!(id.shard(16), Some(((613_425_648_685_547_541_u64 >> 22) % 16) as u32));
        assert_eq!(id.shard(0), None);
    }
}
