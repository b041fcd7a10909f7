//! Events and guild settings over Redis, as shards and the api exchange them (`shardmeter_proto::events`).
//!
//! A [`Publisher`] and a [`Subscriber`] are a task and a connection each. Redis may be away at any time, from the start
//! on: both come back by themselves, and nobody who publishes waits for it. Events are told once, or, while Redis is away,
//! not at all; settings are kept in a hash beside the channel, so that who was away while one changed learns of it.

mod line;
mod metrics;
mod publisher;
mod subscriber;
#[cfg(feature = "testing")]
pub mod testing;

pub use line::Redis;
pub use metrics::RedisMetrics;
pub use publisher::Publisher;
pub use redis::RedisError;
pub use subscriber::{Heard, Subscriber, Wanted};
