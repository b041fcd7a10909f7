//! A shard that misbehaves: it brings a million random label values, and then new counts of all of them as fast as they
//! are acknowledged.

use std::{convert::Infallible, ops::Range, process::Stdio};

use anyhow::{Context as _, bail};
use shardmeter_proto::v1;
use tokio::process::Command;

use crate::grpc::Stream;

const SERIES: u32 = 1_000_000;

/// Series in one message of at most 4 MiB.
const AT_ONCE: u32 = 40_000;

/// Floods a server until it is dropped, from a process of its own: what the flood costs to make must not be taken for what it
/// costs to take.
pub(crate) async fn flood_from_outside(addr: &str, shards: u32) -> anyhow::Result<Infallible> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--flood", addr, "--shards", &shards.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let ended = command.spawn()?.wait().await?;
    bail!("the flood ended: {ended}")
}

/// Floods a server until it is dropped. The shard is one more than the others.
pub(crate) async fn flood(addr: &str, shards: u32) -> anyhow::Result<Infallible> {
    let mut stream = Stream::connect(addr, shards, shards + 1).await?;
    for ids in parts() {
        stream.define(definitions(ids)).await?;
    }
    for count in 1_u32.. {
        let sequence = stream.next_sequence();
        for (part, ids) in (0..).zip(parts()) {
            let last = ids.end == SERIES;
            // In each round of the benchmark more than in the one before.
            let value = (sequence * u64::from(SERIES)) as f64 + f64::from(count);
            let samples = v1::Samples { values: vec![value; ids.len()], series: ids.collect() };
            let samples = Some(samples);
            stream
                .snapshot(v1::Snapshot { sequence, part, last, samples, ..Default::default() })
                .await?;
        }
        stream.acknowledged().await.context("the flood")?;
    }
    std::future::pending().await
}

fn parts() -> impl Iterator<Item = Range<u32>> {
    (0..SERIES.div_ceil(AT_ONCE)).map(|n| n * AT_ONCE..SERIES.min((n + 1) * AT_ONCE))
}

fn definitions(ids: Range<u32>) -> v1::Definitions {
    let value = |n: u32| format!("{:016x}", u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let series = ids.map(|id| v1::SeriesDefinition {
        id,
        labels: vec![v1::Label { name: "random".to_owned(), value: value(id) }],
        bounds: Vec::new(),
    });
    let family = v1::FamilyDefinition {
        name: "flood_total".to_owned(),
        r#type: v1::MetricType::Counter.into(),
        series: series.collect(),
        ..v1::FamilyDefinition::default()
    };
    v1::Definitions { families: vec![family] }
}
