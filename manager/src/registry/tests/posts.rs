//! Whole bodies of HTTP senders (design section 5).

use super::*;

pub(super) fn counts(c: f64, d: f64) -> [ReportedFamily; 1] {
    let series: Values<'_, Pairs<'_>> = &[(&[("l", "c")], &[c]), (&[("l", "d")], &[d])];
    [family(COUNTER, "x_total", series)]
}

pub(super) fn both(registry: &Registry, now: UnixTime) -> [f64; 2] {
    ["c", "d"].map(|l| value(registry, &format!("x_total{{l=\"{l}\"}}@0"), now).unwrap()[0])
}

#[test]
fn a_body_replaces_what_its_sender_said_before() {
    let registry = registry();
    let mut body = counts(3.0, 4.0).to_vec();
    body.push(family(GAUGE, "g", &[(&[], &[1.0])]));
    assert_eq!(post(&registry, named("a"), &body, at(0)).unwrap().samples, 3);
    let before = exposed(&registry, at(0));
    post(&registry, named("a"), &body, at(0)).unwrap();
    assert_eq!(exposed(&registry, at(0)), before);
    // The gauge is left out: it has left. The counters stay.
    post(&registry, named("a"), &counts(5.0, 4.0)[..], at(1)).unwrap();
    assert_eq!(both(&registry, at(1)), [5.0, 4.0]);
    assert_eq!(value(&registry, "g{}@0", at(1)), None);
    post(&registry, named("a"), &[], at(2)).unwrap();
    assert_eq!(both(&registry, at(2)), [5.0, 4.0]);
    // A label set that was removed and comes back goes on from where it was, if it says so.
    post(&registry, named("a"), &counts(6.0, 4.0), at(3)).unwrap();
    assert_eq!(both(&registry, at(3)), [6.0, 4.0]);
}

#[test]
fn every_identity_has_its_own_record() {
    let registry = registry();
    let identities = [
        named("a"),
        InstanceKey::ProcessStart(1.5_f64.to_bits()),
        InstanceKey::ProcessStart(2.5_f64.to_bits()),
        InstanceKey::Anonymous,
    ];
    for (sender, count) in identities.iter().zip([1.0, 10.0, 100.0, 1000.0]) {
        post(&registry, sender.clone(), &counts(count, 0.0), at(0)).unwrap();
    }
    assert_eq!(both(&registry, at(0)), [1111.0, 0.0]);
    // A late body of an old process changes its own record only.
    post(&registry, identities[1].clone(), &counts(11.0, 0.0), at(1)).unwrap();
    assert_eq!(both(&registry, at(1)), [1112.0, 0.0]);
}

/// So many senders come and fall silent that those of before are folded; returns when.
fn crowd_out(registry: &Registry, now: UnixTime) -> UnixTime {
    for n in 0..4 {
        post(registry, named(&format!("crowd {n}")), &[], now).unwrap();
    }
    let later = now + Duration::from_secs(DEAD);
    post(registry, named("the last"), &[], later).unwrap();
    later
}

#[test]
fn a_lower_value_under_the_same_identity_carries_that_series_alone() {
    let registry = registry();
    let sender = || named("a");
    post(&registry, sender(), &counts(10.0, 20.0), at(0)).unwrap();
    post(&registry, sender(), &counts(3.0, 21.0), at(1)).unwrap();
    assert_eq!(both(&registry, at(1)), [13.0, 21.0]);
    post(&registry, sender(), &counts(5.0, 22.0), at(2)).unwrap();
    assert_eq!(both(&registry, at(2)), [15.0, 22.0]);
    post(&registry, sender(), &counts(1.0, 23.0), at(3)).unwrap();
    post(&registry, sender(), &counts(1.0, 23.0), at(3)).unwrap();
    assert_eq!(both(&registry, at(3)), [16.0, 23.0]);
    assert_eq!(registry.status(at(3))[0].instances.len(), 1);
    // What was carried is folded too.
    let now = crowd_out(&registry, at(4));
    assert_eq!(both(&registry, now), [16.0, 23.0]);
    assert_eq!(post(&registry, sender(), &counts(9.0, 99.0), now), Err(ReportError::Closed));
}

