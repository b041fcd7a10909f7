//! Applying a frame allocates nothing for its samples, once every series has been there. A program of its own, for it
//! counts what all its threads allocate.
#![allow(clippy::unwrap_used, missing_docs)]

use dhat::{Alloc, HeapStats, Profiler};
use shardmeter_manager::{
    clock::UnixTime,
    model::{Bounds, FamilyHead, LabelSet, MetricType, Samples},
    registry::{
        FamilyDefinition, Frame, FrameKind, Hello, Outcome, Registry, SeriesDefinition, Settings,
        Writer,
    },
};

#[global_allocator]
static ALLOC: Alloc = Alloc;

const COUNTERS: u32 = 1_000;

fn now() -> UnixTime {
    UnixTime::from_secs_f64(1_800_000_000.0)
}

fn apply(writer: &mut Writer, kind: FrameKind, sequence: u64, series: u32) {
    let ids: Vec<_> = (0..series).collect();
    let values = vec![sequence as f64; ids.len()];
    let samples = Samples { ids: &ids, values: &values };
    let frame = Frame { kind, sequence, samples, removed: Samples::default(), exemplars: &[] };
    let before = HeapStats::get().total_blocks;
    assert!(matches!(writer.apply(frame, now()), Ok(Outcome::Applied(_))));
    let blocks = HeapStats::get().total_blocks - before;
    // The first frames make the memory that later ones use.
    assert!(sequence < 10 || blocks == 0, "{blocks} allocations for {series} samples");
}

#[test]
fn a_frame_of_known_series_allocates_nothing() {
    let _profiler = Profiler::builder().testing().build();
    let registry = Registry::new(Settings::default(), []);
    let hello =
        Hello { shard_id: 0, shard_count: 1, instance_id: [1; 16], started_at: now(), client: "" };
    let mut writer = registry.attach(hello, now()).unwrap().writer;
    let series = |id: u32| {
        let labels = LabelSet::canonical([("guild_id", id.to_string().as_str())], 0, None).unwrap();
        SeriesDefinition { id, labels, bounds: Bounds::none() }
    };
    let head = FamilyHead { name: "c_total", kind: MetricType::Counter, help: "", unit: "" };
    let definition = FamilyDefinition { head, series: (0..COUNTERS).map(series).collect() };
    registry.define(&mut writer, definition, now()).unwrap();

    apply(&mut writer, FrameKind::Snapshot, 1, COUNTERS);
    for sequence in 2..100 {
        let changed = if sequence % 2 == 0 { 1 } else { COUNTERS };
        apply(&mut writer, FrameKind::Delta, sequence, changed);
        // A scrape takes what changed, and gives the memory back.
        registry.collect(now(), false, |_, _| {});
    }
}
