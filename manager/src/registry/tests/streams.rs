//! Frames of gRPC streams: sequences, ids, instances that overlap, die and end.

use super::*;

#[test]
fn a_snapshot_then_deltas_assign_values() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let ping = stream.define(COUNTER, "commands_total", &[("command", "ping")]);
    let guilds = stream.define(GAUGE, "guild_count", &[]);
    assert_eq!(stream.snapshot(1, &[(ping, &[3.0]), (guilds, &[7.0])], at(0)), applied(2));
    assert_eq!(stream.delta(2, &[(ping, &[5.0])], at(1)), applied(1));
    assert_eq!(stream.delta(3, &[], at(2)), applied(0));
    let expected = [
        (r#"commands_total{command="ping"}@0"#.to_owned(), vec![5.0]),
        ("guild_count{}@0".to_owned(), vec![7.0]),
    ];
    assert_eq!(exposed(&registry, at(2)), BTreeMap::from(expected));
}

#[test]
fn a_duplicate_changes_nothing() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let c = stream.define(COUNTER, "c_total", &[]);
    stream.snapshot(1, &[(c, &[3.0])], at(0)).unwrap();
    stream.delta(2, &[(c, &[5.0])], at(1)).unwrap();
    let before = page(&registry, at(2));
    for sequence in [1, 2] {
        let again = stream.delta(sequence, &[(c, &[9.0])], at(2));
        assert_eq!(again, Ok(Outcome::Duplicate));
        let again = stream.snapshot(sequence, &[(c, &[9.0])], at(2));
        assert_eq!(again, Ok(Outcome::Duplicate));
    }
    assert_eq!(page(&registry, at(2)), before);
}

#[test]
fn a_frame_that_cannot_be_placed_changes_nothing() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let c = stream.define(COUNTER, "c_total", &[]);
    let g = stream.define(GAUGE, "g", &[]);
    let before = page(&registry, at(0));
    let early = stream.delta(1, &[(c, &[1.0])], at(0));
    assert_eq!(early, Ok(Outcome::NotApplied(NotApplied::NoSnapshotYet)));
    assert_eq!(page(&registry, at(0)), before);

    stream.snapshot(1, &[(c, &[1.0]), (g, &[1.0])], at(0)).unwrap();
    let before = page(&registry, at(0));
    let gap = NotApplied::Gap { expected: 2, got: 3 };
    assert_eq!(stream.delta(3, &[(c, &[2.0])], at(1)), Ok(Outcome::NotApplied(gap)));
    let undefined = Ok(Outcome::NotApplied(NotApplied::UndefinedId(2)));
    let frame = &[(c, &[2.0][..]), (2, &[1.0])];
    assert_eq!(stream.delta(2, frame, at(1)), undefined);
    assert_eq!(stream.snapshot(9, frame, at(1)), undefined);
    let removed = stream.send(FrameKind::Delta, 2, &[(c, &[2.0])], &[(2, &[1.0])], at(1));
    assert_eq!(removed, undefined);
    assert_eq!(page(&registry, at(0)), before);
    // A snapshot with any greater number is everything up to there.
    assert_eq!(stream.snapshot(9, &[(c, &[4.0])], at(1)), applied(1));
    assert_eq!(exposed(&registry, at(1)), BTreeMap::from([("c_total{}@0".into(), vec![4.0])]));
    assert_eq!(stream.delta(10, &[(c, &[5.0])], at(1)), applied(1));
}

