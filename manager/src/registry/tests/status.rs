//! Who is up (design section 4, `shard_up`).

use super::*;

fn states(registry: &Registry, now: UnixTime) -> Vec<(u32, ShardState)> {
    let status = registry.status(now);
    status.into_iter().map(|s| (s.id, s.state)).collect()
}

/// Instance `instance` of `shard_id` of `shard_count` says Hello and reports nothing but that it lives.
fn live(registry: &Registry, shard_id: u32, shard_count: u32, instance: u8, now: UnixTime) {
    let mut attached = attach(registry, shard_id, shard_count, instance, now).unwrap();
    let frame = Frame {
        kind: FrameKind::Snapshot,
        sequence: attached.last_sequence + 1,
        samples: Samples::default(),
        removed: Samples::default(),
        exemplars: &[],
    };
    attached.writer.apply(frame, now).unwrap();
}

#[test]
fn every_id_below_the_newest_count_is_listed() {
    use ShardState::{NeverSeen, Stale, Up};
    let registry = registry();
    assert_eq!(states(&registry, at(0)), []);
    live(&registry, 1, 3, 1, at(0));
    let seen = [(0, NeverSeen), (1, Up), (2, NeverSeen)];
    assert_eq!(states(&registry, at(0)), seen);
    assert_eq!(states(&registry, at(30))[1], (1, Up));
    assert_eq!(states(&registry, at(STALE))[1], (1, Stale));
    // A socket is not a report.
    let attached = attach(&registry, 2, 3, 2, at(STALE)).unwrap();
    assert_eq!(states(&registry, at(STALE))[2], (2, NeverSeen));
    drop(attached);
}

#[test]
fn ids_above_the_newest_count_leave_once_stale() {
    use ShardState::{NeverSeen, Up};
    let registry = registry();
    for shard_id in 0..4 {
        live(&registry, shard_id, 4, shard_id as u8, at(0));
    }
    live(&registry, 0, 2, 10, at(10));
    let ids = |now| -> Vec<u32> { states(&registry, now).iter().map(|s| s.0).collect() };
    assert_eq!(ids(at(10)), [0, 1, 2, 3]);
    live(&registry, 3, 4, 3, at(20)); // an old instance lives on; its count is not the newest
    assert_eq!(ids(at(STALE)), [0, 1, 3]);
    assert_eq!(ids(at(20 + STALE)), [0, 1]);
    // Up again: all below the new count are there.
    live(&registry, 4, 5, 11, at(60));
    let expected = [(3, ShardState::Stale), (4, Up)];
    assert_eq!(states(&registry, at(60))[3..], expected);
    live(&registry, 0, 6, 12, at(61));
    assert_eq!(states(&registry, at(61))[5], (5, NeverSeen));
}

#[test]
fn a_hello_that_is_noted_late_is_not_the_newest() {
    let registry = registry();
    live(&registry, 0, 2, 1, at(10));
    live(&registry, 0, 4, 2, at(9)); // another thread read the clock before, and came after
    assert_eq!(states(&registry, at(10)).len(), 2);
}

#[test]
fn http_senders_say_no_count_and_stay_listed() {
    let registry = registry();
    post(&registry, named("a"), &[], at(0)).unwrap();
    assert_eq!(states(&registry, at(0)), [(0, ShardState::Up)]);
    assert_eq!(states(&registry, at(STALE)), [(0, ShardState::Stale)]);
}

#[test]
fn a_hello_makes_sense_or_is_refused() {
    let registry = registry();
    let refused = |id, count| attach(&registry, id, count, 1, at(0)).unwrap_err();
    assert!(matches!(refused(3, 3), AttachError::IdOutOfRange { .. }));
    assert!(matches!(refused(0, 0), AttachError::IdOutOfRange { .. }));
    assert_eq!(refused(0, MAX_SHARD_COUNT + 1), AttachError::TooManyShards(MAX_SHARD_COUNT + 1));
    assert_eq!(states(&registry, at(0)), []);
}

#[test]
fn reports_are_counted_by_transport() {
    let registry = registry();
    live(&registry, 0, 1, 1, at(0));
    live(&registry, 0, 1, 1, at(5));
    post(&registry, named("a"), &[], at(7)).unwrap();
    let status = registry.status(at(7)).remove(0);
    assert_eq!(status.reports, [(Transport::Grpc, 2), (Transport::Http, 1)]);
    assert_eq!(status.last_report, Some(at(7)));
    let instances: Vec<_> = status
        .instances
        .iter()
        .map(|i| (i.key.to_string(), i.last_sequence, i.last_report, i.owner))
        .collect();
    assert_eq!(instances, [("01".repeat(16), 2, at(5), false), ("a".into(), 0, at(7), true)]);
}

/// It is on no page less than before: as one that was never seen.
#[test]
fn a_shard_that_comes_while_others_are_looked_at_is_listed() {
    let registry = registry();
    attach(&registry, 0, 8, 1, at(0)).unwrap();
    let collected = registry.collect(at(0), true, |_, _| {
        attach(&registry, 5, 8, 2, at(0)).unwrap();
    });
    let mut listed: Vec<_> = collected.summaries.iter().map(|shard| shard.id).collect();
    listed.sort_unstable();
    assert_eq!(listed, (0..8).collect::<Vec<_>>());
}
