//! The bot against the simulator of Discord: what the bot says of itself is what the simulator's books say happened.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "these are tests; the exceptions of clippy.toml do not reach their helpers"
)]

mod commands;
mod config;
mod gateway;
mod identify;
mod redis;
mod restart;
mod secrets;
mod signals;
mod support;