#[test]
fn a_frame_that_breaks_a_rule_changes_nothing() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let c = stream.define(COUNTER, "c_total", &[]);
    let d = stream.define(COUNTER, "d_total", &[]);
    let h = stream.define_bounded(HISTOGRAM, "h", &[], &[1.0, 2.0]);
    stream.snapshot(1, &[(c, &[3.0]), (d, &[3.0]), (h, &[1.0, 2.0, 3.0, 4.0])], at(0)).unwrap();
    let before = page(&registry, at(0));
    let bad: [(&str, Values<'_, u32>); 11] = [
        ("fell", &[(c, &[4.0]), (d, &[2.0])]),
        ("NaN", &[(c, &[4.0]), (d, &[f64::NAN])]),
        ("negative", &[(c, &[4.0]), (d, &[-1.0])]),
        ("infinite", &[(c, &[4.0]), (d, &[f64::INFINITY])]),
        ("twice", &[(c, &[4.0]), (d, &[4.0]), (c, &[5.0])]),
        ("too few values", &[(c, &[4.0]), (d, &[])]),
        ("too many values", &[(c, &[4.0]), (d, &[4.0, 5.0])]),
        ("bucket fell", &[(c, &[4.0]), (h, &[0.0, 2.0, 3.0, 4.0])]),
        ("count fell", &[(c, &[4.0]), (h, &[1.0, 2.0, 2.0, 4.0])]),
        ("buckets fall", &[(c, &[4.0]), (h, &[3.0, 2.0, 3.0, 4.0])]),
        ("bucket over count", &[(c, &[4.0]), (h, &[1.0, 4.0, 3.0, 4.0])]),
    ];
    for (what, samples) in bad {
        for kind in [FrameKind::Delta, FrameKind::Snapshot] {
            let refused = stream.send(kind, 2, samples, &[], at(0));
            assert!(refused.is_err(), "{what}: {refused:?}");
            // Good samples and a bad series that left.
            let (bad, good) = samples.split_last().unwrap();
            if what != "twice" {
                let refused = stream.send(kind, 2, good, &[*bad], at(0));
                assert!(refused.is_err(), "{what} removed: {refused:?}");
            }
            assert_eq!(page(&registry, at(0)), before, "{what}");
        }
    }
    let both = stream.send(FrameKind::Delta, 2, &[(c, &[4.0])], &[(c, &[4.0])], at(0));
    assert_eq!(both, Err(FrameError::Twice(c)));
    assert_eq!(stream.delta(0, &[(c, &[4.0])], at(0)), Err(FrameError::SequenceZero));
    assert_eq!(page(&registry, at(0)), before);
    assert_eq!(stream.delta(2, &[(c, &[4.0])], at(0)), applied(1));
}

#[test]
fn a_refused_sample_is_named_by_family_and_labels() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let c = stream.define(COUNTER, "c_total", &[("a", "x")]);
    let refused = stream.snapshot(1, &[(c, &[-1.0])], at(0)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"series id 0 (c_total{a="x"}): a count is -1, not a number from 0 up"#
    );
}

#[test]
fn a_newer_stream_of_the_instance_takes_over() {
    let registry = registry();
    let mut first = open(&registry, 1, at(0));
    let c = first.define(COUNTER, "c_total", &[]);
    first.snapshot(1, &[(c, &[3.0])], at(0)).unwrap();

    let attached = attach(&registry, 0, 2, 1, at(1)).unwrap();
    assert_eq!((attached.last_sequence, attached.closed_at), (1, None));
    let mut second =
        Stream { registry: &registry, shard_id: 0, now: at(0), writer: attached.writer };
    let before = page(&registry, at(1));
    assert_eq!(first.delta(2, &[(c, &[9.0])], at(1)), Err(FrameError::Superseded));
    assert_eq!(first.snapshot(5, &[(c, &[9.0])], at(1)), Err(FrameError::Superseded));
    assert_eq!(first.writer.goodbye(1, at(1)), Err(FrameError::Superseded));
    assert_eq!(page(&registry, at(1)), before);
    drop(first);
    assert!(registry.status(at(1))[0].instances[0].connected);

    // Its ids are its own, and it begins with a snapshot.
    let c = second.define(COUNTER, "c_total", &[]);
    assert_eq!(
        second.delta(2, &[(c, &[4.0])], at(1)),
        Ok(Outcome::NotApplied(NotApplied::NoSnapshotYet))
    );
    second.snapshot(2, &[(c, &[4.0])], at(1)).unwrap();
    assert_eq!(value(&registry, "c_total{}@0", at(1)), Some(vec![4.0]));
    drop(second);
    assert!(!registry.status(at(1))[0].instances[0].connected);
}

