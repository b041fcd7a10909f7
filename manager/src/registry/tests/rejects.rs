//! What is refused in part: conflicts, collisions, duplicates, limits. The rest of a frame is applied.

use super::*;

/// Sends one value for everything that was defined, and returns what was rejected.
fn report(stream: &mut Stream<'_>, sequence: u64) -> Vec<Rejected> {
    let ids: Vec<_> = (0..stream.writer.ids() as u32).collect();
    let samples: Vec<(u32, &[f64])> = ids.iter().map(|id| (*id, &[1.0][..])).collect();
    match stream.snapshot(sequence, &samples, at(0)).unwrap() {
        Outcome::Applied(applied) => applied.rejected,
        other => panic!("{other:?}"),
    }
}

fn reasons(rejected: &[Rejected]) -> Vec<(&str, Reason, u32)> {
    rejected.iter().map(|r| (&*r.family, r.reason, r.series)).collect()
}

fn rejected_samples(registry: &Registry, reason: Reason) -> u64 {
    let status = registry.status(at(0));
    let of_reason = status[0].rejected.iter().find(|(r, _)| *r == reason);
    of_reason.unwrap().1
}

#[test]
fn a_type_conflict_is_rejected_and_the_rest_applied() {
    let registry = registry();
    let mut first = open_shard(&registry, 1, 9, at(0));
    first.define(GAUGE, "guild_count", &[]);
    report(&mut first, 1);

    let mut stream = open(&registry, 1, at(0));
    stream.define(COUNTER, "guild_count", &[("a", "1")]);
    stream.define(COUNTER, "c_total", &[]);
    stream.define(COUNTER, "guild_count", &[("a", "2")]);
    let rejected = report(&mut stream, 1);
    assert_eq!(reasons(&rejected), [("guild_count", Reason::TypeConflict, 2)]);
    assert!(
        rejected[0].message.contains("counter") && rejected[0].message.contains("gauge"),
        "{}",
        rejected[0].message
    );
    assert_eq!(rejected_samples(&registry, Reason::TypeConflict), 2);
    assert_eq!(
        exposed(&registry, at(0)),
        BTreeMap::from([
            ("c_total{}@0".to_owned(), vec![1.0]),
            ("guild_count{}@1".to_owned(), vec![1.0])
        ])
    );
    // Said once per stream and reason, also when more of the family comes.
    stream.define(COUNTER, "guild_count", &[("a", "3")]);
    assert_eq!(report(&mut stream, 2), []);
    assert_eq!(rejected_samples(&registry, Reason::TypeConflict), 5);
    // A new stream is told anew.
    let mut stream = open(&registry, 1, at(0));
    stream.define(COUNTER, "guild_count", &[("a", "1")]);
    assert_eq!(report(&mut stream, 3).len(), 1);
}

#[test]
fn a_rejected_familys_samples_are_as_wide_as_they_say() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let g = stream.define(GAUGE, "x", &[]);
    let h = stream.define_bounded(HISTOGRAM, "x", &[], &[1.0, 2.0]);
    let c = stream.define(COUNTER, "c_total", &[]);
    let frame: [(u32, &[f64]); 3] = [(g, &[1.0]), (h, &[9.0, 9.0, 9.0, 9.0]), (c, &[5.0])];
    stream.snapshot(1, &frame, at(0)).unwrap();
    assert_eq!(value(&registry, "c_total{}@0", at(0)), Some(vec![5.0]));
    assert_eq!(value(&registry, "x{}@0", at(0)), Some(vec![1.0]));
}

