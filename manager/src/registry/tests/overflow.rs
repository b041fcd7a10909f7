//! What is over a limit is counted in `overflow="true"` (E6): totals are right whatever comes and goes.

mod totals;

use super::*;

fn small(max_series_per_family: usize) -> Settings {
    Settings { max_series_per_family, ..Settings::default() }
}

fn overflow_of(registry: &Registry, family: &str, now: UnixTime) -> Option<Vec<f64>> {
    value(registry, &format!("{family}{{overflow=\"true\"}}@0"), now)
}

/// A registry that was told all that another was.
fn restored(changes: &[Change<'static>], settings: Settings) -> Registry {
    let registry = Registry::new(settings, []);
    for change in changes {
        registry.restore(change.clone()).unwrap();
    }
    registry
}

/// All of a registry, as a checkpoint has it.
pub(super) fn checkpoint(registry: &Registry) -> Vec<Change<'static>> {
    let mut all = Vec::new();
    registry.checkpoint(|changes| {
        let record = postcard::to_allocvec(changes).unwrap();
        all.push(record);
    });
    let read = |record: Vec<u8>| -> Vec<Change<'static>> {
        postcard::from_bytes(Box::leak(record.into_boxed_slice())).unwrap()
    };
    all.into_iter().flat_map(read).collect()
}

#[test]
fn what_is_over_the_limit_is_counted_since_its_instance_began() {
    let registry = Registry::new(small(1), []);
    let mut stream = open(&registry, 1, at(0));
    let own = stream.define(COUNTER, "x_total", &[("l", "own")]);
    let [a, b] = ["a", "b"].map(|l| stream.define(COUNTER, "x_total", &[("l", l)]));
    let overflow = || overflow_of(&registry, "x_total", at(0)).unwrap();
    stream.snapshot(1, &[(own, &[1.0]), (a, &[10.0]), (b, &[5.0])], at(0)).unwrap();
    assert_eq!(overflow(), [15.0]);
    stream.delta(2, &[(a, &[11.0])], at(0)).unwrap();
    assert_eq!(overflow(), [16.0]);
    // A part that left is counted for good, and goes on from there should it come back, on whatever stream.
    stream.send(FrameKind::Delta, 3, &[], &[(b, &[6.0])], at(0)).unwrap();
    assert_eq!(overflow(), [17.0]);
    let mut stream = open(&registry, 1, at(1));
    let [b, own] = ["b", "own"].map(|l| stream.define(COUNTER, "x_total", &[("l", l)]));
    stream.snapshot(4, &[(b, &[8.0]), (own, &[2.0])], at(1)).unwrap();
    assert_eq!(overflow(), [19.0]);
    assert_eq!(value(&registry, "x_total{l=\"own\"}@0", at(1)), Some(vec![2.0]), "it goes on");
    // Counts of parts do not fall either, and nothing of such a frame is taken.
    let fell = stream.delta(5, &[(own, &[3.0]), (b, &[7.0])], at(1)).unwrap_err();
    assert_eq!(
        fell.to_string(),
        "series id 0 (of x_total): a count fell from 8 to 7; values of one instance never fall"
    );
    assert_eq!(value(&registry, "x_total{l=\"own\"}@0", at(1)), Some(vec![2.0]));
}

#[test]
fn a_gauge_may_have_any_label_for_it_stands_for_no_other() {
    let registry = Registry::new(small(1), []);
    let mut stream = open(&registry, 1, at(0));
    let own = stream.define(GAUGE, "queue", &[("overflow", "true")]);
    stream.snapshot(1, &[(own, &[3.0])], at(0)).unwrap();
    assert_eq!(overflow_of(&registry, "queue", at(0)), Some(vec![3.0]));
    // And it is one series of the family, as any other: there is no room beside it.
    let other = stream.define(GAUGE, "queue", &[("l", "a")]);
    stream.snapshot(2, &[(own, &[4.0]), (other, &[1.0])], at(0)).unwrap();
    assert_eq!(overflow_of(&registry, "queue", at(0)), Some(vec![4.0]));
    assert_eq!(value(&registry, "queue{l=\"a\"}@0", at(0)), None);
}

