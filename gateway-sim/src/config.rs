//! What a simulator is told at its start; also the flags of the binary.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use shardmeter_process::HealthAddr;

/// Default of [`Config::addr`].
pub const DEFAULT_ADDR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 30010);
/// Default of [`Config::heartbeat_interval`]: what Discord's hello says.
pub const DEFAULT_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(41_250);
/// Default of [`Config::interaction_deadline`]: Discord's.
pub const DEFAULT_INTERACTION_DEADLINE: Duration = Duration::from_secs(3);
/// Default of [`Config::members_per_guild`].
pub const DEFAULT_MEMBERS: RangeInclusive<u32> = 5..=5_000;
/// Default of [`Config::identify_window`]. Discord says 5 s; a client that waits exactly that must not be refused because its
/// first identify travelled longer than its second.
pub const DEFAULT_IDENTIFY_WINDOW: Duration = Duration::from_millis(4_500);
/// Default of [`Config::identifies_per_day`]. Discord gives 1,000, a large bot more; the load tests need many.
pub const DEFAULT_IDENTIFIES_PER_DAY: u32 = 100_000;
/// What [`Config::heartbeat_interval`] may be.
const HEARTBEAT_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60 * 60);
/// Shards one simulator serves at most; an interaction's id has 14 bits for its shard.
pub const MAX_SHARDS: u32 = 1 << 14;
/// Guilds of one world at most, the ones that join later included.
pub const MAX_GUILDS: u32 = 1_000_000;

/// The simulator's configuration. The guilds and the commands sent are functions of it alone.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where gateway and REST listen, on one port; port 0 picks a free one
    #[arg(long, env = "GATEWAY_SIM_ADDR", default_value_t = DEFAULT_ADDR)]
    pub addr: SocketAddr,
    /// Seed of the world: guild ids, member counts, order and kind of commands
    #[arg(long, env = "GATEWAY_SIM_SEED", default_value_t = 1)]
    pub seed: u64,
    /// How many guilds the bot is in
    #[arg(long, env = "GATEWAY_SIM_GUILDS", default_value_t = 100)]
    pub guilds: u32,
    /// The shard count that /gateway/bot recommends
    #[arg(long, env = "GATEWAY_SIM_SHARD_COUNT", default_value_t = 4)]
    pub shard_count: u32,
    /// Identify keys (`shard_id % max_concurrency`): one identify per key in 5 s; 0 lifts the limit, and twilight's queue then waits for nothing
    #[arg(long, env = "GATEWAY_SIM_MAX_CONCURRENCY", default_value_t = 0)]
    pub max_concurrency: u16,
    /// An identify that comes sooner than this after another of its key is refused, as in `4500ms`
    #[arg(long, env = "GATEWAY_SIM_IDENTIFY_WINDOW", default_value = "4500ms", value_parser = humantime::parse_duration)]
    pub identify_window: Duration,
    /// Identifies a day; Discord answers one more by ending the bot's sessions and its token
    #[arg(long, env = "GATEWAY_SIM_IDENTIFIES_PER_DAY", default_value_t = DEFAULT_IDENTIFIES_PER_DAY)]
    pub identifies_per_day: u32,
    /// Heartbeat interval stated in hello, as in `41250ms` or `10s`
    #[arg(long, env = "GATEWAY_SIM_HEARTBEAT_INTERVAL", default_value = "41250ms", value_parser = humantime::parse_duration)]
    pub heartbeat_interval: Duration,
    /// Members of a guild, drawn from this range, as in `5-5000`
    #[arg(long, env = "GATEWAY_SIM_MEMBERS", default_value = "5-5000", value_parser = parse_range)]
    pub members_per_guild: RangeInclusive<u32>,
    /// Slash commands used per second over all shards together; 0: none of its own accord
    #[arg(long, env = "GATEWAY_SIM_COMMANDS_PER_SECOND", default_value_t = 0.0)]
    pub commands_per_second: f64,
    /// A callback later than this after its interaction is refused, as in `3s`
    #[arg(long, env = "GATEWAY_SIM_INTERACTION_DEADLINE", default_value = "3s", value_parser = humantime::parse_duration)]
    pub interaction_deadline: Duration,
    /// The one token that is accepted; without it, any that is not empty
    #[arg(long, env = "GATEWAY_SIM_TOKEN", hide_env_values = true)]
    pub token: Option<Token>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: DEFAULT_ADDR,
            seed: 1,
            guilds: 100,
            shard_count: 4,
            max_concurrency: 0,
            identify_window: DEFAULT_IDENTIFY_WINDOW,
            identifies_per_day: DEFAULT_IDENTIFIES_PER_DAY,
            heartbeat_interval: DEFAULT_HEARTBEAT_INTERVAL,
            members_per_guild: DEFAULT_MEMBERS,
            commands_per_second: 0.0,
            interaction_deadline: DEFAULT_INTERACTION_DEADLINE,
            token: None,
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// [`Config::shard_count`] is 0 or beyond [`MAX_SHARDS`].
    #[error("--shard-count must be between 1 and {MAX_SHARDS}")]
    ShardCount,
    /// [`Config::guilds`] is beyond [`MAX_GUILDS`].
    #[error("--guilds must be at most {MAX_GUILDS}")]
    Guilds,
    /// [`Config::heartbeat_interval`] is below 10 ms or above an hour.
    #[error("--heartbeat-interval must be between 10ms and an hour")]
    HeartbeatInterval,
    /// [`Config::members_per_guild`] is empty.
    #[error("--members-per-guild must run from a lower to a higher number")]
    Members,
    /// [`Config::commands_per_second`] is no rate.
    #[error("--commands-per-second must be 0 or more, and finite")]
    CommandsPerSecond,
}