#[test]
fn names_that_would_make_the_page_invalid_are_rejected() {
    let reserved = [("shard_up", GAUGE), ("manager_seconds", HISTOGRAM)];
    let untyped = MetricType::Untyped;
    let cases = [
        // The manager's own.
        ((COUNTER, "shard_up"), None),
        ((GAUGE, "manager_seconds"), None),
        ((GAUGE, "manager_seconds_count"), None),
        // Sample names of other families, in either order.
        ((HISTOGRAM, "a"), Some((COUNTER, "a_count"))),
        ((HISTOGRAM, "a"), Some((GAUGE, "a_bucket"))),
        ((HISTOGRAM, "a"), Some((GAUGE, "a_created"))),
        ((SUMMARY, "a"), Some((untyped, "a_sum"))),
        ((GAUGE, "a_sum"), Some((SUMMARY, "a"))),
        ((GAUGE, "a_bucket"), Some((HISTOGRAM, "a"))),
        // OpenMetrics names a counter's family without `_total`.
        ((COUNTER, "a_total"), Some((GAUGE, "a"))),
        ((GAUGE, "a"), Some((COUNTER, "a_total"))),
        ((COUNTER, "a_total"), Some((COUNTER, "a_created"))),
    ];
    for ((kind, name), second) in cases {
        let registry = Registry::new(Settings::default(), reserved);
        let mut stream = open(&registry, 1, at(0));
        let mut expected = name;
        if let Some((other, second)) = second {
            stream.define(kind, name, &[]);
            stream.define(other, second, &[]);
            expected = second;
        } else {
            stream.define(kind, name, &[]);
        }
        // No histogram has a value of one, so look at what the definition alone was answered.
        let rejected = match stream.snapshot(1, &[], at(0)).unwrap() {
            Outcome::Applied(applied) => applied.rejected,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            reasons(&rejected),
            [(expected, Reason::NameCollision, 1)],
            "{name} then {second:?}"
        );
    }
    // These go together.
    let registry = Registry::new(Settings::default(), reserved);
    let mut stream = open(&registry, 1, at(0));
    for (kind, name) in [
        (GAUGE, "a"),
        (GAUGE, "a_count"),
        (GAUGE, "a_total"),
        (COUNTER, "b"),
        (GAUGE, "b_total"),
        (SUMMARY, "c"),
        (GAUGE, "c_bucket"),
    ] {
        stream.define(kind, name, &[]);
    }
    let Outcome::Applied(applied) = stream.snapshot(1, &[], at(0)).unwrap() else { panic!() };
    assert_eq!(applied.rejected, []);
}

#[test]
fn a_series_that_becomes_another_is_rejected() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    stream.define(COUNTER, "c_total", &[("a", "1")]);
    // The manager sets shard_id itself, so these two are one.
    stream.define(COUNTER, "c_total", &[("a", "1"), ("shard_id", "0")]);
    stream.define(COUNTER, "c_total", &[("a", "1"), ("shard_id", "7")]);
    stream.define(COUNTER, "c_total", &[("a", "1"), ("exported_shard_id", "7")]);
    let rejected = report(&mut stream, 1);
    assert_eq!(reasons(&rejected), [("c_total", Reason::DuplicateSeries, 2)]);
    assert_eq!(exposed(&registry, at(0)).len(), 2);
    assert_eq!(rejected_samples(&registry, Reason::DuplicateSeries), 2);
}

#[test]
fn labels_of_the_manager_and_of_prometheus_are_renamed() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    stream.define(GAUGE, "g", &[("job", "j"), ("instance", "i"), ("shard_id", "5")]);
    report(&mut stream, 1);
    let key = r#"g{exported_instance="i",exported_job="j",exported_shard_id="5"}@0"#;
    assert_eq!(value(&registry, key, at(0)), Some(vec![1.0]));
}

#[test]
fn over_the_limits_new_series_are_counted_together_and_known_ones_kept() {
    let settings =
        Settings { max_series_per_family: 2, max_series_per_shard: 3, ..Settings::default() };
    let registry = Registry::new(settings, []);
    let mut stream = open(&registry, 1, at(0));
    for l in ["1", "2", "3", "4"] {
        stream.define(COUNTER, "a_total", &[("l", l)]);
    }
    stream.define(COUNTER, "b_total", &[]);
    stream.define(COUNTER, "c_total", &[]);
    let rejected = report(&mut stream, 1);
    let over = [("a_total", Reason::Overflow, 2), ("c_total", Reason::Overflow, 1)];
    assert_eq!(reasons(&rejected), over);
    assert_eq!(exposed(&registry, at(0)).len(), 3 + 2);
    let overflow = |family| value(&registry, &format!("{family}{{overflow=\"true\"}}@0"), at(0));
    assert_eq!(overflow("a_total"), Some(vec![2.0]));
    assert_eq!(overflow("c_total"), Some(vec![1.0]));
    // What is counted is not rejected, but a gauge without its labels says nothing.
    stream.define(GAUGE, "g", &[]);
    assert_eq!(reasons(&report(&mut stream, 2)), [("g", Reason::Limit, 1)]);
    assert_eq!(rejected_samples(&registry, Reason::Limit), 1);
    // The next stream finds what is known; another shard has room of its own.
    let mut stream = open(&registry, 1, at(1));
    stream.define(COUNTER, "b_total", &[]);
    assert_eq!(report(&mut stream, 3), []);
    let mut stream = open_shard(&registry, 1, 2, at(1));
    stream.define(COUNTER, "c_total", &[]);
    assert_eq!(report(&mut stream, 1), []);

    let body = [family(COUNTER, "d_total", &[(&[], &[1.0])])];
    let applied = post(&registry, named("a"), &body, at(1)).unwrap();
    assert_eq!(reasons(&applied.rejected), [("d_total", Reason::Overflow, 1)]);
    assert_eq!(rejected_samples(&registry, Reason::Limit), 1);
}

