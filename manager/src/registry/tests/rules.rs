//! What rules make of families, and what becomes of those whose rule changes.

use serde::Deserialize;

use super::*;

/// The rules of a configuration file.
fn rules(text: &str) -> Rules {
    #[derive(Deserialize)]
    struct File {
        rules: Rules,
    }
    toml::from_str::<File>(text).unwrap().rules
}

fn ruled(text: &str) -> Registry {
    Registry::with_rules(Settings::default(), [], rules(text))
}

const WITHOUT_GUILD: &str = r#"
    [[rules]]
    family = "commands_.*"
    drop_labels = ["guild_id"]
    gauges = "max"
"#;

fn command<'a>(command: &'a str, guild: &'a str) -> [(&'a str, &'a str); 2] {
    [("command_name", command), ("guild_id", guild)]
}

#[test]
fn without_a_label_what_falls_together_is_added_up() {
    let registry = ruled(WITHOUT_GUILD);
    let mut stream = open(&registry, 1, at(0));
    let [a, b, c] = [command("ping", "1"), command("ping", "2"), command("roll", "1")]
        .map(|pairs| stream.define(COUNTER, "commands_total", &pairs));
    let [g, h] = [command("ping", "1"), command("ping", "2")]
        .map(|pairs| stream.define(GAUGE, "commands_now", &pairs));
    let frame: [(u32, &[f64]); 5] =
        [(a, &[1.0]), (b, &[2.0]), (c, &[4.0]), (g, &[7.0]), (h, &[5.0])];
    stream.snapshot(1, &frame, at(0)).unwrap();
    let shown = |of: &str, command: &str, now| {
        value(&registry, &format!("{of}{{command_name=\"{command}\"}}@0"), now).map(|v| v[0])
    };
    assert_eq!(shown("commands_total", "ping", at(0)), Some(3.0));
    assert_eq!(shown("commands_total", "roll", at(0)), Some(4.0));
    assert_eq!(shown("commands_now", "ping", at(0)), Some(7.0));
    assert_eq!(exposed(&registry, at(0)).len(), 3);
    stream.delta(2, &[(b, &[5.0]), (g, &[1.0])], at(0)).unwrap();
    assert_eq!(shown("commands_total", "ping", at(0)), Some(6.0));
    assert_eq!(shown("commands_now", "ping", at(0)), Some(5.0));
    // A gauge that leaves is no longer among them.
    stream.send(FrameKind::Delta, 3, &[], &[(h, &[5.0])], at(0)).unwrap();
    assert_eq!(shown("commands_now", "ping", at(0)), Some(1.0));
    stream.send(FrameKind::Delta, 4, &[], &[(g, &[5.0])], at(0)).unwrap();
    assert_eq!(shown("commands_now", "ping", at(0)), None);

    // Counts hold over death and a new stream, and a restart of the manager.
    drop(stream);
    let dead = at(STALE);
    assert_eq!(shown("commands_total", "ping", dead), Some(6.0));
    let again = Registry::with_rules(Settings::default(), [], rules(WITHOUT_GUILD));
    overflow::checkpoint(&registry).into_iter().for_each(|change| again.restore(change).unwrap());
    assert_eq!(again.apply_rules(), 0);
    let mut stream = open(&again, 1, dead);
    let a = stream.define(COUNTER, "commands_total", &command("ping", "1"));
    stream.snapshot(5, &[(a, &[2.0])], dead).unwrap();
    let key = "commands_total{command_name=\"ping\"}@0";
    assert_eq!(value(&again, key, dead), Some(vec![7.0]), "guild 2 left, its counts stay");
    let twice = stream.define(COUNTER, "commands_total", &command("ping", "1"));
    let Ok(Outcome::Applied(applied)) = stream.delta(6, &[(a, &[2.0]), (twice, &[9.0])], dead)
    else {
        panic!()
    };
    assert_eq!((applied.rejected[0].reason, applied.samples), (Reason::DuplicateSeries, 1));
}

