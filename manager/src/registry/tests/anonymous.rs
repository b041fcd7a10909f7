//! HTTP senders without identity: a fall of a count tells one from the next.

use super::{
    posts::{both, counts},
    *,
};

#[test]
fn without_identity_a_fall_in_one_shard_is_a_new_sender_in_all() {
    let registry = registry();
    let send = |first: f64, second: f64, now| {
        let (first, second) = (counts(first, 0.0), counts(second, 0.0));
        let part =
            |shard_id, families| Report { shard_id, ..report(InstanceKey::Anonymous, families) };
        registry.report(&[part(0, &first), part(1, &second)], now)
    };
    send(100.0, 3.0, at(0)).unwrap();
    send(1.0, 5.0, at(10)).unwrap();
    assert_eq!(value(&registry, "x_total{l=\"c\"}@0", at(10)), Some(vec![101.0]));
    assert_eq!(value(&registry, "x_total{l=\"c\"}@1", at(10)), Some(vec![8.0]));
    let before = page(&registry, at(20));
    assert!(matches!(send(2.0, 4.0, at(20)), Err(ReportError::FellAgain { shard_id: 1, .. })));
    assert_eq!(page(&registry, at(20)), before);
}

#[test]
fn without_identity_a_fall_begins_a_new_instance() {
    let registry = registry();
    let sender = || InstanceKey::Anonymous;
    post(&registry, sender(), &counts(10.0, 20.0), at(0)).unwrap();
    post(&registry, sender(), &counts(12.0, 20.0), at(1)).unwrap();
    assert_eq!(both(&registry, at(1)), [12.0, 20.0]);
    // The whole body is of a new process: what did not fall counts anew too.
    post(&registry, sender(), &counts(1.0, 25.0), at(2)).unwrap();
    assert_eq!(both(&registry, at(2)), [13.0, 45.0]);
    post(&registry, sender(), &counts(2.0, 25.0), at(3)).unwrap();
    assert_eq!(both(&registry, at(3)), [14.0, 45.0]);
}

#[test]
fn without_identity_a_fall_behind_another_sender_folds_too() {
    let registry = registry();
    // The older sender keeps the anonymous ones from being folded at once.
    post(&registry, named("a"), &counts(1000.0, 0.0), at(0)).unwrap();
    let mut total = 0.0;
    for restart in 1..=3 {
        let now = at(30 * restart);
        post(&registry, InstanceKey::Anonymous, &counts(7.0, 0.0), now).unwrap();
        post(&registry, InstanceKey::Anonymous, &counts(2.0, 0.0), now).unwrap();
        total += 7.0;
        assert_eq!(both(&registry, now), [1000.0 + total + 2.0, 0.0]);
        post(&registry, InstanceKey::Anonymous, &counts(7.0, 0.0), now).unwrap();
    }
}

#[test]
fn without_identity_a_second_fall_within_three_intervals_is_refused() {
    let registry = registry();
    let sender = || InstanceKey::Anonymous;
    post(&registry, sender(), &counts(10.0, 20.0), at(0)).unwrap();
    post(&registry, sender(), &counts(5.0, 20.0), at(1)).unwrap(); // it began anew, or is another
    post(&registry, sender(), &counts(11.0, 20.0), at(2)).unwrap();
    let before = page(&registry, at(30));
    for now in [2, 30] {
        let refused = post(&registry, sender(), &counts(11.0, 6.0), at(now));
        let message = refused.unwrap_err().to_string();
        assert!(message.starts_with("line 2: x_total{l=\"d\"} fell again"), "{message}");
        assert!(
            message.contains("X-Instance-Id") && message.contains("process_start_time_seconds")
        );
    }
    assert_eq!(page(&registry, at(30)), before, "a refused body changes nothing");
    // What does not fall is taken, and after three intervals a fall is too.
    post(&registry, sender(), &counts(12.0, 20.0), at(30)).unwrap();
    post(&registry, sender(), &counts(1.0, 1.0), at(31)).unwrap();
    assert_eq!(both(&registry, at(31)), [10.0 + 12.0 + 1.0, 20.0 + 20.0 + 1.0]);
    // A sender that says it is slow is given longer.
    let slow = counts(0.0, 0.0);
    let interval = Some(Duration::from_secs(60));
    let slow = Report { interval, ..report(sender(), &slow) };
    assert!(matches!(registry.report(&[slow], at(200)), Err(ReportError::FellAgain { .. })));
}

#[test]
fn without_identity_a_long_silence_counts_nothing_twice() {
    let registry = registry();
    post(&registry, InstanceKey::Anonymous, &counts(10.0, 20.0), at(0)).unwrap();
    for instance in 1..=6 {
        let _other = open(&registry, instance, at(u64::from(instance) * DEAD));
    }
    let now = at(7 * DEAD);
    post(&registry, InstanceKey::Anonymous, &counts(11.0, 20.0), now).unwrap();
    assert_eq!(both(&registry, now), [11.0, 20.0]);
}