#[test]
fn families_that_have_no_room_are_not_kept() {
    let settings = Settings { max_series_per_shard: 1, ..Settings::default() };
    let registry = Registry::new(settings, []);
    let mut stream = open(&registry, 1, at(0));
    stream.define(GAUGE, "first", &[]);
    for n in 0..100 {
        let head = FamilyHead { name: &format!("empty{n}"), kind: GAUGE, help: "", unit: "" };
        let series = Vec::new();
        let definition = FamilyDefinition { head, series };
        registry.define(&mut stream.writer, definition, at(0)).unwrap();
        stream.define(GAUGE, &format!("g{n}"), &[]);
    }
    let body: Vec<_> =
        (0..100).map(|n| family(GAUGE, &format!("h{n}"), &[(&[], &[1.0])])).collect();
    post(&registry, named("a"), &body, at(0)).unwrap();
    assert_eq!(registry.families().len(), 1);
}

#[test]
fn families_without_end_are_refused() {
    let settings = Settings { max_series_per_shard: usize::MAX, ..Settings::default() };
    let registry = Registry::new(settings, []);
    let mut stream = open(&registry, 1, at(0));
    for n in 0..MAX_FAMILIES_OF_SHARD + 10 {
        stream.define(GAUGE, &format!("g{n}"), &[]);
    }
    assert_eq!(registry.families().len(), MAX_FAMILIES_OF_SHARD);
    // Others go on, with new ones too.
    let mut other = open_shard(&registry, 1, 2, at(0));
    other.define(GAUGE, "g0", &[]);
    other.define(GAUGE, "other", &[]);
    assert_eq!(report(&mut other, 1), []);
    // Until there are too many in all.
    for shard in 2..20 {
        let name = |n| format!("s{shard}_{n}");
        let families: Vec<_> =
            (0..9_000).map(|n| family(GAUGE, &name(n), &[(&[], &[1.0])])).collect();
        let report = Report { shard_id: shard, ..super::report(named("a"), &families) };
        registry.report(&[report], at(0)).unwrap();
    }
    assert_eq!(registry.families().len(), MAX_FAMILIES);
    assert_eq!(report(&mut other, 2), [], "the known go on");
}

#[test]
fn what_is_said_of_many_rejects_stays_readable() {
    let settings = Settings { max_series_per_shard: 0, ..Settings::default() };
    let registry = Registry::new(settings, []);
    let mut stream = open(&registry, 1, at(0));
    for n in 0..1_000 {
        stream.define(GAUGE, &format!("g{n}"), &[]);
    }
    assert_eq!(report(&mut stream, 1).len(), 100);
    let body: Vec<_> =
        (0..1_000).map(|n| family(GAUGE, &format!("h{n}"), &[(&[], &[1.0])])).collect();
    assert_eq!(post(&registry, named("a"), &body, at(0)).unwrap().rejected.len(), 100);
    assert_eq!(rejected_samples(&registry, Reason::Limit), 2_000, "all are counted");
}

#[test]
fn a_stream_remembers_so_many_of_its_rejects() {
    let settings = Settings { max_series_per_shard: 0, ..Settings::default() };
    let registry = Registry::new(settings, []);
    let mut stream = open(&registry, 1, at(0));
    for n in 0..3_000 {
        stream.define(GAUGE, &format!("g{n}"), &[]);
    }
    assert_eq!(report(&mut stream, 1).len(), 100);
    assert_eq!(stream.writer.remembered(), 1_000, "names without end fill no memory");
    assert_eq!(rejected_samples(&registry, Reason::Limit), 3_000, "all are counted");
}

