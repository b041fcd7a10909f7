//! What streams report.

use super::*;

fn columns(sequence: u64, series: &[u32], values: &[f64]) -> Said {
    let samples = Some(v1::Samples { series: series.to_vec(), values: values.to_vec() });
    Said::Delta(v1::Delta { sequence, samples, ..v1::Delta::default() })
}

/// A frame with what was defined as id 2, of which nothing is taken, and one more of `rest_total`.
fn partly(
    what: &'static str,
    family: v1::FamilyDefinition,
    rejected: &'static [(&'static str, &'static str, &'static str)],
) -> Row {
    let values: Vec<f64> = [6.0]
        .into_iter()
        .chain(family.series.iter().flat_map(|s| {
            let many = match s.bounds.len() {
                0 if family.r#type < MetricType::Histogram as i32
                    || family.r#type == MetricType::Untyped as i32 =>
                {
                    1
                }
                bounds => bounds + 2,
            };
            vec![1.0; many]
        }))
        .collect();
    let ids: Vec<u32> = [0].into_iter().chain(family.series.iter().map(|s| s.id)).collect();
    let mut before = begun();
    before.push(define(vec![family]));
    row(what, before, columns(2, &ids, &values), Partly(rejected))
}

#[tokio::test]
async fn frames_that_make_no_sense() {
    check(vec![
        bad("sequence 0", delta(0, &[]), "sequence 0; sequences start at 1"),
        bad(
            "a negative count",
            delta(2, &[(0, -1.0)]),
            "series id 0 (rest_total{}): a count is -1",
        ),
        bad("a count that is NaN", delta(2, &[(0, f64::NAN)]), "a count is NaN"),
        bad("an infinite count", delta(2, &[(0, f64::INFINITY)]), "a count is inf"),
        bad(
            "a count that falls",
            delta(2, &[(0, 4.0)]),
            "a count fell from 5 to 4; values of one instance never fall",
        ),
        bad(
            "a bucket that falls",
            columns(2, &[1], &[0.0, 2.0, 3.0, 4.0]),
            "a count fell from 1 to 0",
        ),
        bad(
            "buckets that fall",
            columns(2, &[1], &[3.0, 2.0, 3.0, 4.0]),
            "cumulative bucket counts fall from 3 to 2",
        ),
        bad(
            "a good one before a bad one",
            columns(2, &[0, 1], &[9.0, 9.0, 2.0, 3.0, 4.0]),
            "cumulative bucket counts fall from 9 to 2",
        ),
        bad(
            "a series twice",
            delta(2, &[(0, 6.0), (0, 7.0)]),
            "series id 0 stands twice in one frame",
        ),
        bad(
            "a value too few",
            columns(2, &[0, 1], &[6.0, 1.0]),
            "2 values where the named series have 5",
        ),
        bad(
            "a value too many",
            columns(2, &[0], &[6.0, 7.0]),
            "2 values where the named series have 1",
        ),
        bad("values of nothing", columns(2, &[], &[6.0]), "1 values where the named series have 0"),
        bad("a fall in a snapshot", snapshot(2, &[(0, 1.0)]), "a count fell from 5 to 1"),
    ])
    .await;
}

