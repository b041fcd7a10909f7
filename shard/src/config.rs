//! Flags and environment of the bot process.

use std::{fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};

use shardmeter_process::HealthAddr;

pub use shardmeter_process::{ManagerConfig, Secret};

use crate::identify::IDENTIFY_INTERVAL;

/// What the bot process is told; every field is a flag and an environment variable.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// The bot's token
    #[arg(long, env = "DISCORD_TOKEN", hide_env_values = true)]
    pub discord_token: Secret,
    /// Shards of this process, as in `0-3` or `5`; without it, all of them
    #[arg(long, env = "SHARD_IDS", value_name = "RANGE")]
    pub shard_ids: Option<ShardIds>,
    /// How many shards the bot has; `auto` asks Discord
    #[arg(long, env = "SHARD_COUNT", value_name = "COUNT|auto", default_value_t = ShardCount::Auto)]
    pub shard_count: ShardCount,
    /// The manager, and as who it is told.
    #[command(flatten)]
    pub manager: ManagerConfig,
    /// The fleet this bot belongs to; a manager with a fleet name refuses another
    #[arg(long, env = "SHARDMETER_FLEET", value_name = "NAME", default_value = "")]
    pub fleet: String,
    /// Redis that gets the bot's events, and by which its processes take turns to identify; without it, neither
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<Secret>,
    /// Folder for the sessions saved at shutdown; without it, every start identifies anew
    #[arg(long, env = "SHARDMETER_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Gateway to connect to instead of the one Discord names
    #[arg(long, env = "DISCORD_GATEWAY_URL", value_name = "URL")]
    pub discord_gateway_url: Option<String>,
    /// REST API to call instead of Discord's, without the `/api/v10`
    #[arg(long, env = "DISCORD_API_URL", value_name = "URL")]
    pub discord_api_url: Option<String>,
    /// Between two identifies of shards with one rate limit key; no flag, for only a simulated Discord has another.
    #[arg(skip = IDENTIFY_INTERVAL)]
    pub identify_interval: Duration,
    /// Where GET /healthz says whether a shard is connected; without it, nowhere
    #[arg(long, env = "SHARDMETER_HEALTH_ADDR", value_name = "ADDR")]
    pub health_addr: Option<SocketAddr>,
}

impl shardmeter_process::Configuration for Config {
    fn health_addr(&self) -> Option<HealthAddr> {
        self.health_addr.map(|addr| HealthAddr { addr, tls: false })
    }
}

impl Config {
    /// A configuration with every default: all shards on real Discord, a manager on this machine, no Redis, no saved
    /// sessions.
    pub fn new(discord_token: impl Into<String>) -> Self {
        Self {
            discord_token: Secret::from(discord_token.into()),
            shard_ids: None,
            shard_count: ShardCount::Auto,
            manager: ManagerConfig::default(),
            fleet: String::new(),
            redis_url: None,
            state_dir: None,
            discord_gateway_url: None,
            identify_interval: IDENTIFY_INTERVAL,
            health_addr: None,
            discord_api_url: None,
        }
    }
}

/// How many shards the bot has over all its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardCount {
    /// As many as Discord recommends.
    Auto,
    /// Exactly this many.
    Fixed(NonZeroU32),
}

impl fmt::Display for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(count) => count.fmt(f),
        }
    }
}

impl FromStr for ShardCount {
    type Err = ShardCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Fixed).map_err(|_| ShardCountError),
        }
    }
}

/// A shard count that is neither `auto` nor a number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shard count is `auto` or a number from 1")]
pub struct ShardCountError;

/// The shards one process runs: from `first` up to and including `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardIds {
    first: u32,
    last: u32,
}

impl ShardIds {
    /// The shards from `first` up to and including `last`, or why there are none.
    pub fn new(first: u32, last: u32) -> Result<Self, ShardIdsError> {
        if first > last { Err(ShardIdsError::Backwards) } else { Ok(Self { first, last }) }
    }

    /// All shards of a bot that has `count` of them; shard 0 if it has none.
    pub(crate) fn all(count: u32) -> Self {
        Self { first: 0, last: count.saturating_sub(1) }
    }

    /// The lowest shard.
    pub fn first(self) -> u32 {
        self.first
    }

    /// The highest shard.
    pub fn last(self) -> u32 {
        self.last
    }

    /// How many shards these are.
    pub fn count(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }
}

impl fmt::Display for ShardIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for ShardIds {
    type Err = ShardIdsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| {
            let digits = digits.trim();
            // `u32` would take a sign, which in a range reads like a typing error.
            if digits.starts_with('+') {
                return Err(ShardIdsError::NoNumber);
            }
            digits.parse::<u32>().map_err(|_| ShardIdsError::NoNumber)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(number(first)?, number(last)?)
    }
}

/// Why a text names no range of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShardIdsError {
    /// A part is no number.
    #[error("shards are named as in `0-3` or `5`")]
    NoNumber,
    /// The first shard is above the last.
    #[error("the first shard of a range is not above its last")]
    Backwards,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn ranges_of_shards() {
        use ShardIdsError::{Backwards, NoNumber};
        for (text, expected) in [
            ("0-3", Ok((0, 3))),
            ("5", Ok((5, 5))),
            (" 1 - 2 ", Ok((1, 2))),
            ("7-7", Ok((7, 7))),
            ("0-4294967295", Ok((0, u32::MAX))),
            ("3-0", Err(Backwards)),
            ("", Err(NoNumber)),
            ("-", Err(NoNumber)),
            ("-1", Err(NoNumber)),
            ("1-", Err(NoNumber)),
            ("+1", Err(NoNumber)),
            ("1-2-3", Err(NoNumber)),
            ("0,1", Err(NoNumber)),
            ("4294967296", Err(NoNumber)),
            ("all", Err(NoNumber)),
        ] {
            let parsed = text.parse::<ShardIds>().map(|ids| (ids.first(), ids.last()));
            assert_eq!(parsed, expected, "{text:?}");
        }
        assert_eq!("0-3".parse::<ShardIds>().unwrap().to_string(), "0-3");
        assert_eq!("5-5".parse::<ShardIds>().unwrap().to_string(), "5");
        assert_eq!(ShardIds::new(0, u32::MAX).unwrap().count(), 1 << 32);
    }

    #[test]
    fn shard_counts() {
        assert_eq!("auto".parse(), Ok(ShardCount::Auto));
        assert_eq!("16".parse(), Ok(ShardCount::Fixed(NonZeroU32::new(16).unwrap())));
        for bad in ["0", "", "-1", "many"] {
            assert_eq!(bad.parse::<ShardCount>(), Err(ShardCountError), "{bad:?}");
        }
    }

    #[test]
    fn flags_and_defaults_agree_and_secrets_are_hidden() {
        let token = "a-secret-token";
        let flags =
            ["shard", "--discord-token", token, "--redis-url", "redis://:a-secret-word@host"];
        let parsed = Flags::try_parse_from(flags).unwrap().config;
        let printed = format!("{parsed:?}");
        assert!(!printed.contains("a-secret"), "{printed}");
        let expected = Config { redis_url: parsed.redis_url.clone(), ..Config::new(token) };
        assert_eq!(printed, format!("{expected:?}"));
        assert_eq!(parsed.discord_token.expose(), token);
    }
}
