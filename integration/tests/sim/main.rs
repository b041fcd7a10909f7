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
#[expect(
    dead_code,
    reason = "shared with the tests against real counterparts, which use more of it"
)]
mod scrape;

use std::{
    cell::Cell,
    env,
    panic::{self, catch_unwind},
    sync::Once,
};

use fleet::Told;
use tracing_subscriber::EnvFilter;

/// Stories told in CI.
const STORIES: u64 = 200;

/// Tells every `parts`th story.
fn tell(part: u64, parts: u64) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seeds = match number("SIM_SEED") {
        Some(seed) => {
            let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env());
            let _ = log.with_ansi(false).with_test_writer().try_init();
            seed..seed + 1
        }
        None => 0..number("SIM_SEEDS").unwrap_or(STORIES),
    };
    for seed in seeds.filter(|seed| seed % parts == part) {
        judge(seed);
    }
}

/// Tells a story; what is wrong with it fails the test, with its seed. Returns its fingerprint.
fn judge(seed: u64) -> u64 {
    let panics = count_panics();
    // A host that panics takes the simulation with it; a task on it does not, but must not panic either.
    let Ok(Told { log, outcome, fingerprint }) = catch_unwind(|| fleet::tell(seed)) else {
        panic!("SIM_SEED={seed}: a panic, see above");
    };
    let log = log.join("\n");
    assert_eq!(count_panics(), panics, "SIM_SEED={seed}: a task panicked, see above\n{log}");
    if let Err(wrong) = outcome {
        panic!("SIM_SEED={seed}: {wrong}\n{log}");
    }
    tracing::info!("all is well ({fingerprint:x})\n{log}");
    fingerprint
}

/// How often this thread panicked, since it was first asked.
fn count_panics() -> u32 {
    static COUNTING: Once = Once::new();
    thread_local!(static PANICS: Cell<u32> = const { Cell::new(0) });
    COUNTING.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            report(panic);
        }));
    });
    PANICS.get()
}

/// Tests that share the stories, so that they run side by side.
macro_rules! parts {
    ($($name:ident)*) => {
        const PARTS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                let part = PARTS.iter().position(|name| *name == stringify!($name)).unwrap();
                tell(part as u64, PARTS.len() as u64);
            }
        )*
    };
}

parts! {
    stories_0
    stories_1
    stories_2
    stories_3
    stories_4
    stories_5
    stories_6
    stories_7
}

/// Else a seed would be worth little.
#[test]
fn a_story_is_told_the_same_way_twice() {
    for seed in 0..8 {
        assert_eq!(judge(seed), judge(seed), "SIM_SEED={seed}");
    }
}
