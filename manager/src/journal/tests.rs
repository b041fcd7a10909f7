//! The journal under a real registry: what is there after a restart, and what happens when the disk fails.

mod damage;
mod disk;
mod epoch;
mod golden;
mod model;
mod waiting;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tempfile::TempDir;

use super::{log::faults::FaultyDisk, *};
use crate::{
    metrics::Metrics,
    model::Samples,
    registry::{
        Frame, FrameKind, Hello, InstanceKey, Outcome, Settings, ShardState,
        tests::{
            COUNTER, GAUGE, HISTOGRAM, STALE, Stream, at, attach, exposed, open, open_shard, page,
            value,
        },
    },
};

/// A registry and its journal, as a running manager has them.
struct Run {
    registry: Registry,
    journal: Arc<FileJournal<FaultyDisk>>,
}

impl Run {
    /// Starts on what earlier runs left in `dir`.
    fn start(dir: &TempDir, now: UnixTime) -> Self {
        Self::start_on(FaultyDisk::default(), dir, now)
    }

    fn start_on(disk: FaultyDisk, dir: &TempDir, now: UnixTime) -> Self {
        let registry = Registry::new(Settings::default(), []);
        let metrics = Metrics::new().unwrap().of_journal().unwrap();
        let journal = FileJournal::open_on(disk, dir.path(), &registry, metrics).unwrap();
        let sink = Arc::clone(&journal);
        registry.record_to(Box::new(move |changes| sink.append(changes)));
        registry.resume(now);
        Self { registry, journal }
    }

    fn maintain(&self, now: UnixTime) {
        self.journal.maintain(&self.registry, now);
    }
}

fn durable(outcome: Result<Outcome, crate::registry::FrameError>) -> bool {
    match outcome {
        Ok(Outcome::Applied(applied)) => applied.durable,
        other => panic!("{other:?}"),
    }
}

/// A stream with a counter and a gauge, and its first frame.
fn begin(registry: &Registry, instance: u8, count: f64, now: UnixTime) -> (Stream<'_>, bool) {
    let mut stream = open(registry, instance, now);
    stream.define(COUNTER, "c_total", &[]);
    stream.define(GAUGE, "g", &[]);
    let first = stream.snapshot(1, &[(0, &[count]), (1, &[1.0])], now);
    (stream, durable(first))
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let before = {
        let run = Run::start(&dir, at(0));
        let (mut stream, first) = begin(&run.registry, 1, 5.0, at(0));
        assert!(first);
        let bounds = stream.define_bounded(HISTOGRAM, "h", &[("l", "x")], &[1.0, 2.0]);
        assert!(durable(stream.delta(2, &[(bounds, &[1.0, 2.0, 3.0, 0.1])], at(1))));
        exposed(&run.registry, at(1))
    };
    let run = Run::start(&dir, at(10));
    assert_eq!(exposed(&run.registry, at(10)), before);
    // The instance goes on where it was.
    let mut stream = open(&run.registry, 1, at(10));
    let c = stream.define(COUNTER, "c_total", &[]);
    stream.snapshot(3, &[(c, &[7.0])], at(10)).unwrap();
    assert_eq!(value(&run.registry, "c_total{}@0", at(10)), Some(vec![7.0]));
    assert_eq!(run.registry.status(at(10))[0].instances.len(), 1);
}

#[test]
fn a_restart_pages_nobody_and_wakes_nobody() {
    let dir = TempDir::new().unwrap();
    {
        let run = Run::start(&dir, at(0));
        let _stale = begin(&run.registry, 1, 5.0, at(0));
        let mut lives = open_shard(&run.registry, 1, 2, at(100));
        let g = lives.define(GAUGE, "g", &[]);
        lives.snapshot(1, &[(g, &[2.0])], at(100)).unwrap();
    }
    // Long after: who lived at the end is given the time to come back, who did not stays down.
    let run = Run::start(&dir, at(5000));
    let states = |now| run.registry.status(now).into_iter().map(|s| s.state).collect::<Vec<_>>();
    assert_eq!(states(at(5030)), [ShardState::Stale, ShardState::Up]);
    assert_eq!(value(&run.registry, "g{}@1", at(5030)), Some(vec![2.0]));
    assert_eq!(run.registry.status(at(5030))[1].last_report, Some(at(100)), "that stays true");
    assert_eq!(states(at(5000 + STALE)), [ShardState::Stale, ShardState::Stale]);
    assert_eq!(value(&run.registry, "g{}@1", at(5000 + STALE)), None);
}

