//! The true manager on real sockets, and clients that are not ours.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helpers of tests do"
)]

mod bad_inputs;
mod grpc;
mod http;
mod journal;
mod process;
mod promtool;
mod scrape;
mod server;
