//! What the journal costs: a frame with and without it, in interleaved rounds; the time to start on 1 M series; the
//! disk it takes. One line each; medians of the rounds.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod workload;

use std::{fs, path::Path, time::Duration};

use shardmeter_manager::{
    Config, Manager,
    clock::Clock,
    exposition::{Format, render},
    registry::{FrameKind, Registry},
};
use tokio::{
    runtime::Runtime,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 15;
const FRAMES: usize = 4_000;

fn main() {
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    frames(&runtime);
    start(&runtime);
}

/// Microseconds a frame, by how many of a shard's 185 label sets changed.
fn frames(runtime: &Runtime) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let kept = manager(runtime, Some(dir.path()));
    let forgotten = manager(runtime, None);
    let mut with = workload::fleet_on(kept.registry(), 100);
    let mut without = workload::fleet_on(forgotten.registry(), 100);
    for (name, changed) in [("25 values", 25), ("120 values", 120), ("245 values", 185)] {
        let (mut journal, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            memory.push(micros_a_frame(&mut without, changed));
            journal.push(micros_a_frame(&mut with, changed));
        }
        let (journal, memory) = (median(&mut journal), median(&mut memory));
        println!(
            "a frame of {name}: {memory:.2} us in memory, {journal:.2} us with a journal: {:.2} us more",
            journal - memory
        );
    }
}

fn micros_a_frame(fleet: &mut workload::Fleet, changed: usize) -> f64 {
    let shards = fleet.shards.len();
    let began = Instant::now();
    for n in 0..FRAMES {
        fleet.shards[n % shards].report(FrameKind::Delta, changed);
    }
    began.elapsed().as_secs_f64() * 1e6 / FRAMES as f64
}

/// Starts on what 4,000 shards of 250 series left: every change since the first, and then a checkpoint of it.
fn start(runtime: &Runtime) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let first = manager(runtime, Some(dir.path()));
    let mut fleet = workload::fleet_on(first.registry(), 4_000);
    for shard in &mut fleet.shards {
        shard.report(FrameKind::Delta, 185);
    }
    let series = 4_000 * workload::SERIES_PER_SHARD;
    let page = page_bytes(&fleet.registry);
    drop(fleet);
    drop(first);
    restart(runtime, dir.path(), "changes", series, page);
    // A running manager writes a checkpoint within a second.
    let second = manager(runtime, Some(dir.path()));
    let before = size(dir.path());
    let stop = CancellationToken::new();
    let running = runtime.spawn(second.run(stop.clone().cancelled_owned()));
    let checkpointed = async {
        while size(dir.path()) >= before {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let checkpointed = async { timeout(Duration::from_secs(30), checkpointed).await };
    runtime.block_on(checkpointed).unwrap();
    stop.cancel();
    runtime.block_on(running).unwrap().unwrap();
    restart(runtime, dir.path(), "a checkpoint", series, page);
}

fn restart(runtime: &Runtime, dir: &Path, of: &str, series: usize, page: usize) {
    let mut times: Vec<f64> = (0..3)
        .map(|_| {
            let began = Instant::now();
            let manager = manager(runtime, Some(dir));
            let took = began.elapsed().as_secs_f64();
            assert_eq!(page_bytes(&manager.registry()), page, "the page is the same");
            took
        })
        .collect();
    let megabytes = size(dir) as f64 / 1e6;
    println!(
        "start on {of}, {series} series: {:.2} s, {megabytes:.0} MB on disk",
        median(&mut times)
    );
}

fn manager(runtime: &Runtime, dir: Option<&Path>) -> Manager {
    let config = Config { data_dir: dir.map(Path::to_owned), ..Config::default() };
    runtime.block_on(Manager::build(config)).unwrap()
}

fn page_bytes(registry: &Registry) -> usize {
    render(registry, &[], Clock::new().now(), Format::TEXT).len()
}

fn size(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap();
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