#[test]
fn restarts_in_a_row_page_nobody() {
    let dir = TempDir::new().unwrap();
    {
        let run = Run::start(&dir, at(0));
        drop(begin(&run.registry, 1, 5.0, at(0)));
    }
    // Down for 25 s, up for 10, down for 10, up: its shard had no more than 10 s to come back.
    {
        let run = Run::start(&dir, at(25));
        run.maintain(at(35));
        run.maintain(at(36));
    }
    let run = Run::start(&dir, at(45));
    assert_eq!(run.registry.status(at(45))[0].state, ShardState::Up);
    run.journal.renew(&run.registry, at(46)); // nor does a checkpoint forget it
    drop(run);
    let run = Run::start(&dir, at(50));
    assert_eq!(run.registry.status(at(80))[0].state, ShardState::Up);
    assert_eq!(run.registry.status(at(81))[0].state, ShardState::Stale);
}

#[test]
fn a_checkpoint_on_a_quiet_day_wakes_nobody() {
    let dir = TempDir::new().unwrap();
    {
        let run = Run::start(&dir, at(0));
        drop(begin(&run.registry, 1, 5.0, at(0)));
        run.journal.renew(&run.registry, at(1_000));
    }
    let run = Run::start(&dir, at(1_001));
    assert_eq!(run.registry.status(at(1_001))[0].state, ShardState::Stale);
}

#[test]
fn a_clock_that_was_set_back_over_a_restart_keeps_who_was_silent_silent() {
    let dir = TempDir::new().unwrap();
    {
        let run = Run::start(&dir, at(7_200));
        drop(begin(&run.registry, 1, 5.0, at(7_200)));
        let mut lives = open_shard(&run.registry, 1, 2, at(7_300));
        lives.snapshot(1, &[], at(7_300)).unwrap();
    }
    let run = Run::start(&dir, at(100));
    let states = |now| run.registry.status(now).into_iter().map(|s| s.state).collect::<Vec<_>>();
    assert_eq!(states(at(101)), [ShardState::Stale, ShardState::Up]);
    assert_eq!(states(at(131)), [ShardState::Stale, ShardState::Stale]);
    // A new shard count counts, and the next restart goes by the new clock.
    drop(attach(&run.registry, 3, 4, 9, at(131)).unwrap());
    drop(run);
    let run = Run::start(&dir, at(140));
    assert_eq!(run.registry.status(at(140)).len(), 4);
    assert_eq!(run.registry.status(at(140))[1].state, ShardState::Stale);
}

#[test]
fn what_did_not_change_is_not_written_again() {
    use crate::registry::tests::{family, named, post};
    let dir = TempDir::new().unwrap();
    let run = Run::start(&dir, at(0));
    let size = || run.journal.open.lock().log.since_checkpoint();
    let labels: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    let body = |count: f64| {
        let pairs: Vec<_> = labels.iter().map(|label| [("l", label.as_str())]).collect();
        let (rest, moves) = ([7.0], [count]);
        let value = |n| if n == 0 { &moves[..] } else { &rest[..] };
        let series: Vec<_> = pairs.iter().enumerate().map(|(n, p)| (&p[..], value(n))).collect();
        [family(COUNTER, "c_total", &series)]
    };
    post(&run.registry, named("a"), &body(1.0), at(0)).unwrap();
    let before = size();
    for count in 2..12 {
        post(&run.registry, named("a"), &body(f64::from(count)), at(0)).unwrap();
    }
    assert!(size() - before < 10 * 100, "{}", size() - before);
    // So it is when a stream says everything again.
    let mut stream = open(&run.registry, 1, at(0));
    let ids: Vec<_> =
        labels.iter().map(|l| stream.define(COUNTER, "d_total", &[("l", l)])).collect();
    let all: Vec<(u32, &[f64])> = ids.iter().map(|id| (*id, &[3.0][..])).collect();
    stream.snapshot(1, &all, at(0)).unwrap();
    let before = size();
    for sequence in 2..12 {
        stream.snapshot(sequence, &all, at(0)).unwrap();
    }
    assert!(size() - before < 10 * 100, "{}", size() - before);
    let before = exposed(&run.registry, at(0));
    drop(stream);
    drop(run);
    assert_eq!(exposed(&Run::start(&dir, at(0)).registry, at(0)), before);
}

#[test]
fn an_instance_that_was_folded_long_ago_is_still_known() {
    let dir = TempDir::new().unwrap();
    let run = Run::start(&dir, at(0));
    let registry = &run.registry;
    let hello = |id: u32| {
        let mut instance_id = [0; 16];
        instance_id[..4].copy_from_slice(&id.to_be_bytes());
        let hello =
            Hello { shard_id: 0, shard_count: 2, instance_id, started_at: at(0), client: "" };
        registry.attach(hello, at(0)).unwrap()
    };
    let mut first = hello(0).writer;
    let samples = Samples::default();
    let kind = FrameKind::Snapshot;
    let frame = Frame { kind, sequence: 7, samples, removed: samples, exemplars: &[] };
    first.apply(frame, at(0)).unwrap();
    drop(first);
    // A crash loop says Hello and no more, a thousand times over.
    (1..5_000).for_each(|id| drop(hello(id)));
    assert_eq!(hello(0).closed_at, Some(7));
}

