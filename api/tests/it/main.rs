//! The api as a whole: on real PostgreSQL and on SQLite, over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helpers of tests do"
)]

mod access;
mod backend;
mod distance;
mod events;
mod incidents;
mod manager;
mod outages;
mod recorder;
mod routes;
mod schemathesis;
mod server;
mod settings;
mod shard_events;
mod shards;
mod store;