#[test]
fn an_identified_sender_may_be_silent_for_hours() {
    let registry = registry();
    post(&registry, named("a"), &counts(10.0, 20.0), at(0)).unwrap();
    post(&registry, named("b"), &counts(1.0, 1.0), at(DEAD)).unwrap();
    post(&registry, named("a"), &counts(11.0, 20.0), at(2 * DEAD)).unwrap();
    assert_eq!(both(&registry, at(2 * DEAD)), [12.0, 21.0]);
}

#[test]
fn a_late_report_changes_nothing() {
    let registry = registry();
    let now = at(0);
    let send = |sequence, started_at: Option<u64>, families: &[ReportedFamily]| {
        let started_at = started_at.map(at);
        let report =
            Report { sequence: Some(sequence), started_at, ..report(named("a"), families) };
        registry.report(&[report], now).unwrap().remove(0)
    };
    let new = Outcome::Applied(Applied { samples: 2, rejected: Vec::new(), durable: false });
    assert_eq!(send(5, Some(1), &counts(10.0, 20.0)), new);
    let before = page(&registry, now);
    for late in [4, 5] {
        assert_eq!(send(late, Some(1), &counts(9.0, 20.0)), Outcome::Duplicate);
        assert_eq!(send(late, None, &counts(9.0, 20.0)), Outcome::Duplicate);
    }
    assert_eq!(page(&registry, now), before);
    // Without a number nothing is late; it keeps the last one.
    post(&registry, named("a"), &counts(11.0, 20.0), now).unwrap();
    assert_eq!(send(5, Some(1), &counts(10.0, 20.0)), Outcome::Duplicate);
    assert_eq!(send(9, Some(1), &counts(12.0, 20.0)), new);
    // The process was restarted and numbers from 1 again.
    assert_eq!(send(1, Some(2), &counts(1.0, 0.0)), new);
    assert_eq!(both(&registry, now), [13.0, 20.0]);
}

#[test]
fn a_sender_that_numbers_anew_is_not_late_for_ever() {
    let registry = registry();
    for sender in [named("a"), InstanceKey::Anonymous] {
        let send = |sequence, count: f64| {
            let families = counts(count, 0.0);
            let report = Report { sequence: Some(sequence), ..report(sender.clone(), &families) };
            registry.report(&[report], at(0)).unwrap().remove(0)
        };
        assert!(matches!(send(5_000, 100.0), Outcome::Applied(_)));
        assert_eq!(send(4_991, 99.0), Outcome::Duplicate);
        assert!(matches!(send(1, 3.0), Outcome::Applied(_)), "{sender:?} was restarted");
        assert!(matches!(send(2, 4.0), Outcome::Applied(_)));
    }
    assert_eq!(both(&registry, at(0)), [2.0 * 104.0, 0.0]);
}

#[test]
fn a_later_run_under_the_same_name_counts_on_top() {
    let registry = registry();
    let send = |started: u64, families: &[ReportedFamily]| {
        let started_at = Some(UnixTime::from_secs_f64(started as f64 / 1e3));
        registry.report(&[Report { started_at, ..report(named("a"), families) }], at(0)).unwrap();
    };
    send(1_000, &counts(3.0, 1.0));
    // Nothing fell, but another process says so.
    send(3_000, &counts(5.0, 1.0));
    assert_eq!(both(&registry, at(0)), [8.0, 2.0]);
    // What the earlier one still had under way is late.
    send(1_000, &counts(4.0, 1.0));
    assert_eq!(both(&registry, at(0)), [8.0, 2.0]);
    // Some clients compute their start anew every time.
    send(3_001, &counts(6.0, 1.0));
    send(2_999, &counts(7.0, 1.0));
    assert_eq!(both(&registry, at(0)), [10.0, 2.0]);
}

