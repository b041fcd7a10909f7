//! The system on a simulated network: real manager, real journal, real reporters; connections, time and crashes are the
//! simulation's, drawn from a seed. Each seed is a story of some two minutes of simulated time, with a scrape every
//! 200 ms that is compared with all before it (E2), and the books of all processes at the end (E1, E3, `shard_up`).
//!
//! `SIM_SEEDS=10000` tells that many stories instead of the usual number, `SIM_SEED=17` tells one, with its log
//! (`RUST_LOG` says how much).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod books;
mod faults;
mod fleet;
mod manager;
mod network;
mod process;
#[path = "../it/scrape.rs"]
mod scrape;

use std::{env, time::Instant};
