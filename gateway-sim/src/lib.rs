//! A stand-in for Discord's gateway and REST, with exact books.
//!
//! A bot built on twilight-gateway and twilight-http runs against it unchanged: `proxy_url` is
//! [`GatewaySim::gateway_url`], and twilight-http's `proxy` takes [`GatewaySim::addr`]. Tests act on it through
//! [`Control`] and compare what the bot says of itself with the [`Books`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use shardmeter_gateway_sim::{Config, GatewaySim};
//!
//! let sim = GatewaySim::build(Config { addr: "127.0.0.1:0".parse()?, ..Config::default() }).await?;
//! let control = sim.control();
//! println!("bots connect to {} and {}", sim.gateway_url(), sim.api_url());
//!
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let running = tokio::spawn(sim.run(async { drop(stopped.await) }));
//! assert!(control.books().connected().is_empty());
//! drop(stop);
//! running.await?;
//! # Ok(())
//! # }
//! ```

mod books;
mod config;
mod control;
mod gateway;
mod guilds;
mod interactions;
mod rest;
mod server;
mod state;
mod traffic;

pub use books::{
    Books, GuildBooks, IdentifyAttempt, IdentifyKeyBooks, Place, Registration, SessionBooks,
    ShardBooks, Tally,
};
pub use config::{
    Config, ConfigError, DEFAULT_ADDR, DEFAULT_HEARTBEAT_INTERVAL, DEFAULT_IDENTIFIES_PER_DAY,
    DEFAULT_IDENTIFY_WINDOW, DEFAULT_INTERACTION_DEADLINE, DEFAULT_MEMBERS, MAX_GUILDS, MAX_SHARDS,
    Token,
};
pub use control::{ActError, Control};
pub use guilds::{Guild, Presence, shard_of};
pub use rest::{Fault, RateLimitScope, Route};
pub use server::{BuildError, GatewaySim};
pub use traffic::COMMANDS;