#[test]
fn what_makes_a_shard_too_large_is_counted_together() {
    let registry = registry();
    let mut wide = family(HISTOGRAM, "wide", &[]);
    for n in 0..1_000 {
        let bounds: Vec<f64> = (0..200).map(f64::from).collect();
        wide.series.push(ReportedSeries {
            labels: labels(&[("n", &n.to_string())], 0),
            bounds: Bounds::new(&bounds).unwrap(),
            values: vec![0.0; 202],
            exemplars: Vec::new(),
            place: BodyPlace::Line(n + 1),
        });
    }
    let long = family(COUNTER, "c_total", &[(&[("l", &"x".repeat(5_000))], &[1.0]), (&[], &[2.0])]);
    let applied = post(&registry, named("a"), &[wide, long], at(0)).unwrap();
    assert_eq!(applied.samples, 1_000 + 1);
    assert_eq!(exposed(&registry, at(0)).len(), 100_000 / 202 + 1 + 1);
    let said: Vec<_> = applied.rejected.iter().map(|r| (&*r.family, r.reason, r.series)).collect();
    let over = ("wide", Reason::Overflow, 1_000 - 495);
    let small = [("c_total", Reason::Limit, 1), ("c_total", Reason::Overflow, 1)];
    assert_eq!(said, [over, small[0], small[1]]);
}

#[test]
fn a_slow_sender_stays_alive_for_three_of_its_intervals() {
    let registry = registry();
    let families = [family(GAUGE, "g", &[(&[], &[1.0])])];
    let interval = Some(Duration::from_secs(60));
    registry.report(&[Report { interval, ..report(named("a"), &families) }], at(0)).unwrap();
    let state = |now| registry.status(now)[0].state;
    assert_eq!(
        (state(at(180)), value(&registry, "g{}@0", at(180))),
        (ShardState::Up, Some(vec![1.0]))
    );
    assert_eq!((state(at(181)), value(&registry, "g{}@0", at(181))), (ShardState::Stale, None));
}

#[test]
fn a_series_is_counted_since_its_first_instance_began() {
    let registry = registry();
    let created = |now| {
        let mut created = Vec::new();
        registry.visit(now, |shard| {
            for (_, series) in shard.families() {
                created.extend(series.map(|one| one.created));
            }
        });
        created
    };
    let h = |bounds: &[f64]| {
        let mut h = family(HISTOGRAM, "h", &[(&[], &[1.0, 1.0, 1.0])]);
        h.series[0].bounds = Bounds::new(bounds).unwrap();
        [h]
    };
    let send = |name: &str, started: u64, families: &[ReportedFamily], now| {
        let started_at = Some(at(started));
        registry.report(&[Report { started_at, ..report(named(name), families) }], now).unwrap();
    };
    send("a", 5, &h(&[1.0]), at(10));
    assert_eq!(created(at(10)), [Some(at(5))]);
    // Neither its next run, nor other buckets, nor its end change that.
    send("b", 20, &h(&[1.0]), at(20));
    send("c", 30, &h(&[2.0]), at(30));
    assert_eq!(created(at(30)), [Some(at(5))]);
    assert_eq!(created(at(DEAD)), [Some(at(5))]);
    // A clock that is ahead makes nothing of the future.
    post(&registry, named("d"), &counts(1.0, 1.0), at(40)).unwrap();
    send("e", 999, &[family(COUNTER, "late_total", &[(&[], &[1.0])])], at(50));
    assert_eq!(created(at(50)), [Some(at(5)), Some(at(40)), Some(at(40)), Some(at(50))]);
}

