//! Instances of a shard that count one label set in different buckets (design section 4).

use super::*;

/// Bucket counts by bound, then count and sum.
type Shown = (Vec<f64>, Vec<f64>);

fn shown(registry: &Registry, now: UnixTime) -> Option<Shown> {
    let mut found = Vec::new();
    registry.visit(now, |shard| {
        for (_, series) in shard.families() {
            found.extend(series.map(|s| (s.bounds.values().to_vec(), s.values.to_vec())));
        }
    });
    assert!(found.len() <= 1, "one of the group is shown: {found:?}");
    found.pop()
}

fn histogram<'r>(
    registry: &'r Registry,
    instance: u8,
    bounds: &[f64],
    now: UnixTime,
) -> Stream<'r> {
    let mut stream = open(registry, instance, now);
    stream.define_bounded(HISTOGRAM, "h", &[], bounds);
    stream
}

#[test]
fn the_newest_bounds_are_shown_and_others_count_at_their_greatest_bound_below() {
    let registry = registry();
    let mut old = histogram(&registry, 1, &[1.0, 5.0, 10.0], at(0));
    old.snapshot(1, &[(0, &[1.0, 3.0, 6.0, 10.0, 100.0])], at(0)).unwrap();
    let before = shown(&registry, at(0));

    // Defined, but nothing counted yet: nothing changes.
    let mut new = histogram(&registry, 2, &[0.5, 1.0, 7.0, 20.0], at(1));
    assert_eq!(shown(&registry, at(1)), before);

    new.snapshot(1, &[(0, &[1.0, 2.0, 3.0, 4.0, 5.0, 50.0])], at(1)).unwrap();
    // At 0.5 the old one knows nothing, at 7 what it had at 5, at 20 what it had at 10.
    let merged = (vec![0.5, 1.0, 7.0, 20.0], vec![1.0, 3.0, 6.0, 10.0, 15.0, 150.0]);
    assert_eq!(shown(&registry, at(1)), Some(merged));

    // The old one goes on counting.
    old.delta(2, &[(0, &[2.0, 4.0, 7.0, 11.0, 101.0])], at(2)).unwrap();
    let merged = (vec![0.5, 1.0, 7.0, 20.0], vec![1.0, 4.0, 7.0, 11.0, 16.0, 151.0]);
    assert_eq!(shown(&registry, at(2)), Some(merged.clone()));
    assert_eq!(old.writer.goodbye(2, at(2)), Ok(true));
    assert_eq!(shown(&registry, at(2)), Some(merged));
}

#[test]
fn a_third_instance_with_the_first_ones_bounds_counts_nothing_twice() {
    let registry = registry();
    let mut first = histogram(&registry, 1, &[1.0], at(0));
    first.snapshot(1, &[(0, &[1.0, 2.0, 10.0])], at(0)).unwrap();
    let mut second = histogram(&registry, 2, &[2.0], at(1));
    second.snapshot(1, &[(0, &[3.0, 4.0, 20.0])], at(1)).unwrap();
    assert_eq!(shown(&registry, at(1)), Some((vec![2.0], vec![4.0, 6.0, 30.0])));
    let mut third = histogram(&registry, 3, &[1.0], at(2));
    assert_eq!(shown(&registry, at(2)), Some((vec![2.0], vec![4.0, 6.0, 30.0])));
    third.snapshot(1, &[(0, &[5.0, 6.0, 30.0])], at(2)).unwrap();
    // At bound 1: 1 + 5; the second's bound of 2 is above it.
    let merged = Some((vec![1.0], vec![6.0, 12.0, 60.0]));
    assert_eq!(shown(&registry, at(2)), merged);
    for (stream, sequence) in [(&mut first, 1), (&mut second, 1), (&mut third, 1)] {
        assert_eq!(stream.writer.goodbye(sequence, at(3)), Ok(true));
        assert_eq!(shown(&registry, at(3)), merged);
    }
}

#[test]
fn a_stream_that_only_defines_changes_nothing_ever() {
    let registry = registry();
    let mut first = histogram(&registry, 1, &[1.0], at(0));
    first.snapshot(1, &[(0, &[1.0, 2.0, 10.0])], at(0)).unwrap();
    drop(histogram(&registry, 2, &[2.0], at(1)));
    first.delta(2, &[(0, &[2.0, 3.0, 11.0])], at(2)).unwrap();
    assert_eq!(shown(&registry, at(2)), Some((vec![1.0], vec![2.0, 3.0, 11.0])));
}