#[test]
fn a_body_is_taken_without_what_conflicts() {
    let registry = registry();
    let mut stream = open_shard(&registry, 1, 1, at(0));
    let x = stream.define(GAUGE, "x", &[]);
    stream.snapshot(1, &[(x, &[7.0])], at(0)).unwrap();
    let body = [
        family(COUNTER, "x", &[(&[("l", "1")], &[1.0]), (&[("l", "2")], &[1.0])]),
        family(COUNTER, "y_total", &[(&[], &[1.0])]),
        family(GAUGE, "y", &[(&[], &[1.0])]),
    ];
    let applied = post(&registry, named("a"), &body, at(0)).unwrap();
    assert_eq!(applied.samples, 1);
    assert_eq!(
        reasons(&applied.rejected),
        [("x", Reason::TypeConflict, 2), ("y", Reason::NameCollision, 1)]
    );
    let both = [("x{}@1".to_owned(), vec![7.0]), ("y_total{}@0".to_owned(), vec![1.0])];
    assert_eq!(exposed(&registry, at(0)), BTreeMap::from(both));
}

#[test]
fn ids_count_up_without_holes_and_bounds_fit_the_type() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let mut define = |id, kind, bounds: &[f64]| {
        let head = FamilyHead { name: "x", kind, help: "", unit: "" };
        let series = vec![SeriesDefinition {
            id,
            labels: LabelSet::default(),
            bounds: Bounds::new(bounds).unwrap(),
        }];
        registry.define(&mut stream.writer, FamilyDefinition { head, series }, at(0))
    };
    assert!(matches!(define(1, GAUGE, &[]), Err(DefineError::Id { expected: 0, got: 1, .. })));
    assert!(matches!(define(0, COUNTER, &[1.0]), Err(DefineError::UnexpectedBounds { .. })));
    assert_eq!(define(0, HISTOGRAM, &[1.0]), Ok(()));
    assert!(matches!(define(0, HISTOGRAM, &[1.0]), Err(DefineError::Id { .. })));
}

#[test]
fn one_label_set_with_two_bounds_on_a_stream_is_a_duplicate() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let first = stream.define_bounded(HISTOGRAM, "h", &[], &[1.0]);
    let second = stream.define_bounded(HISTOGRAM, "h", &[], &[2.0]);
    let all: [(u32, &[f64]); 2] = [(first, &[1.0, 5.0, 1.0]), (second, &[1.0, 5.0, 1.0])];
    let Ok(Outcome::Applied(applied)) = stream.snapshot(1, &all, at(0)) else { panic!() };
    assert_eq!(reasons(&applied.rejected), [("h", Reason::DuplicateSeries, 1)]);
    assert_eq!(value(&registry, "h{}@0", at(0)), Some(vec![1.0, 5.0, 1.0]));
}

#[test]
fn an_instance_that_returns_with_other_bounds_replaces_and_never_falls() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let id = stream.define_bounded(HISTOGRAM, "h", &[], &[1.0]);
    stream.snapshot(1, &[(id, &[1.0, 5.0, 1.0])], at(0)).unwrap();
    let mut stream = open(&registry, 1, at(1));
    let id = stream.define_bounded(HISTOGRAM, "h", &[], &[2.0]);
    let fell = stream.snapshot(2, &[(id, &[1.0, 4.0, 1.0])], at(1)).unwrap_err();
    assert!(matches!(fell, FrameError::Bad { problem: BadSample::Fell(5.0, 4.0), .. }), "{fell}");
    stream.snapshot(2, &[(id, &[4.0, 6.0, 2.0])], at(1)).unwrap();
    assert_eq!(value(&registry, "h{}@0", at(1)), Some(vec![4.0, 6.0, 2.0]));
}