#[test]
fn a_family_that_overflowed_admits_nothing_new_until_its_instance_ends() {
    let registry = Registry::new(small(1), []);
    let mut stream = open(&registry, 1, at(0));
    let ids = ["a", "b"].map(|l| stream.define(COUNTER, "x_total", &[("l", l)]));
    stream.snapshot(1, &[(ids[0], &[1.0]), (ids[1], &[10.0])], at(0)).unwrap();
    // The manager is started anew with room for all. Another instance counts b by itself; the first must not, for it has
    // counted b elsewhere.
    let registry = restored(&checkpoint(&registry), small(9));
    let mut second = open(&registry, 2, at(1));
    let b = second.define(COUNTER, "x_total", &[("l", "b")]);
    second.snapshot(1, &[(b, &[100.0])], at(1)).unwrap();
    let mut stream = open(&registry, 1, at(2));
    let ids = ["a", "b", "c"].map(|l| stream.define(COUNTER, "x_total", &[("l", l)]));
    stream
        .snapshot(2, &[(ids[0], &[2.0]), (ids[1], &[11.0]), (ids[2], &[1_000.0])], at(2))
        .unwrap();
    let of = |l| value(&registry, &format!("x_total{{l=\"{l}\"}}@0"), at(2));
    assert_eq!((of("a"), of("b"), of("c")), (Some(vec![2.0]), Some(vec![100.0]), None));
    assert_eq!(overflow_of(&registry, "x_total", at(2)), Some(vec![1_011.0]));
    // Its successor may.
    stream.writer.goodbye(2, at(3)).unwrap();
    let mut third = open(&registry, 3, at(3));
    let c = third.define(COUNTER, "x_total", &[("l", "c")]);
    third.snapshot(1, &[(c, &[7.0])], at(3)).unwrap();
    assert_eq!(of("c"), Some(vec![7.0]));
}

#[test]
fn histograms_and_summaries_overflow_without_what_cannot_be_added() {
    let registry = Registry::new(small(1), []);
    let mut stream = open(&registry, 1, at(0));
    let h = ["a", "b", "c"].map(|l| stream.define_bounded(HISTOGRAM, "h", &[("l", l)], &[1.0]));
    let other = stream.define_bounded(HISTOGRAM, "h", &[("l", "d")], &[2.0]);
    let s = ["a", "b", "c"].map(|l| stream.define_bounded(SUMMARY, "s", &[("l", l)], &[0.5]));
    let frame: [(u32, &[f64]); 7] = [
        (h[0], &[1.0, 2.0, 3.0]),
        (h[1], &[1.0, 2.0, 3.0]),
        (h[2], &[10.0, 20.0, -30.0]),
        (other, &[4.0, 4.0, 4.0]),
        (s[0], &[0.7, 1.0, 2.0]),
        (s[1], &[0.7, 1.0, 2.0]),
        (s[2], &[0.7, 10.0, 20.0]),
    ];
    stream.snapshot(1, &frame, at(0)).unwrap();
    // Other bounds: at each, what was counted up to the greatest that is no greater.
    let h = overflow_of(&registry, "h", at(0)).unwrap();
    assert!(h == [11.0, 26.0, -23.0] || h == [15.0, 26.0, -23.0], "{h:?}");
    assert_eq!(overflow_of(&registry, "s", at(0)), Some(vec![11.0, 22.0]));
}

#[test]
fn a_body_that_is_over_the_limit_replaces_what_its_sender_said_before() {
    let registry = Registry::new(small(1), []);
    let body = |values: [f64; 3]| {
        let [a, b, c] = &values;
        let series: Values<'_, Pairs<'_>> = &[
            (&[("l", "a")], std::slice::from_ref(a)),
            (&[("l", "b")], std::slice::from_ref(b)),
            (&[("l", "c")], std::slice::from_ref(c)),
        ];
        [family(COUNTER, "x_total", series)]
    };
    let overflow = |registry: &Registry| overflow_of(registry, "x_total", at(0)).unwrap()[0];
    let taken = post(&registry, named("a"), &body([1.0, 2.0, 3.0]), at(0)).unwrap();
    assert_eq!((taken.samples, taken.rejected[0].series), (3, 2));
    post(&registry, named("a"), &body([1.0, 2.0, 3.0]), at(0)).unwrap();
    assert_eq!(overflow(&registry), 5.0, "the same again changes nothing");
    // One that fell began anew: it alone.
    post(&registry, named("a"), &body([1.0, 1.0, 4.0]), at(0)).unwrap();
    assert_eq!(overflow(&registry), 7.0);
    let again = restored(&checkpoint(&registry), small(1));
    post(&again, named("a"), &body([1.0, 2.0, 4.0]), at(0)).unwrap();
    assert_eq!(overflow(&again), 8.0, "and so it is after a restart");
    // Another sender's are its own.
    post(&again, named("b"), &body([1.0, 1.0, 1.0]), at(0)).unwrap();
    assert_eq!(overflow(&again), 10.0);
    // A later run of one that is named counts on top, also where nothing fell.
    let run = |started: u64, values| {
        let families = body(values);
        let started_at = Some(UnixTime::from_secs_f64(started as f64));
        let report = Report { started_at, ..report(named("c"), &families) };
        again.report(&[report], at(0)).unwrap();
    };
    run(1, [1.0, 1.0, 1.0]);
    run(5, [1.0, 2.0, 3.0]);
    assert_eq!(overflow(&again), 10.0 + 2.0 + 5.0);
    // One without identity begins anew as a whole.
    post(&again, InstanceKey::Anonymous, &body([5.0, 5.0, 5.0]), at(0)).unwrap();
    post(&again, InstanceKey::Anonymous, &body([6.0, 6.0, 4.0]), at(0)).unwrap();
    assert_eq!(overflow(&again), 17.0 + 10.0 + 10.0);
}

