//! Senders by grouping key (Pushgateway's API): each has gauges of its own, and comes and goes.

use super::*;

fn group(name: &str) -> InstanceKey {
    InstanceKey::Group(format!("job={name}").into())
}

/// What a group pushes: a count and a gauge with its own label.
fn pushed(job: &str, count: f64, gauge: f64) -> Vec<ReportedFamily> {
    let labels: Pairs<'_> = &[("job", job)];
    vec![
        family(COUNTER, "x_total", &[(labels, &[count])]),
        family(GAUGE, "g", &[(labels, &[gauge])]),
    ]
}

fn keys(registry: &Registry, now: UnixTime) -> Vec<String> {
    exposed(registry, now).into_keys().collect()
}

#[test]
fn every_group_owns_its_gauges() {
    let registry = registry();
    post(&registry, group("a"), &pushed("a", 1.0, 1.0), at(0)).unwrap();
    post(&registry, group("b"), &pushed("b", 2.0, 2.0), at(1)).unwrap();
    post(&registry, named("bot"), &[family(GAUGE, "g", &[(&[], &[3.0])])], at(2)).unwrap();
    post(&registry, named("next"), &[family(GAUGE, "h", &[(&[], &[4.0])])], at(3)).unwrap();
    let of = |job: &str| format!("{{exported_job=\"{job}\"}}@0");
    let gauges: Vec<_> =
        keys(&registry, at(3)).into_iter().filter(|k| !k.contains("_total")).collect();
    let expected = [format!("g{}", of("a")), format!("g{}", of("b")), "h{}@0".to_owned()];
    assert_eq!(gauges, expected, "of the other senders, only the newest's");
    // Each for as long as it is alive.
    let later = keys(&registry, at(31));
    assert!(!later.contains(&format!("g{}", of("a"))) && later.contains(&format!("g{}", of("b"))));
}

#[test]
fn a_part_replaces_the_families_it_names() {
    let registry = registry();
    post(&registry, group("a"), &pushed("a", 1.0, 1.0), at(0)).unwrap();
    let part = [family(GAUGE, "h", &[(&[], &[1.0])])];
    let report = Report { scope: Scope::NamedFamilies, ..report(group("a"), &part) };
    registry.report(&[report], at(1)).unwrap();
    assert_eq!(keys(&registry, at(1)).len(), 3);
    let part = [family(GAUGE, "g", &[(&[("l", "other")], &[1.0])])];
    let report = Report { scope: Scope::NamedFamilies, ..super::report(group("a"), &part) };
    registry.report(&[report], at(2)).unwrap();
    let left = ["g{l=\"other\"}@0", "h{}@0", "x_total{exported_job=\"a\"}@0"];
    assert_eq!(keys(&registry, at(2)), left);
}

#[test]
fn a_group_that_ended_may_come_back_as_another() {
    let registry = registry();
    post(&registry, group("a"), &pushed("a", 5.0, 1.0), at(0)).unwrap();
    assert_eq!(registry.end(&group("a"), 0..=7, at(1)), [0]);
    assert_eq!(keys(&registry, at(1)), ["x_total{exported_job=\"a\"}@0"], "its counts stay");
    assert!(registry.end(&group("a"), 0..=7, at(1)).is_empty(), "it is gone");
    post(&registry, group("a"), &pushed("a", 2.0, 1.0), at(2)).unwrap();
    let count = |now| value(&registry, "x_total{exported_job=\"a\"}@0", now).unwrap();
    assert_eq!(count(at(2)), [7.0]);
    // However silent it is, it is not taken for another.
    let mut now = at(2);
    for n in 0..6 {
        now = now + Duration::from_secs(DEAD);
        post(&registry, group(&format!("{n}")), &[], now).unwrap();
    }
    post(&registry, group("a"), &pushed("a", 3.0, 1.0), now).unwrap();
    assert_eq!(count(now), [8.0]);
}