#[test]
fn the_older_streams_writer_learns_of_it() {
    let registry = registry();
    let first = open(&registry, 1, at(0));
    let other = open(&registry, 2, at(0));
    assert!(!first.writer.superseded().is_cancelled());
    let second = open(&registry, 1, at(1));
    assert!(first.writer.superseded().is_cancelled());
    assert!([second, other].iter().all(|s| !s.writer.superseded().is_cancelled()));
}

#[test]
fn overlapping_instances_add_up_and_the_newer_owns_the_gauges() {
    let registry = registry();
    let mut old = open(&registry, 1, at(0));
    let (c, g) = (old.define(COUNTER, "c_total", &[]), old.define(GAUGE, "g", &[]));
    old.snapshot(1, &[(c, &[3.0]), (g, &[1.0])], at(0)).unwrap();

    let mut new = open(&registry, 2, at(5));
    let _ = (new.define(COUNTER, "c_total", &[]), new.define(GAUGE, "g", &[]));
    // It said Hello, but reported nothing yet.
    assert_eq!(value(&registry, "g{}@0", at(5)), Some(vec![1.0]));
    new.snapshot(1, &[(c, &[10.0]), (g, &[2.0])], at(6)).unwrap();
    old.delta(2, &[(c, &[4.0]), (g, &[9.0])], at(7)).unwrap();
    assert_eq!(value(&registry, "c_total{}@0", at(7)), Some(vec![14.0]));
    assert_eq!(value(&registry, "g{}@0", at(7)), Some(vec![2.0]));

    // A reconnect does not make the old one newer.
    drop(old);
    let mut old = open(&registry, 1, at(8));
    let _ = (old.define(COUNTER, "c_total", &[]), old.define(GAUGE, "g", &[]));
    old.snapshot(3, &[(c, &[5.0]), (g, &[9.0])], at(8)).unwrap();
    assert_eq!(value(&registry, "c_total{}@0", at(8)), Some(vec![15.0]));
    assert_eq!(value(&registry, "g{}@0", at(8)), Some(vec![2.0]));

    // The new one falls silent; the old one lives.
    old.delta(4, &[], at(6 + STALE)).unwrap();
    assert_eq!(value(&registry, "g{}@0", at(6 + STALE)), Some(vec![9.0]));
    assert_eq!(value(&registry, "c_total{}@0", at(6 + STALE)), Some(vec![15.0]));
}

#[test]
fn gauges_leave_with_the_last_living_instance_and_counts_stay() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let ids = [
        stream.define(COUNTER, "c_total", &[]),
        stream.define(GAUGE, "g", &[]),
        stream.define(MetricType::Untyped, "u", &[]),
        stream.define_bounded(HISTOGRAM, "h", &[], &[1.0]),
        stream.define_bounded(SUMMARY, "s", &[], &[0.5]),
    ];
    let values: [&[f64]; 5] = [&[1.0], &[2.0], &[3.0], &[1.0, 2.0, 3.0], &[0.1, 4.0, 5.0]];
    let samples: Vec<_> = ids.into_iter().zip(values).collect();
    stream.snapshot(1, &samples, at(0)).unwrap();
    assert_eq!(exposed(&registry, at(30)).len(), 5);

    let dead = BTreeMap::from([
        ("c_total{}@0".to_owned(), vec![1.0]),
        ("h{}@0".to_owned(), vec![1.0, 2.0, 3.0]),
        ("s{}@0".to_owned(), vec![4.0, 5.0]),
    ]);
    assert_eq!(exposed(&registry, at(STALE)), dead);
    // Back again: one sign of life, and everything is there.
    stream.delta(2, &[], at(40)).unwrap();
    assert_eq!(exposed(&registry, at(40)).len(), 5);
}