#[test]
fn histograms_and_summaries_are_judged_by_their_count() {
    let registry = registry();
    let body = |h: &[f64], s: &[f64]| {
        let mut families = [family(HISTOGRAM, "h", &[(&[], h)]), family(SUMMARY, "s", &[(&[], s)])];
        for family in &mut families {
            family.series[0].bounds = Bounds::new(&[0.5]).unwrap();
        }
        families
    };
    let sender = || named("a");
    post(&registry, sender(), &body(&[1.0, 2.0, -5.0], &[0.1, 2.0, 3.0]), at(0)).unwrap();
    // A sum may fall, and a quantile may.
    post(&registry, sender(), &body(&[1.0, 2.0, -6.0], &[0.0, 2.0, 3.0]), at(1)).unwrap();
    assert_eq!(value(&registry, "h{}@0", at(1)), Some(vec![1.0, 2.0, -6.0]));
    assert_eq!(value(&registry, "s{}@0", at(1)), Some(vec![0.0, 2.0, 3.0]));
    post(&registry, sender(), &body(&[1.0, 1.0, 7.0], &[0.4, 1.0, 8.0]), at(2)).unwrap();
    assert_eq!(value(&registry, "h{}@0", at(2)), Some(vec![2.0, 3.0, 1.0]));
    // The quantile is the new one, not added.
    assert_eq!(value(&registry, "s{}@0", at(2)), Some(vec![0.4, 3.0, 11.0]));
}

#[test]
fn a_sender_reports_one_way_only() {
    let registry = registry();
    let id = InstanceKey::Id([1; 16]);
    let mut stream = open(&registry, 1, at(0));
    let c = stream.define(COUNTER, "c_total", &[]);
    stream.snapshot(1, &[(c, &[1.0])], at(0)).unwrap();
    let before = page(&registry, at(0));
    assert_eq!(post(&registry, id, &counts(1.0, 1.0), at(0)), Err(ReportError::AlsoGrpc));
    assert_eq!(page(&registry, at(0)), before);

    post(&registry, InstanceKey::Id([2; 16]), &counts(1.0, 1.0), at(0)).unwrap();
    assert_eq!(attach(&registry, 0, 2, 2, at(0)).unwrap_err(), AttachError::AlsoHttp);
}

#[test]
fn a_bad_body_changes_nothing_of_any_shard() {
    let registry = registry();
    post(&registry, named("a"), &counts(10.0, 20.0), at(0)).unwrap();
    let good = counts(11.0, 21.0);
    for bad in [f64::NAN, -1.0, f64::INFINITY] {
        let before = page(&registry, at(0));
        let bad = counts(11.0, bad);
        let refused = post(&registry, named("a"), &bad, at(0));
        assert!(
            matches!(refused, Err(ReportError::Bad { place: BodyPlace::Line(2), .. })),
            "{refused:?}"
        );
        let part = |shard_id, families| Report { shard_id, ..report(named("a"), families) };
        let refused = registry.report(&[part(0, &good), part(1, &bad)], at(0));
        assert!(refused.is_err());
        assert_eq!(page(&registry, at(0)), before);
    }
    let before = page(&registry, at(0));
    let twice = family(GAUGE, "g", &[(&[], &[1.0]), (&[], &[1.0])]);
    assert!(matches!(
        post(&registry, named("a"), &[twice], at(0)),
        Err(ReportError::Twice { place: BodyPlace::Line(2), first: BodyPlace::Line(1), .. })
    ));
    assert_eq!(page(&registry, at(0)), before);
}

#[test]
fn a_sender_refused_for_one_shard_leaves_no_trace_in_the_others() {
    let registry = registry();
    post(&registry, named("a"), &counts(1.0, 1.0), at(0)).unwrap();
    let now = crowd_out(&registry, at(0));
    let before = page(&registry, now);
    let families = counts(2.0, 2.0);
    let part = |shard_id| Report { shard_id, ..report(named("a"), &families) };
    let refused = registry.report(&[part(0), part(7)], now);
    assert_eq!(refused, Err(ReportError::Closed));
    assert_eq!(page(&registry, now), before);
}

