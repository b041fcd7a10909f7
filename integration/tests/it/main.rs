//! The system as a whole: real `build` and `run` of each part on free ports, against counterparts that are not ours.
//! A counterpart that cannot be started fails the test; `scripts/setup` installs them all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod access;
mod event_stream;
mod faults;
mod grpc_client;
mod grpcurl;
mod half_open;
mod health;
mod incidents;
mod live;
mod monitoring;
mod node;
mod node_faults;
mod process;
mod prometheus;
mod promtool;
mod proxy;
mod push;
mod readers;
mod report_stream;
mod scrape;
mod script;
mod status_page;
mod system;
mod tools;
mod traces;
mod watch;
mod wire;
