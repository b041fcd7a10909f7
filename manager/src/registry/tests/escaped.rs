//! Names beyond the legacy rule: what becomes the same where they are escaped is rejected, so that every page is valid.

use super::*;

/// Reports the series one after the other on one stream, and returns what of them was rejected.
fn rejects(
    registry: &Registry,
    shard_id: u32,
    instance: u8,
    series: &[(MetricType, &str, Pairs<'_>)],
) -> Vec<(String, Reason)> {
    let mut stream = open_shard(registry, shard_id, instance, at(0));
    let mut frame: Vec<(u32, &[f64])> = Vec::new();
    for (kind, name, pairs) in series {
        let id = stream.define(*kind, name, pairs);
        frame.push((id, &[1.0, 1.0][..kind.width(0)]));
    }
    match stream.snapshot(1, &frame, at(0)).unwrap() {
        Outcome::Applied(applied) => {
            applied.rejected.into_iter().map(|r| (r.family.into(), r.reason)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn families_whose_names_become_the_same_are_rejected() {
    let cases = [
        ((GAUGE, "a.b"), (GAUGE, "a_b")),
        ((GAUGE, "a-b"), (COUNTER, "a b")),
        ((GAUGE, "花火"), (GAUGE, "__")),
        // With values alone.
        ((GAUGE, "a.b"), (GAUGE, "U__a_2e_b")),
        // Samples.
        ((SUMMARY, "a.b"), (GAUGE, "a_b_sum")),
        ((SUMMARY, "a.b"), (GAUGE, "a.b.count")),
        ((SUMMARY, "a.b"), (GAUGE, "U__a_2e_b_sum")),
        ((HISTOGRAM, "a_b"), (GAUGE, "a.b.bucket")),
        // What OpenMetrics names a family, and when counting began.
        ((COUNTER, "a.b_total"), (GAUGE, "a_b")),
        ((COUNTER, "a.b.total"), (GAUGE, "a_b")),
        ((COUNTER, "a.b.total"), (GAUGE, "a_b.created")),
        // With dots alone this would be `__created` twice.
        ((COUNTER, "_total"), (GAUGE, "_created")),
        ((COUNTER, ".total"), (GAUGE, ".created")),
    ];
    for (one, other) in cases {
        for [(kind, first), (other, second)] in [[one, other], [other, one]] {
            let registry = registry();
            let both: [(_, _, Pairs<'_>); 2] = [(kind, first, &[]), (other, second, &[])];
            let rejected = rejects(&registry, 0, 1, &both);
            let expected = [(second.to_owned(), Reason::NameCollision)];
            assert_eq!(rejected, expected, "{first} then {second}");
        }
    }
    // These go together, on every page.
    let together = ["a.b", "a.c", "a_d", "U__a_2e_d", "a__b"].map(|name| (GAUGE, name, &[][..]));
    assert_eq!(rejects(&registry(), 0, 1, &together), []);
}

#[test]
fn the_managers_names_are_its_own_however_they_are_written() {
    for name in ["shard.up", "shard_up"] {
        let registry = Registry::new(Settings::default(), [("shard_up", GAUGE)]);
        let rejected = rejects(&registry, 0, 1, &[(GAUGE, name, &[])]);
        assert_eq!(rejected, [(name.to_owned(), Reason::NameCollision)]);
    }
}

/// Label sets that become one, in both orders.
const ALIKE: [[Pairs<'_>; 2]; 4] = [
    [&[("a.b", "x")], &[("a_b", "x")]],
    [&[("a.b", "x"), ("c", "y")], &[("a-b", "x"), ("c", "y")]],
    [&[("a.b", "x")], &[("U__a_2e_b", "x")]],
    [&[("ü", "x"), ("c", "q\"\\\n")], &[("_", "x"), ("c", "q\"\\\n")]],
];

#[test]
fn series_whose_labels_become_the_same_are_rejected() {
    for [one, other] in ALIKE {
        for [first, second] in [[one, other], [other, one]] {
            let registry = registry();
            let both = [(COUNTER, "c_total", first), (COUNTER, "c_total", second)];
            let expected = [("c_total".to_owned(), Reason::DuplicateSeries)];
            assert_eq!(rejects(&registry, 0, 1, &both), expected, "{first:?} then {second:?}");
            // Whoever has it keeps it, and nobody else gets it, however they report.
            let mine = family(COUNTER, "c_total", &[(first, &[2.0])]);
            assert_eq!(post(&registry, named("a"), &[mine], at(0)).unwrap().rejected, []);
            let other = family(COUNTER, "c_total", &[(second, &[2.0])]);
            let rejected = post(&registry, named("b"), &[other], at(0)).unwrap().rejected;
            assert_eq!(rejected[0].reason, Reason::DuplicateSeries);
            assert!(rejected[0].message.contains("rename a label"), "{}", rejected[0].message);
            // Of another family or shard it may be.
            assert_eq!(rejects(&registry, 0, 2, &[(COUNTER, "d_total", second)]), []);
            assert_eq!(rejects(&registry, 1, 3, &[(COUNTER, "c_total", second)]), []);
        }
    }
    let apart: [Pairs<'_>; 4] =
        [&[("a.b", "x")], &[("a_b", "y")], &[("a.b", "x"), ("c", "y")], &[("a.c", "x")]];
    let apart = apart.map(|pairs| (COUNTER, "c_total", pairs));
    assert_eq!(rejects(&registry(), 0, 1, &apart), []);
}

#[test]
fn other_bounds_of_the_same_labels_are_no_duplicate() {
    let registry = registry();
    for (instance, bound) in [(1, 1.0), (2, 2.0)] {
        let mut stream = open(&registry, instance, at(0));
        let id = stream.define_bounded(HISTOGRAM, "h", &[("a.b", "x")], &[bound]);
        let Ok(Outcome::Applied(taken)) = stream.snapshot(1, &[(id, &[1.0, 2.0, 3.0])], at(0))
        else {
            panic!()
        };
        assert_eq!((taken.samples, taken.rejected), (1, vec![]));
    }
}

#[test]
fn what_is_taken_is_so_after_a_restart() {
    for [one, other] in ALIKE {
        for [first, second] in [[one, other], [other, one]] {
            let live = registry();
            let [replayed, from_checkpoint] = [(); 2].map(|()| Arc::new(registry()));
            let sink = Arc::clone(&replayed);
            live.record_to(Box::new(move |changes| {
                changes.iter().all(|change| sink.restore(change.clone()).is_ok())
            }));
            let both = [(COUNTER, "c_total", first), (GAUGE, "a.b", &[][..])];
            assert_eq!(rejects(&live, 0, 1, &both), []);
            live.checkpoint(|changes| {
                for change in changes {
                    from_checkpoint.restore(change.clone()).unwrap();
                }
            });
            for restored in [replayed, from_checkpoint] {
                let both = [(COUNTER, "c_total", second), (GAUGE, "a_b", &[][..])];
                let expected = [
                    ("c_total".to_owned(), Reason::DuplicateSeries),
                    ("a_b".to_owned(), Reason::NameCollision),
                ];
                assert_eq!(rejects(&restored, 0, 2, &both), expected);
            }
        }
    }
}