/// OpenMetrics has no name for the family of such a counter.
#[test]
fn a_counter_called_total_makes_no_nameless_family() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    let id = stream.define(COUNTER, "_total", &[]);
    stream.snapshot(1, &[(id, &[1.0])], at(0)).unwrap();
    let page = exposition::render(&registry, &[], at(0), Format::OPENMETRICS).to_vec();
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("# TYPE _total unknown\n_total{shard_id=\"0\"} 1\n"), "{page}");
}

/// A stream that defines a family and never reports it keeps no name from those who do.
#[test]
fn what_was_only_defined_gives_way() {
    let registry = registry();
    let mut squatter = open(&registry, 1, at(0));
    let gauge = squatter.define(GAUGE, "x_total", &[]);
    let suffix = squatter.define(GAUGE, "h_count", &[]);
    let mut stream = open_shard(&registry, 1, 2, at(0));
    let counter = stream.define(COUNTER, "x_total", &[]);
    let histogram = stream.define_bounded(HISTOGRAM, "h", &[], &[1.0]);
    let all: [(u32, &[f64]); 2] = [(counter, &[3.0]), (histogram, &[1.0, 2.0, 3.0])];
    assert_eq!(stream.snapshot(1, &all, at(0)), applied(2));
    let before = page(&registry, at(0));

    // What the first one sends now is too late: it is told so, and nothing on the page is touched.
    let late: [(u32, &[f64]); 2] = [(gauge, &[9.0]), (suffix, &[9.0])];
    let Ok(Outcome::Applied(applied)) = squatter.snapshot(1, &late, at(0)) else { panic!() };
    assert_eq!(applied.samples, 0);
    let told = [("x_total", Reason::TypeConflict, 1), ("h_count", Reason::TypeConflict, 1)];
    assert_eq!(reasons(&applied.rejected), told);
    let families = |page: &str| page.lines().filter(|l| l.starts_with("# TYPE")).count();
    assert_eq!(families(&page(&registry, at(0))), families(&before));
    assert_eq!(value(&registry, "x_total{}@1", at(0)), Some(vec![3.0]));
    assert_eq!(value(&registry, "x_total{}@0", at(0)), None);
    // What was reported stays.
    let mut third = open_shard(&registry, 1, 3, at(0));
    third.define(GAUGE, "x_total", &[]);
    assert_eq!(reasons(&report(&mut third, 1)), [("x_total", Reason::TypeConflict, 1)]);
}

/// A name stands on every line, so that a short message could make a page of gigabytes.
#[test]
fn names_and_labels_without_end_are_refused() {
    let registry = registry();
    let mut stream = open(&registry, 1, at(0));
    stream.define(GAUGE, &"n".repeat(512), &[]);
    stream.define(GAUGE, &"ü".repeat(257), &[]);
    let rejected = report(&mut stream, 1);
    assert_eq!(rejected.len(), 1);
    assert_eq!(&*rejected[0].family, format!("{}…", "ü".repeat(50)));
    assert!(rejected[0].message.contains("514 bytes; 512 is the limit"), "{}", rejected[0].message);

    // 200 histograms of 500 lines with 4,000 bytes of labels would be 400 MB.
    let bounds: Vec<_> = (0..490_u32).map(f64::from).collect();
    let long = "x".repeat(4_000);
    let mut values = vec![1.0; bounds.len() + 2];
    values[bounds.len() + 1] = 1.0;
    let many = (0..200).map(|n| ReportedSeries {
        labels: labels(&[("n", n.to_string().as_str()), ("x", long.as_str())], 1),
        bounds: Bounds::new(&bounds).unwrap(),
        values: values.clone(),
        place: BodyPlace::Line(1),
        exemplars: Vec::new(),
    });
    let body = [ReportedFamily {
        name: "h".into(),
        kind: HISTOGRAM,
        help: "h".repeat(10_000),
        unit: String::new(),
        series: many.collect(),
    }];
    let applied = post(&registry, named("a"), &body, at(0)).unwrap();
    let own = exposed(&registry, at(0)).len();
    assert!(own > 5 && own < 12, "{own} are exposed");
    assert_eq!(applied.rejected[0].reason, Reason::Overflow);
    let page = exposition::render(&registry, &[], at(0), Format::TEXT);
    assert!(page.len() < 18 << 20, "{} bytes", page.len());
    let help =
        registry.families().into_iter().find(|family| &*family.name == "h").unwrap().help.len();
    assert_eq!(help, 4_096);
}