#[test]
fn a_dropped_family_is_not_kept_and_counted_as_such() {
    let registry = ruled("[[rules]]\nfamily = \"nodejs_.*\"\naction = \"drop\"\n");
    let body =
        [family(GAUGE, "nodejs_heap", &[(&[], &[1.0])]), family(GAUGE, "g", &[(&[], &[1.0])])];
    let applied = post(&registry, named("a"), &body, at(0)).unwrap();
    assert_eq!((applied.samples, applied.rejected.len()), (1, 0), "the operator wants it so");
    let mut stream = open(&registry, 1, at(0));
    let heap = stream.define(GAUGE, "nodejs_heap", &[]);
    let Ok(Outcome::Applied(applied)) = stream.snapshot(1, &[(heap, &[1.0])], at(0)) else {
        panic!()
    };
    assert_eq!((applied.samples, applied.rejected.len()), (0, 0));
    let rejected = registry.status(at(0))[0].rejected;
    assert_eq!(rejected.into_iter().find(|(r, _)| *r == Reason::Rule).unwrap().1, 2);
    assert!(registry.families().iter().all(|family| &*family.name != "nodejs_heap"));
}

#[test]
fn shards_are_put_together() {
    let registry = ruled(
        r#"
        [[rules]]
        family = "c_total|h|s"
        collapse_shards = true
        type = "counter"
        [[rules]]
        family = ".*"
        collapse_shards = true
        gauges = "sum"
        "#,
    );
    let mut streams: Vec<_> =
        (0..3).map(|id| open_shard(&registry, id.min(1), id as u8, at(0))).collect();
    for (stream, count) in streams.iter_mut().zip([1.0, 10.0, 100.0]) {
        let c = stream.define(COUNTER, "c_total", &[("l", "a")]);
        let g = stream.define(GAUGE, "g", &[]);
        let bounds: &[f64] = if count == 1.0 { &[1.0, 3.0] } else { &[2.0] };
        let h = stream.define_bounded(HISTOGRAM, "h", &[], bounds);
        let s = stream.define_bounded(SUMMARY, "s", &[], &[0.5]);
        let of_h = if count == 1.0 { vec![1.0, 2.0, 2.0, 5.0] } else { vec![count, count, count] };
        let frame: [(u32, &[f64]); 4] =
            [(c, &[count]), (g, &[count]), (h, &of_h), (s, &[0.1, count, count])];
        stream.snapshot(1, &frame, at(0)).unwrap();
    }
    let key = |name: &str| format!("{name}@{}", u32::MAX);
    let shown = exposed(&registry, at(0));
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert_eq!(shown[&key("c_total{l=\"a\"}")], [111.0]);
    // Shard 1's gauge is its newer instance's.
    assert_eq!(shown[&key("g{}")], [101.0]);
    // Bounds 1, 2, 3: at each, what was counted up to the greatest that is no greater.
    assert_eq!(shown[&key("h{}")], [1.0, 111.0, 112.0, 112.0, 115.0]);
    assert_eq!(shown[&key("s{}")], [111.0, 111.0]);
    let text = page(&registry, at(0));
    assert!(text.contains("\nc_total{l=\"a\"} 111\n"), "{text}");
    // Over death counts stay, and gauges go.
    let later = exposed(&registry, at(STALE));
    assert_eq!(later[&key("c_total{l=\"a\"}")], [111.0]);
    assert_eq!(later.get(&key("g{}")), None);
}

