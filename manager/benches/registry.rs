//! Time to apply a decoded frame, and to render the page of 1,000 shards.
#![allow(clippy::unwrap_used, missing_docs)]

mod workload;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shardmeter_manager::{
    exposition::{Format, render},
    registry::FrameKind,
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

criterion_group!(benches, apply, render_page);
criterion_main!(benches);
