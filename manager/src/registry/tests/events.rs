//! What followers are told.

use std::sync::Arc;

use super::*;
use crate::registry::{Departure::*, EventKind::*};

const SESSIONS: &str = "gateway_sessions_total";

/// Follows a registry in which nothing happened yet.
struct Told {
    registry: Arc<Registry>,
    follower: Follower,
}

impl Told {
    fn new(registry: Registry) -> Self {
        let registry = Arc::new(registry);
        let mut follower = registry.follow("", 0);
        assert!(matches!(follower.next(1), Followed::State { gap: false, .. }));
        Self { registry, follower }
    }

    fn events(&mut self) -> Vec<ShardEvent> {
        match self.follower.next(usize::MAX) {
            Followed::Events(events) => events.iter().map(|e| ShardEvent::clone(e)).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// What happened since the last call, and to whom.
    fn next(&mut self) -> Vec<(EventKind, String, ShardState)> {
        let who = |event: &ShardEvent| {
            event.instance.as_ref().map_or_else(String::new, |(key, _)| key.to_string())
        };
        self.events().iter().map(|event| (event.kind, who(event), event.state)).collect()
    }

    /// The same of events that leave the shard up, without whom.
    fn kinds(&mut self) -> Vec<EventKind> {
        let next = self.next().into_iter();
        next.inspect(|event| assert_eq!(event.2, UP, "{event:?}")).map(|event| event.0).collect()
    }
}

const UP: ShardState = ShardState::Up;

fn id(instance: u8) -> String {
    format!("{instance:02x}").repeat(16)
}

#[test]
fn a_shard_comes_leaves_and_falls_silent() {
    let mut told = Told::new(registry());
    let registry = Arc::clone(&told.registry);
    let mut stream = open(&registry, 1, at(0));
    assert_eq!(told.next(), [], "it may never report");
    stream.snapshot(1, &[], at(0)).unwrap();
    stream.delta(2, &[], at(10)).unwrap();
    stream.delta(2, &[], at(11)).unwrap();
    assert_eq!(told.next(), [(Connected, id(1), UP)]);
    stream.writer.goodbye(2, at(12)).unwrap();
    stream.writer.depart(Broken, at(12));
    drop(stream);
    assert_eq!(told.next(), [(Disconnected(Goodbye), id(1), UP)]);
    registry.notice_silence(at(40));
    assert_eq!(told.next(), [], "it reported within that time");
    registry.notice_silence(at(10 + STALE));
    registry.notice_silence(at(11 + STALE));
    assert_eq!(told.next(), [(Stale, String::new(), ShardState::Stale)]);
    let mut next = open(&registry, 2, at(100));
    next.snapshot(1, &[], at(100)).unwrap();
    assert_eq!(told.next(), [(Connected, id(2), UP)]);
}

#[test]
fn a_stream_that_breaks_is_told_once() {
    let mut told = Told::new(registry());
    let registry = Arc::clone(&told.registry);
    let mut first = open(&registry, 1, at(0));
    first.snapshot(1, &[], at(0)).unwrap();
    first.writer.depart(Broken, at(1));
    first.writer.depart(Broken, at(1));
    drop(first);
    // One that breaks before its first frame never was there.
    let mut second = open(&registry, 1, at(2));
    second.writer.depart(Refused, at(2));
    drop(second);
    assert_eq!(told.kinds(), [Connected, Disconnected(Broken)]);
    let mut third = open(&registry, 1, at(3));
    third.snapshot(2, &[], at(3)).unwrap();
    // A newer stream of the same instance, and what the older one still says.
    let mut fourth = open(&registry, 1, at(4));
    third.delta(3, &[], at(4)).unwrap_err();
    third.writer.depart(Refused, at(4));
    drop(third);
    assert_eq!(told.kinds(), [Connected, Superseded(Successor::Stream)]);
    fourth.snapshot(3, &[], at(5)).unwrap();
    assert_eq!(told.kinds(), [Connected]);
    // It stays, and says nothing.
    registry.notice_silence(at(5 + STALE));
    let silent = [(Disconnected(Idle), id(1), UP), (Stale, String::new(), ShardState::Stale)];
    assert_eq!(told.next(), silent);
    fourth.writer.depart(Idle, at(6 + STALE));
    assert_eq!(told.next(), []);
    fourth.delta(4, &[], at(7 + STALE)).unwrap();
    assert_eq!(told.kinds(), [Connected]);
}

#[test]
fn a_newer_instance_takes_the_gauges() {
    let mut told = Told::new(registry());
    let registry = Arc::clone(&told.registry);
    let mut old = open(&registry, 1, at(0));
    old.snapshot(1, &[], at(0)).unwrap();
    let mut new = open(&registry, 2, at(1));
    new.snapshot(1, &[], at(1)).unwrap();
    old.delta(2, &[], at(2)).unwrap();
    let taken = [
        (Connected, id(1), UP),
        (Connected, id(2), UP),
        (Superseded(Successor::Instance), id(1), UP),
    ];
    assert_eq!(told.next(), taken);
    old.writer.depart(Broken, at(3));
    drop(old);
    let mut old = open(&registry, 1, at(4));
    old.snapshot(3, &[], at(4)).unwrap();
    assert_eq!(told.kinds(), [Disconnected(Broken), Connected], "it takes nothing back");
}

#[test]
fn posts_come_after_silence_and_go_by_it() {
    let mut told = Told::new(registry());
    let registry = Arc::clone(&told.registry);
    let body = |count: f64| [family(COUNTER, "c_total", &[(&[], &[count])])];
    post(&registry, named("a"), &body(1.0), at(0)).unwrap();
    post(&registry, named("a"), &body(2.0), at(10)).unwrap();
    assert_eq!(told.kinds(), [Connected]);
    registry.notice_silence(at(10 + STALE));
    post(&registry, named("a"), &body(2.0), at(50)).unwrap();
    let [idle, stale, back] = &told.next()[..] else { panic!() };
    assert_eq!((idle.0, stale.0, back.0), (Disconnected(Idle), Stale, Connected));
    // Its process is another, as its start says.
    for start in [1, 1, 9] {
        let families = body(1.0);
        let started_at = Some(at(start));
        let report = Report { started_at, ..report(named("a"), &families) };
        registry.report(&[report], at(51)).unwrap();
    }
    assert_eq!(told.kinds(), [Disconnected(Restarted), Connected]);
    assert_eq!(registry.end(&named("a"), 0..=0, at(52)), [0]);
    assert_eq!(told.kinds(), [Disconnected(Goodbye)]);

    post(&registry, InstanceKey::Anonymous, &body(5.0), at(53)).unwrap();
    post(&registry, InstanceKey::Anonymous, &body(4.0), at(54)).unwrap();
    assert_eq!(told.kinds(), [Connected, Disconnected(Restarted), Connected]);
}

#[test]
fn groups_that_push_now_and_then_are_no_news() {
    let mut told = Told::new(registry());
    let registry = Arc::clone(&told.registry);
    let group = |name: &str| InstanceKey::Group(name.into());
    post(&registry, group("a"), &[], at(0)).unwrap();
    assert_eq!(told.next(), [(Connected, "a".to_owned(), UP)]);
    post(&registry, group("b"), &[], at(1)).unwrap();
    post(&registry, group("a"), &[], at(20)).unwrap();
    registry.end(&group("b"), 0..=0, at(21));
    registry.notice_silence(at(22));
    assert_eq!(told.next(), []);
    registry.notice_silence(at(20 + STALE));
    assert_eq!(told.next(), [(Stale, String::new(), ShardState::Stale)]);
    post(&registry, group("b"), &[], at(100)).unwrap();
    assert_eq!(told.kinds(), [Connected]);
}

#[test]
fn sessions_are_told_as_often_as_they_are_counted() {
    let mut told = Told::new(registry());
    let registry = Arc::clone(&told.registry);
    let mut stream = open(&registry, 1, at(0));
    let other = stream.define(COUNTER, "c_total", &[("outcome", "resumed")]);
    let resumed = stream.define(COUNTER, SESSIONS, &[("outcome", "resumed")]);
    let invalidated = stream.define(COUNTER, SESSIONS, &[("outcome", "invalidated")]);
    let identified = stream.define(COUNTER, SESSIONS, &[("outcome", "identified")]);
    let all = |r: &'static [f64], i: &'static [f64]| {
        [(other, &[9.0][..]), (identified, &[1.0]), (resumed, r), (invalidated, i)]
    };
    stream.snapshot(1, &all(&[2.0], &[0.0]), at(0)).unwrap();
    assert_eq!(told.kinds(), [Connected, Resumed(2)]);
    stream.delta(2, &[(resumed, &[3.0]), (other, &[10.0])], at(1)).unwrap();
    stream.delta(2, &[(resumed, &[3.0])], at(1)).unwrap();
    stream.delta(3, &[(invalidated, &[4.0])], at(2)).unwrap();
    stream.delta(4, &[(other, &[11.0])], at(3)).unwrap();
    stream.send(FrameKind::Delta, 5, &[], &[(resumed, &[4.0])], at(4)).unwrap();
    assert_eq!(told.kinds(), [Resumed(1), Invalidated(4), Resumed(1)]);
    drop(stream);
    // It is back, and says it all again.
    let mut stream = open(&registry, 1, at(5));
    let resumed = stream.define(COUNTER, SESSIONS, &[("outcome", "resumed")]);
    stream.snapshot(6, &[(resumed, &[5.0])], at(5)).unwrap();
    assert_eq!(told.kinds(), [Resumed(1)]);

    let post = |count: f64, now| {
        let series: Values<'_, Pairs<'_>> = &[(&[("outcome", "resumed")], &[count])];
        post(&registry, named("a"), &[family(COUNTER, SESSIONS, series)], now).unwrap();
    };
    post(1.0, at(6));
    post(1.0, at(7));
    post(3.0, at(8));
    post(2.0, at(9)); // a lower count began anew
    let taken = Superseded(Successor::Instance);
    assert_eq!(told.kinds(), [Connected, taken, Resumed(1), Resumed(2), Resumed(2)]);
    let exposed = value(&registry, "gateway_sessions_total{outcome=\"resumed\"}@0", at(9));
    assert_eq!(exposed, Some(vec![10.0]), "as many as were told");
}

#[test]
fn a_shard_that_is_forgotten_begins_anew() {
    let mut told = Told::new(registry());
    let registry = Arc::clone(&told.registry);
    let mut stream = open(&registry, 1, at(0));
    stream.snapshot(1, &[], at(0)).unwrap();
    registry.forget(0, at(1)).unwrap();
    assert_eq!(told.next(), [(Connected, id(1), UP), (Forgotten, String::new(), UP)]);
    drop(stream);
    registry.forget(0, at(100)).unwrap();
    let gone = [(Forgotten, String::new(), ShardState::NeverSeen)];
    assert_eq!(told.next(), gone);
    registry.notice_silence(at(101));
    assert_eq!(told.next(), []);
    let mut stream = open(&registry, 1, at(102));
    stream.snapshot(2, &[], at(102)).unwrap_err();
    let mut stream = open(&registry, 2, at(102));
    stream.snapshot(1, &[], at(102)).unwrap();
    assert_eq!(told.kinds(), [Connected]);
}

/// Many events: one for each post of a shard that has another start than the one before.
fn restart_often(registry: &Registry, times: u64) {
    for n in 0..times {
        let report = Report { started_at: Some(at(10 * n)), ..report(named("a"), &[]) };
        registry.report(&[report], at(n)).unwrap();
    }
}

#[test]
fn followers_go_on_where_they_were_or_learn_that_they_cannot() {
    let registry = Arc::new(registry());
    let state = |follower: &mut Follower| match follower.next(1) {
        Followed::State { known, gap } => (known, gap),
        other => panic!("{other:?}"),
    };
    let (start, _) = state(&mut registry.follow("", 0));
    assert_eq!((start.revision, &start.shards[..]), (0, &[][..]));
    open_shard(&registry, 1, 1, at(0)).snapshot(1, &[], at(0)).unwrap();
    restart_often(&registry, 3); // connected, and two restarts of two events
    let mut slow = registry.follow(&start.epoch, 0);
    let mut seen = Vec::new();
    while let Followed::Events(events) = slow.next(4)
        && !events.is_empty()
    {
        assert!(events.len() <= 4);
        seen.extend(events.iter().map(|event| event.revision));
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    let (now, gap) = state(&mut registry.follow("other", 3));
    assert!(gap);
    assert_eq!((now.epoch.clone(), now.revision), (start.epoch.clone(), 6));
    assert_eq!((now.shard_count, now.shards), (2, vec![(0, UP), (1, UP)]));
    let (_, gap) = state(&mut registry.follow(&start.epoch, 7));
    assert!(gap, "it is ahead of all that is known");

    let half = MAX_EVENTS as u64 / 2;
    restart_often(&registry, half); // the start is earlier than the last: late, changes nothing
    let (_, gap) = state(&mut registry.follow("", 1));
    assert!(!gap);
}

#[test]
fn who_is_too_far_behind_gets_a_gap() {
    let registry = Arc::new(registry());
    let mut slow = registry.follow("", 0);
    let Followed::State { known, .. } = slow.next(1) else { panic!() };
    restart_often(&registry, MAX_EVENTS as u64 / 2 + 1); // one more than are kept
    let Followed::Events(all) = registry.follow(&known.epoch, 1).next(usize::MAX) else { panic!() };
    assert_eq!((all.len(), all[0].revision), (MAX_EVENTS, 2));
    let Followed::State { known, gap } = slow.next(1) else { panic!() };
    assert!(gap);
    assert_eq!(known.revision, MAX_EVENTS as u64 + 1);
    assert_eq!(slow.next(1), Followed::Events(Vec::new()), "it goes on from there");
}
