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

use std::{env, panic::catch_unwind, time::Instant};

/// Stories that CI hears, and those that one test tells of them.
const SEEDS: u64 = 200;
const TESTS: u64 = 8;

/// Tells the stories of this part of the seeds.
fn tell_part(part: u64) {
    let one = env::var("SIM_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = env::var("SIM_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let began = Instant::now();
    let mut told = 0;
    for seed in (0..seeds).filter(|seed| seed % TESTS == part) {
        if one.is_some() {
            break;
        }
        judge(seed, false);
        told += 1;
    }
    if let Some(seed) = one.filter(|seed| seed % TESTS == part) {
        judge(seed, true);
    }
    println!("{told} stories in {:?}", began.elapsed());
}

fn judge(seed: u64, aloud: bool) {
    let b = Instant::now();
    let Ok(told) = catch_unwind(|| fleet::tell(seed)) else {
        panic!("SIM_SEED={seed}: a panic, see above");
    };
    println!("{seed} {:?} {}", b.elapsed(), told.note);
    if aloud {
        println!("{}", told.log.join("\n"));
    }
    if let Err(breach) = told.outcome {
        panic!("SIM_SEED={seed}: {breach}\n{}", told.log.join("\n"));
    }
}

#[test]
fn stories_0() {
    tell_part(0);
}