#[test]
fn a_family_whose_rule_changed_begins_anew() {
    let before = Registry::new(Settings::default(), []);
    let mut stream = open(&before, 1, at(0));
    let a = stream.define(COUNTER, "commands_total", &command("ping", "1"));
    let other = stream.define(COUNTER, "other_total", &[]);
    stream.snapshot(1, &[(a, &[5.0]), (other, &[7.0])], at(0)).unwrap();
    let after = Registry::with_rules(Settings::default(), [], rules(WITHOUT_GUILD));
    overflow::checkpoint(&before).into_iter().for_each(|change| after.restore(change).unwrap());
    assert_eq!(after.apply_rules(), 1);
    after.resume(at(1));
    assert_eq!(exposed(&after, at(1)).len(), 1, "only the family with another rule");
    let mut stream = open(&after, 1, at(10));
    let a = stream.define(COUNTER, "commands_total", &command("ping", "1"));
    stream.snapshot(2, &[(a, &[6.0])], at(10)).unwrap();
    let mut created = BTreeMap::new();
    after.visit(at(10), |shard| {
        for (family, series) in shard.families() {
            let series: Vec<_> = series.collect();
            created.extend(series.iter().map(|one| (family.name.clone(), one.created)));
        }
    });
    assert_eq!(created["commands_total"], Some(at(10)), "not since its instance began");
    assert_eq!(created["other_total"], Some(at(0)));
    // And so it is for who reads all that was recorded.
    let again = Registry::with_rules(Settings::default(), [], rules(WITHOUT_GUILD));
    overflow::checkpoint(&after).into_iter().for_each(|change| again.restore(change).unwrap());
    assert_eq!(again.apply_rules(), 0);
    assert_eq!(exposed(&again, at(10)), exposed(&after, at(10)));
}

#[test]
fn a_type_yields_once_no_living_shard_reports_it() {
    let registry = registry();
    let mut old = open_shard(&registry, 0, 1, at(0));
    let g = old.define(GAUGE, "x", &[]);
    old.snapshot(1, &[(g, &[1.0])], at(0)).unwrap();
    let mut new = open_shard(&registry, 1, 2, at(1));
    let h = new.define_bounded(HISTOGRAM, "x", &[], &[1.0]);
    let frame: (u32, &[f64]) = (h, &[1.0, 1.0, 1.0]);
    let Ok(Outcome::Applied(applied)) = new.snapshot(1, &[frame], at(1)) else { panic!() };
    let said = &applied.rejected[0].message;
    assert!(said.contains("histogram") && said.contains("gauge: shard 0 was the first"), "{said}");
    assert_eq!(registry.yield_types(at(2)), 0, "shard 0 lives");
    assert!(!new.writer.superseded().is_cancelled());

    // It is asked again, and shard 0 is gone.
    new.define_bounded(HISTOGRAM, "x", &[("l", "2")], &[1.0]);
    assert_eq!(registry.yield_types(at(STALE)), 1);
    assert!(new.writer.superseded().is_cancelled(), "it is told to define it again");
    assert_eq!(new.writer.why_superseded(), FrameError::Rearranged);
    let later = at(STALE);
    let mut new = open_shard(&registry, 1, 2, later);
    let h = new.define_bounded(HISTOGRAM, "x", &[], &[1.0]);
    new.snapshot(2, &[(h, &[1.0, 1.0, 1.0])], later).unwrap();
    assert_eq!(value(&registry, "x{}@1", later), Some(vec![1.0, 1.0, 1.0]));
    // Who returns with the old type is the one that conflicts now.
    let mut old = open_shard(&registry, 0, 1, later);
    let g = old.define(GAUGE, "x", &[]);
    let Ok(Outcome::Applied(applied)) = old.snapshot(2, &[(g, &[1.0])], later) else { panic!() };
    assert_eq!(applied.rejected[0].reason, Reason::TypeConflict);
    // And so it is for who reads all that was recorded.
    let again = Registry::new(Settings::default(), []);
    overflow::checkpoint(&registry).into_iter().for_each(|change| again.restore(change).unwrap());
    assert_eq!(exposed(&again, later), exposed(&registry, later));
}

