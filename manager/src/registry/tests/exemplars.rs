//! Exemplars: the latest of each counter and bucket, which never cost their sample.

use super::*;
use crate::model::{Exemplar, MAX_EXEMPLAR_CHARS};

/// An exemplar with one label.
fn exemplar(bucket: u32, trace: &str, value: f64, at: Option<UnixTime>) -> ReportedExemplar {
    let exemplar = Exemplar::new([("trace_id", trace)].into_iter(), value, at);
    ReportedExemplar { bucket, exemplar }
}

/// All exemplars that are exposed: `name{labels}@bucket trace value time`.
fn exemplars(registry: &Registry, now: UnixTime) -> Vec<String> {
    let mut all = Vec::new();
    registry.visit(now, |shard| {
        for (family, series) in shard.families() {
            for one in series {
                for (bucket, Exemplar { labels, value, at }) in one.exemplars {
                    let (name, of, labels) = (&family.name, one.labels, labels.as_str());
                    let at = at.unwrap().since(super::at(0)).as_secs();
                    all.push(format!("{name}{{{of}}}@{bucket} {labels} {value} {at}"));
                }
            }
        }
    });
    all
}

impl Stream<'_> {
    fn delta_with(
        &mut self,
        sequence: u64,
        samples: (&[u32], &[f64]),
        exemplars: &[(u32, ReportedExemplar)],
        now: UnixTime,
    ) -> Result<Outcome, FrameError> {
        let frame = Frame {
            kind: FrameKind::Delta,
            sequence,
            samples: Samples { ids: samples.0, values: samples.1 },
            removed: Samples::default(),
            exemplars,
        };
        self.writer.apply(frame, now)
    }
}

/// Instance `instance` with a counter (id 0), a histogram of two bounds (id 1) and a gauge (id 2), after its snapshot.
fn ready(registry: &Registry, instance: u8) -> Stream<'_> {
    let mut stream = open(registry, instance, at(0));
    stream.define(COUNTER, "c_total", &[]);
    stream.define_bounded(HISTOGRAM, "h", &[("a", "x")], &[1.0, 2.0]);
    stream.define(GAUGE, "g", &[]);
    let all: &[(u32, &[f64])] = &[(0, &[1.0]), (1, &[1.0, 1.0, 1.0, 0.5]), (2, &[5.0])];
    assert_eq!(stream.snapshot(1, all, at(0)), applied(3));
    stream
}