#[tokio::test]
async fn frames_that_do_not_follow() {
    let part = |sequence, part, last| {
        Said::Snapshot(v1::Snapshot { sequence, part, last, ..v1::Snapshot::default() })
    };
    let begun_snapshot = || [begun(), vec![part(2, 0, false)]].concat();
    let resync = |what, before, said, reason| row(what, before, said, Refused(RESYNC, reason));
    check(vec![
        resync(
            "an id that was not defined",
            begun(),
            delta(2, &[(7, 1.0)]),
            "series id 7 is not defined on this stream",
        ),
        resync(
            "the highest id",
            begun(),
            delta(2, &[(u32::MAX, 1.0)]),
            "series id 4294967295 is not defined",
        ),
        resync("a gap", begun(), delta(3, &[(0, 9.0)]), "sequence 3 where 2 is next"),
        resync("the highest sequence", begun(), delta(u64::MAX, &[(0, 9.0)]), "where 2 is next"),
        resync(
            "a delta first",
            begun()[..2].to_vec(),
            delta(1, &[(0, 9.0)]),
            "a delta before the stream's first snapshot",
        ),
        resync(
            "a part that is not the first",
            begun(),
            part(2, 1, true),
            "snapshot part 1 of sequence 2",
        ),
        resync(
            "a part left out",
            begun_snapshot(),
            part(2, 2, true),
            "where part 1 of sequence 2 is next",
        ),
        resync(
            "a part of another snapshot",
            begun_snapshot(),
            part(3, 1, true),
            "where part 1 of sequence 2 is next",
        ),
        resync(
            "a delta between parts",
            begun_snapshot(),
            delta(2, &[(0, 9.0)]),
            "a delta before the snapshot's last part",
        ),
        resync("a goodbye to come", begun(), Said::Goodbye(v1::Goodbye { sequence: 9 }), "9"),
        row(
            "a sequence once more",
            begun(),
            delta(1, &[(0, 9.0)]),
            Taken(&["h_count{shard_id=\"0\"} 2"]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn families_that_conflict() {
    let gauge = |name: &str| family(name, MetricType::Gauge, vec![series(2, &[], &[])]);
    let labelled = |name: &str, value: &str| {
        family("a", MetricType::Gauge, vec![series(2, &[(name, value)], &[])])
    };
    let bounds: Vec<f64> = (0..501).map(f64::from).collect();
    let long = "x".repeat(1 << 20);
    check(vec![
        partly(
            "another type",
            family("g", MetricType::Counter, vec![series(2, &[], &[])]),
            &[("g", "REJECT_REASON_TYPE_CONFLICT", "counter")],
        ),
        partly(
            "a counter as a gauge",
            gauge("known_total"),
            &[("known_total", "REJECT_REASON_TYPE_CONFLICT", "gauge")],
        ),
        partly(
            "a histogram as a gauge",
            gauge("h"),
            &[("h", "REJECT_REASON_TYPE_CONFLICT", "gauge")],
        ),
        partly(
            "the manager's own of a shard",
            gauge("shard_up"),
            &[("shard_up", "REJECT_REASON_NAME_COLLISION", "manager")],
        ),
        partly(
            "the manager's own",
            gauge("shardmeter_manager_streams"),
            &[("shardmeter_manager_streams", "REJECT_REASON_NAME_COLLISION", "manager")],
        ),
        partly(
            "its own in dots",
            gauge("shard.up"),
            &[("shard.up", "REJECT_REASON_NAME_COLLISION", "shard_up")],
        ),
        partly(
            "a histogram's sum",
            gauge("h_sum"),
            &[("h_sum", "REJECT_REASON_NAME_COLLISION", "h")],
        ),
        partly(
            "a counter's start",
            gauge("known_created"),
            &[("known_created", "REJECT_REASON_NAME_COLLISION", "known")],
        ),
        partly(
            "a counter's OpenMetrics name",
            gauge("known"),
            &[("known", "REJECT_REASON_NAME_COLLISION", "known")],
        ),
        partly(
            "alike once escaped",
            gauge("dotted_name"),
            &[("dotted_name", "REJECT_REASON_NAME_COLLISION", "dotted.name")],
        ),
        partly("a name of a megabyte", gauge(&long), &[("xxx", "REJECT_REASON_LIMIT", "bytes")]),
        partly(
            "a label value of a megabyte",
            labelled("b", &long),
            &[("a", "REJECT_REASON_LIMIT", "bytes")],
        ),
        partly(
            "a label name of a megabyte",
            labelled(&long, "b"),
            &[("a", "REJECT_REASON_LIMIT", "bytes")],
        ),
        partly(
            "501 buckets",
            family("b", MetricType::Histogram, vec![series(2, &[], &bounds)]),
            &[("b", "REJECT_REASON_LIMIT", "bounds")],
        ),
    ])
    .await;
}