impl shardmeter_process::Configuration for Config {
    fn health_addr(&self) -> Option<HealthAddr> {
        Some(HealthAddr { addr: self.addr, tls: false })
    }
}

impl Config {
    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// The first field that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.shard_count == 0 || self.shard_count > MAX_SHARDS {
            return Err(ConfigError::ShardCount);
        }
        if self.guilds > MAX_GUILDS {
            return Err(ConfigError::Guilds);
        }
        if !HEARTBEAT_INTERVALS.contains(&self.heartbeat_interval) {
            return Err(ConfigError::HeartbeatInterval);
        }
        if self.members_per_guild.is_empty() {
            return Err(ConfigError::Members);
        }
        if !self.commands_per_second.is_finite() || self.commands_per_second < 0.0 {
            return Err(ConfigError::CommandsPerSecond);
        }
        Ok(())
    }

    /// Whether a bot that states this token, with or without `Bot ` before it, is let in.
    pub(crate) fn accepts(&self, stated: &str) -> bool {
        let stated = stated.strip_prefix("Bot ").unwrap_or(stated);
        match &self.token {
            Some(token) => token.0 == stated,
            None => !stated.is_empty(),
        }
    }
}

/// A bot token; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl From<&str> for Token {
    fn from(token: &str) -> Self {
        Self(token.strip_prefix("Bot ").unwrap_or(token).to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Reads `5-5000` or `10`.
fn parse_range(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.parse(), high.parse()) {
        (Ok(low), Ok(high)) => Ok(low..=high),
        _ => Err("expected a range like 5-5000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn flags_and_default_agree() {
        let parsed = Flags::parse_from(["sim"]).config;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
        assert_eq!(parsed.validate(), Ok(()));
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(parse_range("5-9"), Ok(5..=9));
        assert!(parse_range("5..9").is_err());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate()
        };
        assert_eq!(refused(|c| c.shard_count = 0), Err(ConfigError::ShardCount));
        #[expect(clippy::reversed_empty_ranges, reason = "the mistake under test")]
        let empty = refused(|c| c.members_per_guild = 9..=5);
        assert_eq!(empty, Err(ConfigError::Members));
        assert_eq!(
            refused(|c| c.heartbeat_interval = Duration::MAX),
            Err(ConfigError::HeartbeatInterval)
        );
        assert_eq!(
            refused(|c| c.commands_per_second = f64::NAN),
            Err(ConfigError::CommandsPerSecond)
        );
    }

    #[test]
    fn the_token_is_compared_without_its_scheme_and_never_printed() {
        let config = Config { token: Some("Bot secret".into()), ..Config::default() };
        assert!(config.accepts("Bot secret") && config.accepts("secret"));
        assert!(!config.accepts("Bot other"));
        assert!(!format!("{config:?}").contains("secret"));
        assert!(!Config::default().accepts("Bot "));
    }
}
