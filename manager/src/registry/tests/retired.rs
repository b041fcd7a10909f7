//! Families that are retired: over a kill at any moment, over checkpoints, and where it is their own sender that says otherwise.

use std::sync::{Arc, Mutex};

use super::*;
use crate::registry::change::Change;

fn x(kind: MetricType) -> [ReportedFamily; 1] {
    [family(kind, "x", &[(&[], &[1.0])])]
}

/// Reported as a counter, and once nobody does so any more as a gauge.
fn retire(registry: &Registry) {
    post(registry, named("a"), &x(COUNTER), at(0)).unwrap();
    let refused = post(registry, named("b"), &x(GAUGE), at(STALE)).unwrap();
    assert_eq!(refused.rejected[0].reason, Reason::TypeConflict);
    assert_eq!(registry.yield_types(at(STALE)), 1);
}

#[test]
fn whenever_the_manager_is_killed_the_page_has_one_family_of_a_name() {
    let registry = registry();
    let log: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let sink = Arc::clone(&log);
    registry.record_to(Box::new(move |changes| {
        let records = changes.iter().map(|change| postcard::to_allocvec(change).unwrap());
        sink.lock().unwrap().extend(records);
        true
    }));
    retire(&registry);
    post(&registry, named("b"), &x(GAUGE), at(STALE)).unwrap();
    let log = log.lock().unwrap();
    for kept in 0..=log.len() {
        let again = super::registry();
        for record in &log[..kept] {
            let change: Change<'_> = postcard::from_bytes(record).unwrap();
            again.restore(change).unwrap();
        }
        again.apply_rules();
        again.resume(at(STALE));
        post(&again, named("b"), &x(GAUGE), at(STALE)).unwrap();
        let page = page(&again, at(STALE));
        assert_eq!(page.matches("# TYPE x ").count(), 1, "after {kept} records:\n{page}");
    }
}

#[test]
fn what_takes_its_place_is_newly_created_also_after_a_checkpoint() {
    let registry = registry();
    retire(&registry);
    let again = super::registry();
    overflow::checkpoint(&registry).into_iter().for_each(|change| again.restore(change).unwrap());
    again.resume(at(STALE));
    let families = x(COUNTER);
    let started_at = Some(at(1));
    again.report(&[Report { started_at, ..report(named("c"), &families) }], at(STALE)).unwrap();
    let mut created = Vec::new();
    again.visit(at(STALE), |shard| {
        for (_, series) in shard.families() {
            created.extend(series.map(|one| one.created));
        }
    });
    assert_eq!(created, [Some(at(STALE))]);
}

#[test]
fn a_sender_that_lives_on_may_change_a_type() {
    let registry = registry();
    let group = || InstanceKey::Group("job=\"bot\"".into());
    let say = |kind| post(&registry, group(), &x(kind), at(0)).unwrap().rejected.len();
    assert_eq!(say(COUNTER), 0);
    assert_eq!(say(GAUGE), 1);
    registry.yield_types(at(0));
    assert_eq!(say(GAUGE), 0);
    // Not while another reports the old one.
    post(&registry, named("other"), &x(GAUGE), at(0)).unwrap();
    assert_eq!(say(COUNTER), 1);
    registry.yield_types(at(0));
    assert_eq!(say(COUNTER), 1);
}