#[test]
fn a_refused_frame_does_not_change_which_bounds_are_shown() {
    let registry = registry();
    let mut first = histogram(&registry, 1, &[1.0], at(0));
    first.snapshot(1, &[(0, &[1.0, 2.0, 10.0])], at(0)).unwrap();
    let mut second = histogram(&registry, 2, &[2.0], at(1));
    let before = page(&registry, at(1));
    assert!(second.snapshot(1, &[(0, &[9.0, 4.0, 20.0])], at(1)).is_err());
    assert_eq!(page(&registry, at(1)), before);
}

#[test]
fn a_summarys_count_and_sum_add_up_over_other_quantiles() {
    let registry = registry();
    let summary = |instance, quantiles: &[f64], values: &[f64], now| {
        let mut stream = open(&registry, instance, now);
        let s = stream.define_bounded(SUMMARY, "s", &[], quantiles);
        stream.snapshot(1, &[(s, values)], now).unwrap();
        stream
    };
    let mut old = summary(1, &[0.5], &[0.1, 2.0, 3.0], at(0));
    let _new = summary(2, &[0.5, 0.9], &[0.2, 0.4, 4.0, 5.0], at(1));
    assert_eq!(value(&registry, "s{}@0", at(1)), Some(vec![0.2, 0.4, 6.0, 8.0]));
    // The newer one falls silent: the quantiles are the living one's.
    old.delta(2, &[(0, &[0.3, 2.0, 3.0])], at(20)).unwrap();
    assert_eq!(value(&registry, "s{}@0", at(20)), Some(vec![0.2, 0.4, 6.0, 8.0]));
    assert_eq!(value(&registry, "s{}@0", at(1 + STALE)), Some(vec![0.3, 6.0, 8.0]));
    assert_eq!(value(&registry, "s{}@0", at(60)), Some(vec![6.0, 8.0]));
}

#[test]
fn a_sum_keeps_its_last_bit_when_other_bounds_are_shown() {
    let registry = registry();
    let sums = [0.1, 0.7, 0.3];
    let bounds: [&[f64]; 3] = [&[1.0], &[2.0], &[3.0]];
    let mut streams = Vec::new();
    for (instance, (bounds, sum)) in (1..).zip(bounds.into_iter().zip(sums)) {
        let mut stream = histogram(&registry, instance, bounds, at(0));
        stream.snapshot(1, &[(0, &[0.0, 1.0, sum])], at(0)).unwrap();
        streams.push(stream);
    }
    let sum = |now| *shown(&registry, now).unwrap().1.last().unwrap();
    let before = sum(at(0));
    // An instance with the first bounds that has counted nothing.
    let mut last = histogram(&registry, 9, &[1.0], at(1));
    last.snapshot(1, &[(0, &[0.0, 0.0, 0.0])], at(1)).unwrap();
    assert_eq!(shown(&registry, at(1)).unwrap().0, [1.0]);
    assert_eq!(sum(at(1)).to_bits(), before.to_bits());
}

#[test]
fn an_http_sender_with_other_buckets_adds_up_too() {
    let registry = registry();
    let body = |bounds: &[f64], values: &[f64]| {
        let mut family = family(HISTOGRAM, "h", &[(&[], values)]);
        family.series[0].bounds = Bounds::new(bounds).unwrap();
        [family]
    };
    post(&registry, named("a"), &body(&[1.0], &[1.0, 2.0, 3.0]), at(0)).unwrap();
    post(&registry, named("b"), &body(&[2.0], &[4.0, 5.0, 6.0]), at(1)).unwrap();
    assert_eq!(shown(&registry, at(1)), Some((vec![2.0], vec![5.0, 7.0, 9.0])));
    // The older one posts again; the newer one's bounds stay.
    post(&registry, named("a"), &body(&[1.0], &[2.0, 3.0, 4.0]), at(2)).unwrap();
    assert_eq!(shown(&registry, at(2)), Some((vec![2.0], vec![6.0, 8.0, 10.0])));
}
