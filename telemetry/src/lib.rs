//! Streams what a Discord bot's shards count to a Shardmeter manager.
//!
//! A bot keeps its metrics in [`prometheus`] registries, as always. This crate gathers them at the interval the manager
//! asks for and sends what changed over one gRPC stream per shard. The manager merges all shards, adds the label
//! `shard_id`, and shows one page to Prometheus.
//!
//! ```
//! use prometheus::{IntCounter, Registry};
//! use shardmeter_telemetry::{Connection, Reporter, Shard};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One registry per shard; without a `shard_id` label, the manager adds it.
//! let registry = Registry::new();
//! let commands = IntCounter::new("commands_executed_total", "Commands that were executed")?;
//! registry.register(Box::new(commands.clone()))?;
//!
//! // One connection per process, one reporter per shard. The manager may be away: nothing here waits for it.
//! let connection = Connection::new("http://127.0.0.1:30001")?;
//! let reporter = Reporter::builder(&connection, Shard { id: 0, count: 16 })
//!     .registry(registry)
//!     .fleet("my-bot")
//!     .build()?;
//!
//! // The bot runs, and counts.
//! commands.inc();
//!
//! // It was asked to stop: the last counts go out. Here no manager listens, which is found out at once.
//! if let Err(error) = reporter.shutdown().await {
//!     eprintln!("last counts may be lost: {error}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Registries
//!
//! A bot with several shards in a process makes one registry for each, and one [`Reporter`] on each of these. What
//! belongs to the whole process (memory, CPU, a database pool) lives in a registry of its own, which goes along with the
//! lowest shard of the process: call [`registry`](ReporterBuilder::registry) twice there.
//!
//! A registry takes one reporter in its life. The manager keeps what was counted in it for good, so a second reporter
//! would count everything twice; [`build`](ReporterBuilder::build) refuses it. The mark that it leaves in the registry
//! exports nothing.
//!
//! Metrics may be registered, unregistered, reset and removed at any time. The manager's counters go on rising: a
//! counter or histogram that begins anew counts on from where it was. What is reset and counts beyond its old value
//! between two gathers cannot be noticed, nor can what a label set counts between the last gather and its removal, so
//! remove label sets sparingly.
//!
//! # When the manager is away
//!
//! Nothing is queued, so memory stays what the label sets of the registries take, however long it lasts, and nothing is
//! lost: values are sent as they are since the registry began, not as increments. (A label set that counted and was
//! removed goes on to take its place, a few hundred bytes, for as long as the process lives: what it counted stays true,
//! and it would count on from there if it came back.) A reporter tries to come back after a random wait that
//! doubles up to 15 seconds, then sends all series once. One warning is logged when an outage begins and one line when it
//! ends, through [`tracing`]. A connection that died silently is noticed within 20 seconds.
//!
//! Only a process that dies without [`shutdown`](Reporter::shutdown) loses counts, namely those since its last report.
//!
//! # Traces
//!
//! With feature `opentelemetry`, frames and the opening of streams are spans of the bot's [`tracing`] subscriber, if that has
//! an OpenTelemetry layer (of `opentelemetry` 0.33), and their traces go on in the manager: one a second, however many shards
//! there are.
//!
//! # What is reported
//!
//! Counters, gauges, histograms and summaries, with their help. A family or series that the wire has no room for (two
//! types under one name, malformed labels, the same series in two registries, untyped values) is left out with one
//! warning, and the rest is reported.
//!
//! Works with the `prometheus` crate's `protobuf` feature on or off.

mod backoff;
mod connection;
mod credentials;
mod error;
mod ledger;
mod marker;
mod reporter;
mod session;
mod trace;

pub use connection::{Connection, ConnectionBuilder};
pub use error::{BuildError, ShutdownError};
pub use reporter::{Reporter, ReporterBuilder, Shard, Status};