#[test]
fn goodbye_folds_and_is_remembered() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let (c, g) = (stream.define(COUNTER, "c_total", &[]), stream.define(GAUGE, "g", &[]));
    stream.snapshot(4, &[(c, &[3.0]), (g, &[1.0])], at(0)).unwrap();
    assert_eq!(stream.writer.goodbye(3, at(1)), Ok(false));
    assert_eq!(exposed(&registry, at(1)).len(), 2);
    assert_eq!(stream.writer.goodbye(4, at(1)), Ok(true));
    let kept = BTreeMap::from([("c_total{}@0".to_owned(), vec![3.0])]);
    assert_eq!(exposed(&registry, at(1)), kept);
    assert_eq!(registry.status(at(1))[0].instances.len(), 0);
    assert_eq!(stream.delta(5, &[(c, &[9.0])], at(1)), Err(FrameError::Closed));

    let attached = attach(&registry, 0, 2, 1, at(2)).unwrap();
    assert_eq!((attached.last_sequence, attached.closed_at), (4, Some(4)));
    let mut closed =
        Stream { registry: &registry, shard_id: 0, now: at(0), writer: attached.writer };
    let c = closed.define(COUNTER, "c_total", &[]);
    assert_eq!(closed.snapshot(5, &[(c, &[9.0])], at(2)), Err(FrameError::Closed));
    assert_eq!(closed.writer.goodbye(4, at(2)), Err(FrameError::Closed));
    assert_eq!(exposed(&registry, at(2)), kept);

    let mut next = open(&registry, 2, at(3));
    let c = next.define(COUNTER, "c_total", &[]);
    next.snapshot(1, &[(c, &[2.0])], at(3)).unwrap();
    assert_eq!(value(&registry, "c_total{}@0", at(3)), Some(vec![5.0]));
}

#[test]
fn goodbye_of_the_younger_waits_for_the_older_and_is_remembered_too() {
    let registry = registry();
    let mut streams = [1, 2].map(|instance| {
        let mut stream = open(&registry, instance, at(0));
        let (c, g) = (stream.define(COUNTER, "c_total", &[]), stream.define(GAUGE, "g", &[]));
        let value = f64::from(instance);
        stream.snapshot(1, &[(c, &[value]), (g, &[value])], at(0)).unwrap();
        stream
    });
    assert_eq!(value(&registry, "g{}@0", at(1)), Some(vec![2.0]));
    assert_eq!(streams[1].writer.goodbye(1, at(1)), Ok(true));
    assert_eq!(value(&registry, "g{}@0", at(1)), Some(vec![1.0]));
    assert_eq!(value(&registry, "c_total{}@0", at(1)), Some(vec![3.0]));
    let closed_at = |instance| attach(&registry, 0, 2, instance, at(2)).unwrap().closed_at;
    assert_eq!(closed_at(2), Some(1));
    assert_eq!(streams[0].writer.goodbye(1, at(1)), Ok(true));
    assert_eq!([closed_at(1), closed_at(2)], [Some(1), Some(1)]);
    let counts = BTreeMap::from([("c_total{}@0".to_owned(), vec![3.0])]);
    assert_eq!(exposed(&registry, at(1)), counts);
}

#[test]
fn an_hour_of_silence_folds_when_the_next_instance_comes() {
    let registry = registry();
    let mut silent = open(&registry, 1, at(0));
    let c = silent.define(COUNTER, "c_total", &[]);
    silent.snapshot(1, &[(c, &[3.0])], at(0)).unwrap();
    let _next = open(&registry, 2, at(DEAD));
    assert_eq!(silent.delta(2, &[(c, &[4.0])], at(DEAD)), Err(FrameError::Closed));
    assert_eq!(attach(&registry, 0, 2, 1, at(DEAD)).unwrap().closed_at, Some(1));
    assert_eq!(value(&registry, "c_total{}@0", at(DEAD)), Some(vec![3.0]));
}

#[test]
fn a_crash_loop_stays_bounded_and_loses_nothing() {
    let registry = registry();
    for instance in 0..200_u8 {
        let now = at(u64::from(instance) * 60);
        let mut stream = open(&registry, instance, now);
        let c = stream.define(COUNTER, "c_total", &[]);
        stream.snapshot(1, &[(c, &[2.0])], now).unwrap();
        assert!(registry.status(now)[0].instances.len() <= 6);
    }
    assert_eq!(value(&registry, "c_total{}@0", at(0)), Some(vec![400.0]));
}