#[test]
fn a_newer_sender_owns_the_gauges() {
    let registry = registry();
    let body = |value: f64| [family(GAUGE, "g", &[(&[], &[value])])];
    post(&registry, named("a"), &body(1.0), at(0)).unwrap();
    post(&registry, named("b"), &body(2.0), at(1)).unwrap();
    post(&registry, named("a"), &body(3.0), at(2)).unwrap();
    assert_eq!(value(&registry, "g{}@0", at(2)), Some(vec![2.0]));
    post(&registry, named("a"), &body(4.0), at(20)).unwrap();
    assert_eq!(value(&registry, "g{}@0", at(1 + STALE)), Some(vec![4.0]));
    assert_eq!(value(&registry, "g{}@0", at(20 + STALE)), None);
}

#[test]
fn the_same_body_after_a_fall_counts_once() {
    let registry = registry();
    let post_value = |value: f64| {
        let body = [family(COUNTER, "fc_total", &[(&[], &[value])])];
        post(&registry, named("a"), &body, at(0)).unwrap();
    };
    post_value(7.64);
    for _ in 0..50 {
        post_value(1.95);
    }
    assert_eq!(value(&registry, "fc_total{}@0", at(0)), Some(vec![7.64 + 1.95]));
    post_value(2.0);
    assert_eq!(value(&registry, "fc_total{}@0", at(0)), Some(vec![7.64 + 2.0]));
}

fn bounded(bounds: &[f64], values: &[f64]) -> [ReportedFamily; 1] {
    let mut body = [family(HISTOGRAM, "h", &[(&[], values)])];
    body[0].series[0].bounds = Bounds::new(bounds).unwrap();
    body
}

#[test]
fn other_bounds_under_one_identity_replace() {
    let registry = registry();
    let post = |bounds: &[f64], values: &[f64]| {
        post(&registry, named("a"), &bounded(bounds, values), at(0)).unwrap();
        value(&registry, "h{}@0", at(0)).unwrap()
    };
    assert_eq!(post(&[1.0], &[3.0, 5.0, 9.0]), [3.0, 5.0, 9.0]);
    assert_eq!(post(&[1.0, 2.0], &[3.0, 4.0, 6.0, 11.0]), [3.0, 4.0, 6.0, 11.0]);
    assert_eq!(post(&[1.0], &[4.0, 7.0, 12.0]), [4.0, 7.0, 12.0]);
    // Other bounds and a lower count: the sender began anew, and both count.
    assert_eq!(post(&[2.0], &[1.0, 1.0, 1.0]), [5.0, 8.0, 13.0]);
    assert_eq!(post(&[2.0], &[2.0, 2.0, 2.0]), [6.0, 9.0, 14.0]);
}

#[test]
fn bounds_without_end_are_refused() {
    let registry = registry();
    for n in 1..=8 {
        let body = bounded(&[f64::from(n)], &[0.0, f64::from(n), 0.0]);
        assert_eq!(post(&registry, named("a"), &body, at(0)).unwrap().rejected, []);
    }
    let applied = post(&registry, named("a"), &bounded(&[9.0], &[0.0, 9.0, 0.0]), at(0)).unwrap();
    assert_eq!(applied.rejected.len(), 1);
    assert_eq!(applied.rejected[0].reason, Reason::Limit);
    assert_eq!(value(&registry, "h{}@0", at(0)).unwrap()[1], 8.0);
}

