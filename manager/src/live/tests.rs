use serde_json::{Value, json};
use tokio::time::{advance, timeout};

use super::*;
use crate::{
    clock::UnixTime,
    registry::{
        InstanceKey, Registry, Report, Scope, Settings,
        tests::{COUNTER, GAUGE, Stream, attach, open_shard},
    },
};

fn live() -> (Arc<Registry>, Arc<Live>, Clock) {
    let registry = Arc::new(Registry::new(Settings::default(), []));
    let clock = Clock::starting_at(UnixTime::from_secs_f64(1_000.0));
    (Arc::clone(&registry), Live::new(registry, clock), clock)
}

/// The next rows that are new to a follower.
async fn rows(follower: &mut Follower) -> Value {
    let text = follower.next().await.unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["rows"].take()
}

/// The next that are there: one collection may have been due before they came.
async fn new(follower: &mut Follower) -> Value {
    match rows(follower).await {
        none if none == json!([]) => rows(follower).await,
        rows => rows,
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_gets_all_rows_and_then_those_that_changed() {
    let (registry, live, clock) = live();
    let mut stream = open_shard(&registry, 1, 1, clock.now());
    let events = stream.define(COUNTER, "gateway_events_total", &[("event_type", "A")]);
    let others = stream.define(COUNTER, "gateway_events_total", &[("event_type", "B")]);
    let latency = stream.define(GAUGE, "gateway_latency_seconds", &[]);
    let began = stream.define(COUNTER, "gateway_sessions_total", &[("outcome", "identified")]);
    let again = stream.define(COUNTER, "gateway_sessions_total", &[("outcome", "resumed")]);
    let taken = stream.define(COUNTER, "gateway_sessions_total", &[("outcome", "invalidated")]);
    let sessions = [(began, &[1.0][..]), (again, &[2.0]), (taken, &[4.0])];
    let values = [(events, &[5.0][..]), (others, &[2.0]), (latency, &[0.25])];
    let values = [&values[..], &sessions].concat();
    stream.snapshot(1, &values, clock.now()).unwrap();

    let mut follower = live.follow();
    let row = json!([1, "up", 1000, 1000, 0.25, 7, null, null, 3, 0, 6]);
    let never = |id: u32| json!([id, "never_seen", null, null, null, null, null, null, null, 0, 0]);
    assert_eq!(rows(&mut follower).await, json!([never(0), row]));
    assert_eq!(rows(&mut follower).await, json!([]), "nothing new");

    advance(Duration::from_secs(5)).await;
    let now = clock.now();
    stream.delta(2, &[(events, &[6.0])], now).unwrap();
    let seconds = now.as_secs_f64() as u64;
    let row = json!([1, "up", seconds, 1000, 0.25, 8, null, null, 3, 0, 6]);
    assert_eq!(new(&mut follower).await, json!([row]));

    let mut late = live.follow();
    let at_once = timeout(Duration::from_millis(1), rows(&mut late)).await;
    assert_eq!(at_once.unwrap(), json!([never(0), row]), "who comes later gets all of it");
}

#[tokio::test(start_paused = true)]
async fn many_rows_are_told_in_parts_and_none_is_missed() {
    const SHARDS: u32 = 2_500;
    let (registry, live, clock) = live();
    let _bot = attach(&registry, SHARDS - 1, SHARDS, 1, clock.now()).unwrap();
    let mut follower = live.follow();
    let mut told = BTreeMap::new();
    let mut part = async |follower: &mut Follower| {
        let part: Value = serde_json::from_str(&follower.next().await.unwrap()).unwrap();
        let rows = part["rows"].as_array().unwrap().clone();
        told.extend(rows.iter().map(|row| (row[0].as_u64().unwrap(), row[1].clone())));
        (rows.len(), part["more"].as_bool().unwrap(), told.clone())
    };
    assert_eq!(part(&mut follower).await.0, 1_000);
    for shard_id in [0, 1_500] {
        let sender = InstanceKey::Anonymous;
        let report = Report {
            shard_id,
            sender,
            sequence: None,
            started_at: None,
            interval: None,
            scope: Scope::Everything,
            families: &[],
        };
        registry.report(&[report], clock.now()).unwrap();
    }
    let mut other = live.follow();
    while !other.next().await.unwrap().contains("[0,\"up\"") {
        other = live.follow();
        tokio::time::sleep(EVERY).await;
    }
    assert_eq!(part(&mut follower).await.0, 1_000);
    let (rows, more, told) = part(&mut follower).await;
    assert_eq!((rows, more, told.len()), (500, false, SHARDS as usize));
    assert_eq!([&told[&0], &told[&1_500]], [&json!("never_seen"), &json!("up")]);
    let (_, more, told) = part(&mut follower).await;
    assert_eq!((more, &told[&0]), (false, &json!("up")));
}

#[tokio::test(start_paused = true)]
async fn states_are_told_apart() {
    let (registry, live, clock) = live();
    let connected = |stream: &mut Stream<'_>, sequence: u64, value: f64| {
        let connected = stream.define(GAUGE, "gateway_connected", &[]);
        stream.snapshot(sequence, &[(connected, &[value])], clock.now()).unwrap();
    };
    let mut lost = open_shard(&registry, 0, 1, clock.now());
    connected(&mut lost, 1, 1.0);
    let mut offline = open_shard(&registry, 1, 2, clock.now());
    connected(&mut offline, 1, 0.0);
    let mut follower = live.follow();
    let states = |rows: &Value| -> Vec<(u64, String)> {
        let row = |row: &Value| (row[0].as_u64().unwrap(), row[1].as_str().unwrap().to_owned());
        rows.as_array().unwrap().iter().map(row).collect()
    };
    let of = |states: &[(u64, &str)]| -> Vec<(u64, String)> {
        states.iter().map(|(id, state)| (*id, (*state).to_owned())).collect()
    };
    assert_eq!(states(&rows(&mut follower).await), of(&[(0, "up"), (1, "offline")]));
    drop(lost);
    connected(&mut offline, 2, 1.0);
    assert_eq!(states(&new(&mut follower).await), of(&[(0, "lost"), (1, "up")]));
    advance(Duration::from_secs(40)).await;
    assert_eq!(states(&new(&mut follower).await), of(&[(0, "stale"), (1, "stale")]));
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_ended_is_not_up() {
    let (registry, live, clock) = live();
    let mut stream = open_shard(&registry, 0, 1, clock.now());
    let connected = stream.define(GAUGE, "gateway_connected", &[]);
    stream.snapshot(1, &[(connected, &[1.0])], clock.now()).unwrap();
    let mut follower = live.follow();
    assert_eq!(rows(&mut follower).await[0][1], "up");
    assert!(stream.writer.goodbye(1, clock.now()).unwrap());
    assert_eq!(new(&mut follower).await[0][1], "lost");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_collected_while_nobody_looks() {
    let (registry, live, clock) = live();
    let mut follower = live.follow();
    assert_eq!(rows(&mut follower).await, json!([]));
    drop(follower);
    // The task notices at its next step, and ends.
    advance(Duration::from_secs(3)).await;
    while live.collecting.lock().goes_on {
        tokio::task::yield_now().await;
        advance(EVERY).await;
    }
    let revision = live.collecting.lock().fleet.borrow().revision;
    drop(open_shard(&registry, 1, 1, clock.now()));
    advance(Duration::from_secs(3)).await;
    assert_eq!(live.collecting.lock().fleet.borrow().revision, revision);

    let mut again = live.follow();
    let all = timeout(Duration::from_secs(2), rows(&mut again)).await.unwrap();
    assert!(!all.as_array().unwrap().is_empty(), "it begins with what is, not what was");
}

#[test]
fn a_shard_that_is_no_longer_listed_is_said_once() {
    let row = |text: &str, since| Row { text: text.into(), since };
    let rows = BTreeMap::from([(7, row("[7,1]", 1)), (8, row("[8]", 1))]);
    let before = Fleet { revision: 1, time: 1.0, rows };
    let registry = Registry::new(Settings::default(), []);
    let after = before.next(&registry, Clock::starting_at(UnixTime::from_secs_f64(2.5)));
    assert_eq!(after.since(1, 0).0, r#"{"time":2.5,"rows":[[7]],"more":false}"#);
    let later = after.next(&registry, Clock::starting_at(UnixTime::from_secs_f64(3.5)));
    assert_eq!(later.since(2, 0).0, r#"{"time":3.5,"rows":[],"more":false}"#);
}