#[test]
fn a_shard_that_is_forgotten_begins_anew_if_it_lives() {
    let registry = registry();
    assert_eq!(registry.forget(0, at(0)), None, "there is none");
    let mut first = open(&registry, 1, at(0));
    let c = first.define(COUNTER, "c_total", &[]);
    first.snapshot(1, &[(c, &[5.0])], at(0)).unwrap();
    first.writer.goodbye(1, at(0)).unwrap();
    let mut second = open(&registry, 2, at(0));
    let [c, dead, g] = [(COUNTER, "c_total"), (COUNTER, "d_total"), (GAUGE, "g")]
        .map(|(kind, name)| second.define(kind, name, &[]));
    let h = second.define_bounded(HISTOGRAM, "h", &[], &[1.0]);
    let frame: [(u32, &[f64]); 4] =
        [(c, &[10.0]), (dead, &[1.0]), (g, &[3.0]), (h, &[1.0, 2.0, 3.5])];
    second.snapshot(1, &frame, at(1)).unwrap();
    let body = [family(COUNTER, "p_total", &[(&[], &[4.0])])];
    post(&registry, named("a"), &body, at(1)).unwrap();

    let forgotten = registry.forget(0, at(2)).unwrap();
    assert_eq!(forgotten, Forgotten { series: 0, alive: true });
    let zero = |v: Vec<f64>| v.iter().all(|v| *v == 0.0);
    for (key, values) in exposed(&registry, at(2)) {
        assert!(zero(values.clone()) || (key == "g{}@0" && values == [3.0]), "{key} {values:?}");
    }
    registry.visit(at(2), |shard| {
        for (_, series) in shard.families() {
            assert!(series.into_iter().all(|one| one.created == Some(at(2))));
        }
    });
    assert!(second.writer.superseded().is_cancelled());
    // It goes on from what it had, and counts of before are never in it.
    let check = |registry: &Registry| {
        let mut second = open(registry, 2, at(3));
        let c = second.define(COUNTER, "c_total", &[]);
        let h = second.define_bounded(HISTOGRAM, "h", &[], &[1.0]);
        let fell = second.snapshot(2, &[(c, &[9.0]), (h, &[1.0, 2.0, 3.5])], at(3));
        assert!(matches!(fell, Err(FrameError::Bad { .. })), "{fell:?}");
        second.snapshot(2, &[(c, &[12.0]), (h, &[1.0, 3.0, 4.5])], at(3)).unwrap();
        assert_eq!(value(registry, "c_total{}@0", at(3)), Some(vec![2.0]));
        assert_eq!(value(registry, "h{}@0", at(3)), Some(vec![0.0, 1.0, 1.0]));
        let body = [family(COUNTER, "p_total", &[(&[], &[6.0])])];
        post(registry, named("a"), &body, at(3)).unwrap();
        assert_eq!(value(registry, "p_total{}@0", at(3)), Some(vec![2.0]));
        let attached = attach(registry, 0, 1, 1, at(3)).unwrap();
        assert_eq!(attached.closed_at, Some(1), "who ended is still remembered");
    };
    let again = Registry::new(Settings::default(), []);
    overflow::checkpoint(&registry).into_iter().for_each(|change| again.restore(change).unwrap());
    check(&registry);
    check(&again);
    // One that is dead is as if it had never been.
    let later = at(3 + STALE);
    assert_eq!(registry.forget(0, later), Some(Forgotten { series: 5, alive: false }));
    assert_eq!(registry.status(later)[0].state, ShardState::NeverSeen);
    assert!(exposed(&registry, later).is_empty());
    let attached = attach(&registry, 0, 1, 2, later).unwrap();
    assert_eq!(attached.closed_at, Some(2), "it goes on from there as another");
}

#[test]
fn a_fleet_that_is_full_takes_no_new_shard() {
    let settings = Settings { max_series: 2, ..Settings::default() };
    let registry = Registry::new(settings, []);
    let mut first = open_shard(&registry, 0, 1, at(0));
    for name in ["a", "b", "c"] {
        first.define(GAUGE, name, &[]);
    }
    registry.count();
    assert_eq!(attach(&registry, 1, 2, 2, at(0)).unwrap_err(), AttachError::FleetFull(2));
    let families = [];
    let report = Report { shard_id: 1, ..report(named("a"), &families) };
    assert_eq!(registry.report(&[report], at(0)), Err(ReportError::FleetFull(2)));
    // The known go on, and may have more.
    first.define(GAUGE, "d", &[]);
    assert_eq!(first.snapshot(1, &[(3, &[1.0])], at(0)), applied(1));
}

