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
    // However silent it is, it is not taken for another, as long as there is room.
    let mut now = at(2);
    for n in 0..6 {
        now = now + Duration::from_secs(DEAD);
        post(&registry, group(&format!("{n}")), &[], now).unwrap();
    }
    post(&registry, group("a"), &pushed("a", 3.0, 1.0), now).unwrap();
    assert_eq!(count(now), [8.0]);
}

#[test]
fn silent_groups_make_way_when_there_are_too_many_and_are_told_so() {
    let registry = registry();
    for n in 0..16 {
        post(&registry, group(&n.to_string()), &pushed("a", 1.0, 1.0), at(n)).unwrap();
    }
    let refused = post(&registry, group("16"), &pushed("a", 1.0, 1.0), at(16));
    assert_eq!(refused, Err(ReportError::TooManyInstances(0)), "all of them live");
    post(&registry, group("16"), &pushed("a", 1.0, 1.0), at(60)).unwrap();
    let count = || value(&registry, "x_total{exported_job=\"a\"}@0", at(60)).unwrap();
    assert_eq!(count(), [17.0]);
    // The oldest made way; what it says would count twice, until it is said to begin anew.
    let back = || post(&registry, group("0"), &pushed("a", 2.0, 1.0), at(60));
    assert_eq!(back(), Err(ReportError::Closed));
    assert_eq!(registry.end(&group("0"), 0..=9, at(60)), [0]);
    back().unwrap();
    assert_eq!(count(), [19.0]);
}
