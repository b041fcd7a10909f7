//! The true manager on real sockets, and clients that are not ours.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helpers of tests do"
)]

mod access;
mod bad_inputs;
mod doctor;
mod flood;
mod grpc;
mod http;
mod ingest;
mod journal;
mod limits;
mod log;
mod process;
mod promtool;
mod scrape;
mod server;
mod tls;
mod watch;