/// A living sender keeps its record however many others come and go behind it.
#[test]
fn instances_that_come_and_go_close_no_living_sender() {
    let registry = registry();
    for identity in [named("live"), InstanceKey::Anonymous] {
        let posted = |n: f64| [family(COUNTER, "x_total", &[(&[], &[n])])];
        post(&registry, identity.clone(), &posted(100.0), at(0)).unwrap();
        let before = value(&registry, "x_total{}@0", at(0)).unwrap()[0];
        for instance in 0..40 {
            let instance = instance + if identity == InstanceKey::Anonymous { 100 } else { 0 };
            let mut stream = open(&registry, instance, at(0));
            let id = stream.define(COUNTER, "x_total", &[]);
            stream.snapshot(1, &[(id, &[0.5])], at(0)).unwrap();
            assert!(stream.writer.goodbye(1, at(0)).unwrap());
            post(&registry, identity.clone(), &posted(100.0), at(0)).unwrap();
        }
        assert_eq!(value(&registry, "x_total{}@0", at(0)), Some(vec![before + 20.0]));
    }
}

#[test]
fn as_many_instances_as_may_live_refuse_another() {
    let registry = registry();
    let body = |n: f64| [family(COUNTER, "x_total", &[(&[], &[n])])];
    for n in 0..16 {
        post(&registry, named(&format!("s{n}")), &body(1.0), at(0)).unwrap();
    }
    let before = page(&registry, at(1));
    let refused = post(&registry, named("one more"), &body(1.0), at(1)).unwrap_err();
    assert_eq!(refused, ReportError::TooManyInstances(0));
    assert!(matches!(attach(&registry, 0, 2, 1, at(1)), Err(AttachError::TooManyInstances(0))));
    assert_eq!(page(&registry, at(1)), before);
    // Once others are silent there is room, and nothing is lost.
    post(&registry, named("one more"), &body(1.0), at(31)).unwrap();
    assert_eq!(value(&registry, "x_total{}@0", at(31)), Some(vec![17.0]));
}

/// A manager that is started again and again counts the dead as heard of each time.
#[test]
fn restarts_of_the_manager_keep_no_crowd_alive() {
    let registry = registry();
    let body = |n: f64| [family(COUNTER, "x_total", &[(&[], &[n])])];
    for n in 0..40 {
        let now = at(n * 10);
        registry.resume(now);
        post(&registry, named(&format!("s{n}")), &body(1.0), now).unwrap();
        assert_eq!(value(&registry, "x_total{}@0", now), Some(vec![(n + 1) as f64]));
    }
}

/// Folding out of order may move the last bit of a sum, but only upwards (E2).
#[test]
fn folding_out_of_order_lowers_no_total() {
    let registry = registry();
    let mut rng = 1_u64;
    let mut fraction = || {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (rng >> 11) as f64 / 1e14
    };
    post(&registry, named("live"), &[family(COUNTER, "x_total", &[(&[], &[0.1])])], at(0)).unwrap();
    let mut last = 0.0;
    for instance in 0..200 {
        let mut stream = open(&registry, instance, at(0));
        let id = stream.define(COUNTER, "x_total", &[]);
        stream.snapshot(1, &[(id, &[fraction()])], at(0)).unwrap();
        assert!(stream.writer.goodbye(1, at(0)).unwrap());
        let total = value(&registry, "x_total{}@0", at(0)).unwrap()[0];
        assert!(total >= last, "{total:?} after {last:?}");
        last = total;
    }
}

/// What is carried over a fall is counts; a quantile is the sender's last word.
#[test]
fn quantiles_are_never_carried() {
    let registry = registry();
    let post = |quantiles: &[f64], values: &[f64]| {
        let mut body = [family(SUMMARY, "s", &[(&[], values)])];
        body[0].series[0].bounds = Bounds::new(quantiles).unwrap();
        post(&registry, named("a"), &body, at(0)).unwrap();
        value(&registry, "s{}@0", at(0)).unwrap()
    };
    assert_eq!(post(&[0.5], &[0.7, 5.0, 9.0]), [0.7, 5.0, 9.0]);
    assert_eq!(post(&[0.9], &[0.8, 1.0, 2.0]), [0.8, 6.0, 11.0]);
    assert_eq!(post(&[0.5], &[0.3, 2.0, 3.0]), [0.3, 7.0, 12.0]);
}