#[test]
fn no_bucket_of_all_shards_falls_when_one_gets_other_bounds() {
    let rule = "[[rules]]\nfamily = \"h\"\ntype = \"histogram\"\ncollapse_shards = true\n";
    let registry = ruled(rule);
    let say = |shard, instance, bound: f64, count: f64| {
        let mut stream = open_shard(&registry, shard, instance, at(0));
        let h = stream.define_bounded(HISTOGRAM, "h", &[], &[bound]);
        stream.snapshot(1, &[(h, &[count; 3])], at(0)).unwrap();
    };
    let shown = || value(&registry, &format!("h{{}}@{}", u32::MAX), at(0)).unwrap();
    say(0, 1, 5.0, 10.0);
    say(1, 2, 5.0, 10.0);
    assert_eq!(shown(), [20.0, 20.0, 20.0]);
    say(0, 3, 2.0, 1.0);
    assert_eq!(shown(), [1.0, 21.0, 21.0, 21.0], "up to 2, 5, and all");
    say(1, 4, 2.0, 1.0);
    assert_eq!(shown(), [2.0, 22.0, 22.0, 22.0]);
}

/// Parts of a family that began anew are not those of the one before it.
#[test]
fn a_family_that_begins_anew_counts_what_living_instances_counted() {
    let rule = |labels: &str| {
        rules(&format!(
            "[[rules]]\nfamily = \"x_total\"\ntype = \"counter\"\ndrop_labels = [{labels}]\n"
        ))
    };
    let body = |count: f64| [family(COUNTER, "x_total", &[(&[("l", "a"), ("m", "b")], &[count])])];
    let mut changes = Vec::new();
    for (run, labels, shown) in [
        (1.0, "\"l\"", "m=\"b\""),
        (2.0, "\"l\", \"m\"", ""),
        (3.0, "\"m\"", "l=\"a\""),
        (4.0, "\"l\"", "m=\"b\""),
    ] {
        let registry = Registry::with_rules(Settings::default(), [], rule(labels));
        changes.drain(..).for_each(|change| registry.restore(change).unwrap());
        assert_eq!(registry.apply_rules(), usize::from(run > 1.0));
        post(&registry, named("a"), &body(run * 10.0), at(0)).unwrap();
        let key = format!("x_total{{{shown}}}@0");
        assert_eq!(exposed(&registry, at(0)), BTreeMap::from([(key, vec![run * 10.0])]));
        changes = overflow::checkpoint(&registry);
    }
}

#[test]
fn families_that_nobody_has_any_more_are_freed_with_their_shard() {
    let registry = registry();
    let gauges = |of: &str, n: usize| -> Vec<_> {
        (0..n).map(|n| family(GAUGE, &format!("{of}{n}"), &[(&[], &[1.0])])).collect()
    };
    let send = |shard_id, families: &[ReportedFamily], now| {
        // Another each time: who was forgotten while silent cannot return.
        let sender = named(&format!("{now:?}"));
        let report = Report { shard_id, ..report(sender, families) };
        match registry.report(&[report], now).unwrap().remove(0) {
            Outcome::Applied(applied) => applied,
            other => panic!("{other:?}"),
        }
    };
    send(1, &[family(GAUGE, "shared", &[(&[], &[1.0])])], at(0));
    let mut now = at(0);
    for round in 0..3 {
        // As many as a shard may bring.
        let mut brought = 0;
        while brought < MAX_FAMILIES_OF_SHARD {
            let of = format!("r{round}_{brought}_");
            let applied = send(0, &gauges(&of, 5_000), now);
            brought += 5_000;
            assert_eq!(applied.rejected.len(), 0, "{:?}", applied.rejected.first());
            now = now + Duration::from_secs(STALE);
            registry.forget(0, now).unwrap();
        }
    }
    assert_eq!(send(1, &[family(COUNTER, "r0_0_1", &[(&[], &[1.0])])], now).samples, 1);
    // What somebody has stays, also if it is silent.
    let other = [family(COUNTER, "shared", &[(&[], &[1.0])])];
    assert_eq!(
        send(1, &other, now + Duration::from_secs(1)).rejected[0].reason,
        Reason::TypeConflict
    );
}
