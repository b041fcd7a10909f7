//! Time to apply a decoded frame, and to render the page of 1,000 shards.
#![allow(clippy::unwrap_used, missing_docs)]

mod workload;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardmeter_manager::{
    exposition::{Format, render},
    registry::{FrameKind, Registry, Settings},
};

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply a delta (throughput in values)");
    for (name, changed) in [("25 counters", 25), ("120 counters", 120), ("all 185 label sets", 185)]
    {
        let mut fleet = workload::fleet(100);
        group.throughput(Throughput::Elements(fleet.shards[0].values_of(changed) as u64));
        let mut next = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                next = (next + 1) % fleet.shards.len();
                fleet.shards[next].report(FrameKind::Delta, changed);
            });
        });
    }
}

/// A bot in many guilds has many series on one shard, which must not make each dearer.
fn apply_to_a_large_shard(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply a delta to one shard (throughput in values)");
    for series in [300, 3_000] {
        let settings = Settings { max_series_per_family: 3_000, ..Settings::default() };
        let registry = Registry::new(settings, []);
        let mut shard = workload::Shard::of_guilds(&registry, series);
        let changed = series as usize / 10;
        group.throughput(Throughput::Elements(changed as u64));
        group.bench_function(format!("{changed} of {series} counters"), |b| {
            let mut turn = 0;
            b.iter(|| {
                turn += 1;
                shard.report_scattered(turn);
            });
        });
    }
}

fn render_page(c: &mut Criterion) {
    let fleet = workload::fleet(1_000);
    let mut group = c.benchmark_group("render 1,000 shards x 250 series (throughput in series)");
    group
        .throughput(Throughput::Elements(1_000 * workload::SERIES_PER_SHARD as u64))
        .sample_size(20);
    for format in [Format::TEXT, Format::OPENMETRICS, Format::PROTOBUF] {
        group.bench_function(format.syntax.as_str(), |b| {
            b.iter(|| black_box(render(&fleet.registry, &[], workload::now(), format).len()));
        });
    }
}

criterion_group!(benches, apply, apply_to_a_large_shard, render_page);
criterion_main!(benches);