fn said(outcome: Result<Outcome, FrameError>) -> Vec<(String, Reason, u32)> {
    match outcome.unwrap() {
        Outcome::Applied(applied) => {
            let of = |r: &Rejected| (r.family.to_string(), r.reason, r.series);
            applied.rejected.iter().map(of).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_latest_of_each_counter_and_bucket_is_kept() {
    let registry = registry();
    let mut stream = ready(&registry, 1);
    let first = [
        (1, exemplar(2, "inf", 9.0, None)),
        (0, exemplar(0, "a", 1.0, Some(at(3)))),
        (1, exemplar(0, "small", 0.5, Some(at(1)))),
    ];
    assert_eq!(stream.delta_with(2, (&[], &[]), &first, at(5)), applied(0));
    let shown = [
        "c_total{}@0 trace_id=\"a\" 1 3",
        "h{a=\"x\"}@0 trace_id=\"small\" 0.5 1",
        "h{a=\"x\"}@2 trace_id=\"inf\" 9 5",
    ];
    assert_eq!(exemplars(&registry, at(5)), shown);
    // An earlier one changes nothing, nor does the same without a time.
    let stale = [(0, exemplar(0, "old", 1.0, Some(at(2)))), (1, exemplar(2, "inf", 9.0, None))];
    assert_eq!(stream.delta_with(3, (&[0], &[4.0]), &stale, at(7)), applied(1));
    assert_eq!(exemplars(&registry, at(7)), shown);
    let newer = [(0, exemplar(0, "a", 1.0, Some(at(4)))), (1, exemplar(2, "inf", 8.0, None))];
    assert_eq!(stream.delta_with(4, (&[], &[]), &newer, at(8)), applied(0));
    assert_eq!(
        exemplars(&registry, at(8)),
        [
            "c_total{}@0 trace_id=\"a\" 1 4",
            "h{a=\"x\"}@0 trace_id=\"small\" 0.5 1",
            "h{a=\"x\"}@2 trace_id=\"inf\" 8 8",
        ]
    );
    // They stay when the instance dies, as its counts do.
    assert_eq!(exemplars(&registry, at(8 + DEAD)).len(), 3);
}

#[test]
fn one_from_the_future_blocks_nobody() {
    let registry = registry();
    let mut stream = ready(&registry, 1);
    let ahead = [(0, exemplar(0, "ahead", 1.0, Some(at(1_000))))];
    stream.delta_with(2, (&[], &[]), &ahead, at(5)).unwrap();
    stream.delta_with(3, (&[], &[]), &[(0, exemplar(0, "now", 1.0, Some(at(6))))], at(6)).unwrap();
    assert_eq!(exemplars(&registry, at(6)), ["c_total{}@0 trace_id=\"now\" 1 6"]);
}

#[test]
fn what_is_no_exemplar_here_costs_nothing_else() {
    let registry = registry();
    let mut stream = ready(&registry, 1);
    let limit = "x".repeat(MAX_EXEMPLAR_CHARS - "trace_id".len());
    let long = format!("{limit}x");
    let twice = Exemplar::new([("a", "1"), ("a", "2")].into_iter(), 1.0, None);
    let bad = [
        (0, exemplar(0, &long, 1.0, None)),
        (1, exemplar(0, &limit, 1.0, None)),
        (1, ReportedExemplar { bucket: 1, exemplar: twice }),
    ];
    let outcome = stream.delta_with(2, (&[0], &[4.0]), &bad, at(5));
    let Ok(Outcome::Applied(Applied { samples: 1, ref rejected, .. })) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        rejected[0].message,
        "an exemplar was not taken, its sample was: its labels have 129 characters; 128 is the limit, so leave some out"
    );
    let limit = Reason::Limit;
    assert_eq!(said(outcome), [("c_total".to_owned(), limit, 1), ("h".to_owned(), limit, 1)]);
    assert_eq!(value(&registry, "c_total{}@0", at(5)), Some(vec![4.0]));
    assert_eq!(exemplars(&registry, at(5)).len(), 1);
    // No sample was lost, and it is said once.
    assert!(registry.status(at(5))[0].rejected.iter().all(|(_, n)| *n == 0));
    assert_eq!(said(stream.delta_with(3, (&[0], &[5.0]), &bad, at(6))), []);
}

#[test]
fn one_of_what_has_none_breaks_a_rule() {
    let undefined = "the id is not defined on this stream";
    let nothing = "only counters (bucket 0) and buckets of histograms have exemplars";
    for (id, bucket, what) in [
        (3, 0, undefined),
        (0, 1, nothing),
        (1, 3, nothing),
        (1, u32::MAX, nothing),
        (2, 0, nothing),
    ] {
        let registry = registry();
        let mut stream = ready(&registry, 1);
        let before = page(&registry, at(5));
        let exemplars =
            [(0, exemplar(0, "good", 1.0, None)), (id, exemplar(bucket, "x", 1.0, None))];
        let outcome = stream.delta_with(2, (&[0], &[9.0]), &exemplars, at(5));
        assert_eq!(outcome, Err(FrameError::Exemplar { id, bucket, what }));
        assert_eq!(page(&registry, at(5)), before);
        assert_eq!(self::exemplars(&registry, at(5)), [""; 0]);
    }
}

#[test]
fn those_of_rejected_series_are_passed_over() {
    let registry = registry();
    ready(&registry, 1);
    let mut other = open_shard(&registry, 1, 2, at(0));
    let id = other.define(GAUGE, "c_total", &[]);
    other.snapshot(1, &[(id, &[1.0])], at(0)).unwrap();
    let outcome = other.delta_with(2, (&[], &[]), &[(id, exemplar(0, "x", 1.0, None))], at(1));
    assert_eq!(outcome, applied(0));
    assert_eq!(exemplars(&registry, at(1)), [""; 0]);
}

#[test]
fn a_shard_has_a_thousand() {
    let registry = registry();
    let body = |from: u32, count: u32, trace: &str| {
        let series = (from..from + count).map(|n| ReportedSeries {
            labels: labels(&[("n", &n.to_string())], 0),
            bounds: Bounds::none(),
            values: vec![1.0],
            exemplars: vec![exemplar(0, trace, 1.0, None)],
            place: BodyPlace::Line(n as usize),
        });
        let mut body = family(COUNTER, "c_total", &[]);
        body.series = series.collect();
        [body]
    };
    let applied = post(&registry, named("a"), &body(0, 1_000, "x"), at(0)).unwrap();
    assert_eq!(applied.rejected, []);
    let applied = post(&registry, named("b"), &body(999, 3, "y"), at(1)).unwrap();
    assert_eq!(applied.samples, 3);
    let rejected = &applied.rejected[0];
    assert_eq!(
        (&*rejected.family, rejected.reason, rejected.series),
        ("c_total", Reason::Limit, 2)
    );
    assert!(rejected.message.ends_with("shard 0 has 1000 exemplars, its limit"), "{rejected:?}");
    // The samples are there, and one that was known is replaced.
    assert_eq!(value(&registry, "c_total{n=\"1001\"}@0", at(1)), Some(vec![1.0]));
    let all = exemplars(&registry, at(1));
    assert_eq!(all.len(), 1_000);
    assert!(
        all.contains(&"c_total{n=\"999\"}@0 trace_id=\"y\" 1 1".to_owned()),
        "{:?}",
        all.last()
    );
}

#[test]
fn those_of_the_bounds_that_are_shown_are() {
    let registry = registry();
    let mut old = ready(&registry, 1);
    old.delta_with(2, (&[], &[]), &[(1, exemplar(1, "old", 1.5, None))], at(1)).unwrap();
    let mut new = open(&registry, 2, at(2));
    let id = new.define_bounded(HISTOGRAM, "h", &[("a", "x")], &[1.5]);
    new.snapshot(1, &[(id, &[1.0, 1.0, 0.5])], at(2)).unwrap();
    assert_eq!(exemplars(&registry, at(2)), [""; 0]);
    new.delta_with(2, (&[], &[]), &[(id, exemplar(0, "new", 1.5, None))], at(3)).unwrap();
    assert_eq!(exemplars(&registry, at(3)), ["h{a=\"x\"}@0 trace_id=\"new\" 1.5 3"]);
}
