//! The bot process: twilight-gateway shards, slash commands answered within Discord's three seconds, and their metrics
//! streamed to a Shardmeter manager.
//!
//! [`Config`] -> [`Bot::build`] -> [`Bot::run`]. One task per shard owns that shard's gateway connection, its guilds and
//! its metrics; what shards share (REST, Redis, the identify queue) is behind handles.

mod bot;
mod commands;
mod config;
mod gateway_bot;
mod guilds;
mod health;
mod identify;
mod metrics;
mod platform;
mod rest;
mod saved_session;
mod shard;

pub use bot::{Bot, BuildError, Registries, RunError};
pub use config::{
    Config, ManagerConfig, Secret, ShardCount, ShardCountError, ShardIds, ShardIdsError,
};
pub use platform::Settings;
pub use rest::RestError;
pub use shard::FatalClose;