#[test]
fn the_journal_knows_how_long_the_manager_lived() {
    let dir = TempDir::new().unwrap();
    {
        let run = Run::start(&dir, at(0));
        let _stream = begin(&run.registry, 1, 5.0, at(0));
        run.maintain(at(1)); // something was appended: no need to say the time
        run.maintain(at(200));
    }
    let run = Run::start(&dir, at(201));
    assert_eq!(run.registry.status(at(201))[0].state, ShardState::Stale);
}

#[test]
fn its_size_follows_what_is_live_not_what_passed() {
    let dir = TempDir::new().unwrap();
    let run = Run::start(&dir, at(0));
    let mut stream = open(&run.registry, 1, at(0));
    for n in 0..200 {
        stream.define(COUNTER, "c_total", &[("n", &n.to_string())]);
    }
    stream.snapshot(1, &[], at(0)).unwrap();
    let mut largest = 0;
    for sequence in 2..5_000_u64 {
        let value = [sequence as f64];
        let samples: Vec<(u32, &[f64])> = (0..200).map(|id| (id, &value[..])).collect();
        stream.delta(sequence, &samples, at(sequence)).unwrap();
        if sequence % 10 == 0 {
            run.maintain(at(sequence));
        }
        largest = largest.max(run.journal.open.lock().log.disk_bytes());
    }
    let checkpoints = run.journal.metrics.checkpoints.get();
    assert!(checkpoints > 5, "{checkpoints}");
    assert!(largest < 2 * MIN_CHECKPOINT_BYTES, "{largest}");
    let before = exposed(&run.registry, at(5_000));
    drop(stream);
    drop(run);
    assert_eq!(exposed(&Run::start(&dir, at(5_000)).registry, at(5_000)), before);
}

#[test]
fn a_checkpoint_stops_nobody_and_misses_nothing() {
    let dir = TempDir::new().unwrap();
    let before = {
        let run = Run::start(&dir, at(0));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let run = &run;
            let writers: Vec<_> = (0..4_u8)
                .map(|n| {
                    scope.spawn(move || {
                        // New shards, series and instances come all the time.
                        for instance in 0..8_u8 {
                            // Checkpoints are taken at the beginning, in the middle and at the end.
                            while run.journal.metrics.checkpoints.get() < u64::from(instance / 3) {
                                std::thread::yield_now();
                            }
                            let shard = u32::from(n) * 8 + u32::from(instance);
                            let registry = &run.registry;
                            let mut stream =
                                open_shard(registry, shard % 2, n * 8 + instance, at(0));
                            for count in 1..=60_u64 {
                                let label = format!("{n} {}", count / 10);
                                let id = if count % 10 == 1 {
                                    stream.define(COUNTER, "c_total", &[("n", &label)])
                                } else {
                                    stream.writer.ids() as u32 - 1
                                };
                                let value = [count as f64];
                                let kept = match count {
                                    1 => stream.snapshot(count, &[(id, &value)], at(0)),
                                    _ => stream.delta(count, &[(id, &value)], at(0)),
                                };
                                assert!(durable(kept));
                            }
                            stream.writer.goodbye(60, at(0)).unwrap();
                        }
                    })
                })
                .collect();
            let done = &done;
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    run.journal.renew(&run.registry, at(0));
                }
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Relaxed);
        });
        assert!(run.journal.metrics.checkpoints.get() > 1);
        exposed(&run.registry, at(0))
    };
    let run = Run::start(&dir, at(0));
    assert_eq!(exposed(&run.registry, at(0)), before);
    assert_eq!(
        before.values().map(|v| v[0]).sum::<f64>(),
        4.0 * 8.0 * (10.0 + 20.0 + 30.0 + 40.0 + 50.0 + 60.0)
    );
}

#[test]
fn families_that_gave_way_are_not_back_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let before = {
        let run = Run::start(&dir, at(0));
        let mut defines = open(&run.registry, 1, at(0));
        defines.define(GAUGE, "x", &[]);
        let mut reports = open(&run.registry, 2, at(0));
        let x = reports.define(COUNTER, "x", &[]);
        reports.snapshot(1, &[(x, &[1.0])], at(0)).unwrap();
        run.journal.renew(&run.registry, at(0));
        page(&run.registry, at(0))
    };
    let run = Run::start(&dir, at(0));
    assert!(before.contains("# TYPE x counter"), "{before}");
    assert_eq!(page(&run.registry, at(0)), before);
    let mut again = open(&run.registry, 3, at(0));
    let x = again.define(GAUGE, "x", &[]);
    again.snapshot(1, &[(x, &[1.0])], at(0)).unwrap();
    assert_eq!(page(&run.registry, at(0)).matches("# TYPE x ").count(), 1);
}
