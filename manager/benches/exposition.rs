//! What a scrape of 1,000 shards x 250 series costs, by what changed since the last one. Medians of the rounds.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod workload;

use std::hint::black_box;

use shardmeter_manager::exposition::{Coding, Exposition, Format, Page, render};
use tokio::time::Instant;

const ROUNDS: usize = 21;

fn main() {
    let mut fleet = workload::fleet(1_000);
    let kept = Exposition::default();
    let registry = fleet.registry.clone();
    let scrape = |coding| kept.render(&registry, &[], workload::now(), (Format::TEXT, coding));
    println!(
        "page of {} series: {:.1} MB plain, {:.2} MB gzip",
        1_000 * workload::SERIES_PER_SHARD,
        megabytes(&scrape(Coding::Identity)),
        megabytes(&scrape(Coding::Gzip))
    );
    let fresh =
        median(|| {}, || black_box(render(&registry, &[], workload::now(), Format::TEXT).len()));
    println!("rendered anew: {fresh:.2} ms");
    for coding in [Coding::Identity, Coding::Gzip] {
        let nothing = median(|| {}, || black_box(scrape(coding).len()));
        println!("{coding:?}, nothing changed: {nothing:.2} ms");
        let mut turn = 0;
        let same = median(
            || fleet.shards.iter_mut().for_each(|shard| shard.report_scattered(0)),
            || black_box(scrape(coding).len()),
        );
        println!("{coding:?}, the same 10 % changed: {same:.2} ms");
        let random = median(
            || {
                turn += 1;
                fleet
                    .shards
                    .iter_mut()
                    .enumerate()
                    .for_each(|(n, shard)| shard.report_scattered(turn * 3 + n));
            },
            || black_box(scrape(coding).len()),
        );
        println!("{coding:?}, another 10 % changed: {random:.2} ms");
    }
}

fn megabytes(page: &Page) -> f64 {
    page.len() as f64 / 1e6
}

fn median(mut before: impl FnMut(), mut timed: impl FnMut() -> usize) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            before();
            let began = Instant::now();
            black_box(timed());
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}
