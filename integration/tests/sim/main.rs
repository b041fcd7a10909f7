//! The system on a simulated network: real manager, real journal, real reporters; connections, time and crashes are the
//! simulation's, drawn from a seed. Each seed is a story of one or two minutes of simulated time, with a scrape every
//! 200 ms that is compared with all before it (E2), and the books of all processes at the end (E1, E3, `shard_up`).
//!
//! `SIM_SEEDS=10000` tells that many stories instead of the usual number; `SIM_SEED=17` tells one of them, with what
//! happened in it and, by `RUST_LOG`, what was logged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod books;
mod faults;
mod fleet;
mod manager;
mod network;
mod process;
#[path = "../it/scrape.rs"]
mod scrape;

use std::{env, ops::Range, panic::catch_unwind};

use tracing_subscriber::EnvFilter;

/// Stories told in CI.
const STORIES: u64 = 200;
/// Tests that share them, so that they run side by side.
const PARTS: u64 = 8;

/// Tells the stories of one part.
fn tell(part: u64) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seeds = match number("SIM_SEED") {
        Some(seed) => {
            let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env());
            let _ = log.with_ansi(false).with_test_writer().try_init();
            seed..seed + 1
        }
        None => 0..number("SIM_SEEDS").unwrap_or(STORIES),
    };
    let told = seeds.filter(|seed| seed % PARTS == part).map(judge).count();
    println!("{told} stories");
}

/// Tells a story; what is wrong with it fails the test, with its seed.
fn judge(seed: u64) -> u64 {
    // A host that panics takes the simulation with it.
    let Ok(told) = catch_unwind(|| fleet::tell(seed)) else {
        panic!("SIM_SEED={seed}: a panic, see above");
    };
    let log = told.log.join("\n");
    match told.outcome {
        Ok(()) => println!("SIM_SEED={seed}: well\n{log}"),
        Err(wrong) => panic!("SIM_SEED={seed}: {wrong}\n{log}"),
    }
    told.fingerprint
}

macro_rules! parts {
    ($($name:ident $part:literal)*) => {
        const _: Range<u64> = 0..PARTS;
        $(
            #[test]
            fn $name() {
                tell($part);
            }
        )*
    };
}

parts! {
    stories_0 0
    stories_1 1
    stories_2 2
    stories_3 3
    stories_4 4
    stories_5 5
    stories_6 6
    stories_7 7
}

/// Else a seed would be worth little.
#[test]
fn a_story_is_told_the_same_way_twice() {
    for seed in 0..8 {
        assert_eq!(judge(seed), judge(seed), "SIM_SEED={seed}");
    }
}