#[test]
fn identities_without_end_stay_bounded_and_lose_nothing() {
    let registry = registry();
    for instance in 0..200_u8 {
        let mut stream = open(&registry, instance, at(0));
        let c = stream.define(COUNTER, "c_total", &[]);
        stream.snapshot(1, &[(c, &[2.0])], at(0)).unwrap();
        assert!(registry.status(at(0))[0].instances.len() <= 16);
    }
    assert_eq!(value(&registry, "c_total{}@0", at(0)), Some(vec![400.0]));
}

#[test]
fn what_left_the_senders_registry_leaves_if_it_is_a_gauge() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let c = stream.define(COUNTER, "c_total", &[]);
    let g = stream.define(GAUGE, "g", &[]);
    let s = stream.define_bounded(SUMMARY, "s", &[], &[0.5]);
    let all: [(u32, &[f64]); 3] = [(c, &[3.0]), (g, &[7.0]), (s, &[0.1, 2.0, 3.0])];
    stream.snapshot(1, &all, at(0)).unwrap();
    let removed: [(u32, &[f64]); 3] = [(c, &[5.0]), (g, &[8.0]), (s, &[0.2, 4.0, 5.0])];
    assert_eq!(stream.send(FrameKind::Delta, 2, &[], &removed, at(1)), applied(3));
    let counts = BTreeMap::from([
        ("c_total{}@0".to_owned(), vec![5.0]),
        ("s{}@0".to_owned(), vec![4.0, 5.0]),
    ]);
    assert_eq!(exposed(&registry, at(1)), counts);
    // It comes back: the client kept an offset.
    let back: [(u32, &[f64]); 3] = [(c, &[6.0]), (g, &[1.0]), (s, &[0.3, 6.0, 7.0])];
    stream.delta(3, &back, at(2)).unwrap();
    assert_eq!(value(&registry, "c_total{}@0", at(2)), Some(vec![6.0]));
    assert_eq!(value(&registry, "g{}@0", at(2)), Some(vec![1.0]));
    assert_eq!(value(&registry, "s{}@0", at(2)), Some(vec![0.3, 6.0, 7.0]));
    // A snapshot that leaves them out says the same as `removed`.
    stream.snapshot(4, &[], at(3)).unwrap();
    let counts = BTreeMap::from([
        ("c_total{}@0".to_owned(), vec![6.0]),
        ("s{}@0".to_owned(), vec![6.0, 7.0]),
    ]);
    assert_eq!(exposed(&registry, at(3)), counts);
}

#[test]
fn a_gauge_that_only_a_dead_instance_has_is_not_the_living_ones() {
    let registry = registry();
    let mut old = open(&registry, 1, at(0));
    let (g, x) = (old.define(GAUGE, "g", &[]), old.define(GAUGE, "x", &[]));
    old.snapshot(1, &[(g, &[1.0]), (x, &[1.0])], at(0)).unwrap();
    let mut new = open(&registry, 2, at(1));
    let g = new.define(GAUGE, "g", &[]);
    new.snapshot(1, &[(g, &[2.0])], at(1)).unwrap();
    assert_eq!(exposed(&registry, at(1)), BTreeMap::from([("g{}@0".to_owned(), vec![2.0])]));
}

#[test]
fn sums_do_not_move_when_instances_are_folded() {
    let registry = registry();
    let parts = [0.1, 0.7, 1e-17, 0.3, 1e9];
    let mut streams: Vec<_> = (1..)
        .zip(parts)
        .map(|(instance, part)| {
            let mut stream = open(&registry, instance, at(0));
            let c = stream.define(COUNTER, "c_total", &[]);
            stream.snapshot(1, &[(c, &[part])], at(0)).unwrap();
            stream
        })
        .collect();
    let before = value(&registry, "c_total{}@0", at(0)).unwrap();
    for ended in [3, 1, 4, 0, 2] {
        assert_eq!(streams[ended].writer.goodbye(1, at(0)), Ok(true));
        let after = value(&registry, "c_total{}@0", at(0)).unwrap();
        assert_eq!(before[0].to_bits(), after[0].to_bits());
    }
}