#[test]
fn a_full_shard_puts_what_the_dead_counted_into_overflow_oldest_first() {
    let settings = Settings { max_series_per_shard: 8, ..Settings::default() };
    let registry = Registry::new(settings, []);
    let mut first = open(&registry, 1, at(0));
    let own: Vec<_> =
        (0..8).map(|n| first.define(COUNTER, "x_total", &[("l", &n.to_string())])).collect();
    let frame: Vec<_> = own.iter().map(|id| (*id, &[10.0][..])).collect();
    first.snapshot(1, &frame, at(0)).unwrap();
    // While it lives, nothing makes way.
    let mut second = open(&registry, 2, at(1));
    let two = ["7", "new"].map(|l| second.define(COUNTER, "x_total", &[("l", l)]));
    second.snapshot(1, &[(two[0], &[1.0]), (two[1], &[2.0])], at(1)).unwrap();
    assert_eq!(overflow_of(&registry, "x_total", at(1)), Some(vec![2.0]));
    drop(second);

    let later = at(1 + STALE);
    let mut third = open(&registry, 3, later);
    let head = FamilyHead { name: "x_total", kind: COUNTER, help: "", unit: "" };
    let define = |stream: &mut Stream<'_>, l: &str, id| {
        let labels = labels(&[("l", l)], 0);
        let series = vec![SeriesDefinition { id, labels, bounds: Bounds::none() }];
        registry.define(&mut stream.writer, FamilyDefinition { head, series }, later)
    };
    define(&mut third, "0", 0).unwrap();
    assert_eq!(define(&mut third, "newer", 1), Err(DefineError::Rearranged));
    assert_eq!(third.snapshot(1, &[], later), Err(FrameError::Rearranged));
    assert!(third.writer.superseded().is_cancelled());
    let mut third = open(&registry, 3, later);
    define(&mut third, "0", 0).unwrap();
    define(&mut third, "newer", 1).unwrap();
    third.snapshot(1, &[(0, &[5.0]), (1, &[3.0])], later).unwrap();
    let shown = exposed(&registry, later);
    let total: f64 = shown.values().map(|values| values[0]).sum();
    assert_eq!(total, 80.0 + 3.0 + 8.0, "{shown:?}");
    // The oldest went, but not those that the newcomer named.
    assert_eq!(overflow_of(&registry, "x_total", later), Some(vec![10.0 + 2.0]));
    assert!(!shown.contains_key("x_total{l=\"0\"}@0") || shown["x_total{l=\"0\"}@0"] == [15.0]);
    // Should one of the silent return, what it counted is known.
    let mut first = open(&registry, 1, later);
    for (id, l) in (0..).zip(["0", "1", "2"]) {
        first.define(COUNTER, "x_total", &[("l", l)]);
        assert_eq!(first.writer.ids() as u32, id + 1);
    }
    first.snapshot(2, &[(0, &[11.0]), (1, &[11.0]), (2, &[11.0])], later).unwrap();
    let total: f64 = exposed(&registry, later).values().map(|values| values[0]).sum();
    assert_eq!(total, 80.0 + 3.0 + 3.0 + 8.0);
}

#[test]
fn what_was_counted_in_other_bounds_stays_with_its_label_set() {
    let settings = Settings { max_series_per_shard: 3, ..Settings::default() };
    let registry = Registry::new(settings, []);
    let mut first = open(&registry, 1, at(0));
    let h = first.define_bounded(HISTOGRAM, "h", &[], &[1.0]);
    first.snapshot(1, &[(h, &[10.0, 10.0, 10.0])], at(0)).unwrap();
    drop(first);
    let later = at(STALE);
    let mut second = open(&registry, 2, later);
    let h = second.define_bounded(HISTOGRAM, "h", &[], &[2.0]);
    second.snapshot(1, &[(h, &[5.0, 5.0, 5.0])], later).unwrap();
    let shown = |now| value(&registry, "h{}@0", now);
    assert_eq!(shown(later), Some(vec![15.0, 15.0, 15.0]));
    let fill = |sender, name, labels: Values<'_, Pairs<'_>>, now| {
        post(&registry, named(sender), &[family(COUNTER, name, labels)], now).unwrap();
    };
    fill("x", "a_total", &[(&[("l", "a")], &[1.0]), (&[("l", "b")], &[1.0])], later);
    assert_eq!(shown(later), Some(vec![15.0, 15.0, 15.0]), "one of them lives");
    drop(second);
    let dead = at(3 * STALE);
    fill("y", "b_total", &[(&[], &[1.0])], dead);
    assert_eq!(shown(dead), None, "all of it goes together");
    let gone = overflow_of(&registry, "h", dead).unwrap();
    assert_eq!(gone[2], 15.0);
}
