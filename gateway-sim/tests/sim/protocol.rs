//! What a gateway client may not do, and what it gets for it.

use std::time::Duration;

use serde_json::{Value, json};
use shardmeter_gateway_sim::{Config, Place};
use tokio_tungstenite::tungstenite::Message;

use crate::raw::{Next, Raw, identify};
use crate::{Sim, within};

/// Sends a message on a new connection; how that connection ends.
async fn end_of(sim: &Sim, message: impl Into<Message>) -> Next {
    let mut raw = Raw::connect(sim).await;
    raw.send_message(message.into()).await;
    within(raw.end()).await
}

/// The same after an identify.
async fn end_of_session(sim: &Sim, payload: &Value) -> Next {
    let mut raw = Raw::identified(sim, 0, 1).await;
    raw.send(payload).await;
    within(raw.end()).await
}

#[tokio::test]
async fn bad_payloads_get_their_close_code_and_the_simulator_lives_on() {
    let sim = Sim::start(Config { guilds: 2, ..Config::default() }).await;
    for junk in ["", "{", "[]", "null", "{\"op\": \"2\"}", "{\"d\": 1}", "\u{0}"] {
        assert_eq!(end_of(&sim, junk).await, Next::Closed(4002), "{junk:?}");
    }
    assert_eq!(end_of(&sim, Message::binary(vec![0xff; 9])).await, Next::Closed(4002));
    assert_eq!(end_of(&sim, "x".repeat(5_000)).await, Next::Closed(4002));
    for op in [0, 5, 7, 9, 10, 11, 99, -1, i64::MAX] {
        let payload = json!({"op": op, "d": null}).to_string();
        assert_eq!(end_of(&sim, payload).await, Next::Closed(4001), "op {op}");
    }
    for op in [3, 4, 8] {
        let payload = json!({"op": op, "d": {}}).to_string();
        assert_eq!(end_of(&sim, payload).await, Next::Closed(4003), "op {op}");
    }
    assert_eq!(end_of(&sim, r#"{"op": 1, "d": "x"}"#).await, Next::Closed(4002));
    assert_eq!(end_of(&sim, r#"{"op": 6, "d": {"token": 1}}"#).await, Next::Closed(4002));
    let nobody = r#"{"op": 6, "d": {"token": "", "session_id": "x", "seq": 1}}"#;
    assert_eq!(end_of(&sim, nobody).await, Next::Closed(4004));
    // Beyond what is read at all, the connection is dropped.
    assert_eq!(end_of(&sim, "x".repeat(200_000)).await, Next::Dropped);

    let closes = sim.control.books().closes_before_identify;
    assert_eq!(closes, [(4001, 9), (4002, 11), (4003, 3), (4004, 1)].into());
    Raw::identified(&sim, 0, 1).await;
}

#[tokio::test]
async fn a_wrong_identify_gets_its_close_code() {
    let sim = Sim::start(Config::default()).await;
    let with = |field: &str, value: Value| {
        let mut payload = identify(0, 1);
        payload["d"][field] = value;
        payload.to_string()
    };
    for (payload, code) in [
        (with("token", json!("")), 4004),
        (with("shard", json!([1, 1])), 4010),
        (with("shard", json!([0, u64::MAX])), 4010),
        (with("intents", json!(1 << 30)), 4013),
        (with("intents", json!(1 << 8)), 4014),
        (with("properties", json!(1)), 4002),
        (json!({"op": 2, "d": "identify"}).to_string(), 4002),
    ] {
        assert_eq!(end_of(&sim, payload).await, Next::Closed(code));
    }
    assert!(sim.control.books().shards.is_empty());
}

#[tokio::test]
async fn a_shard_with_too_many_guilds_must_be_split() {
    let sim = Sim::start(Config { guilds: 2_501, ..Config::default() }).await;
    assert_eq!(end_of(&sim, identify(0, 1).to_string()).await, Next::Closed(4011));
    Raw::identified(&sim, 0, 2).await;
}

#[tokio::test]
async fn misuse_of_a_session_closes_its_connection() {
    let sim = Sim::start(Config { guilds: 2, ..Config::default() }).await;
    assert_eq!(end_of_session(&sim, &identify(0, 1)).await, Next::Closed(4005));
    let resume = json!({"op": 6, "d": {"token": "t", "session_id": "x", "seq": 1}});
    assert_eq!(end_of_session(&sim, &resume).await, Next::Closed(4005));
    assert_eq!(end_of_session(&sim, &json!({"op": 77})).await, Next::Closed(4001));
    let closes = sim.control.books().shards[&0].closes.clone();
    assert_eq!(closes, [(4001, 1), (4005, 2)].into());
}

#[tokio::test]
async fn another_api_version_is_refused() {
    let sim = Sim::start(Config::default()).await;
    for query in ["?v=9", "?v=10&encoding=etf"] {
        let mut raw = Raw::connect_with(&sim, query).await;
        assert_eq!(within(raw.end()).await, Next::Closed(4012), "{query}");
    }
}

#[tokio::test]
async fn too_many_payloads_are_too_many() {
    let sim = Sim::start(Config { guilds: 0, ..Config::default() }).await;
    let mut raw = Raw::identified(&sim, 0, 1).await;
    // Heartbeats do not count; the identify was the first of 120.
    for _ in 0..200 {
        raw.send(&json!({"op": 1, "d": 1})).await;
        raw.operation(11).await;
    }
    for _ in 0..120 {
        raw.send(&json!({"op": 3, "d": {}})).await;
    }
    assert_eq!(within(raw.end()).await, Next::Closed(4008));
}

#[tokio::test]
async fn a_client_without_heartbeats_is_closed_and_its_session_is_over() {
    let heartbeat_interval = Duration::from_millis(50);
    let sim = Sim::start(Config { heartbeat_interval, ..Config::default() }).await;
    let mut raw = Raw::identified(&sim, 0, 1).await;
    assert_eq!(within(raw.end()).await, Next::Closed(4009));
    let books = sim.control.books();
    assert!(books.shards[&0].newest_session().unwrap().ended);
    assert_eq!(books.shards[&0].closes, [(4009, 1)].into());
}

#[tokio::test]
async fn a_resume_replays_what_was_missed_and_nothing_else() {
    let sim = Sim::start(Config { guilds: 1, ..Config::default() }).await;
    let control = &sim.control;
    let mut raw = Raw::connect(&sim).await;
    raw.send(&identify(0, 1)).await;
    let ready = raw.event("READY").await;
    assert_eq!(ready["resume_gateway_url"], sim.gateway_url.as_str());
    assert_eq!(ready["guilds"][0]["unavailable"], true);
    drop(raw);
    within(control.until_connected(0)).await;
    for _ in 0..3 {
        control.interaction(Place::Dm, "ping").await.unwrap();
    }
    // READY, guild, three interactions: the sequence is 5.
    let resume = |seq: u64| json!({"op": 6, "d": {"token": "Bot token", "session_id": ready["session_id"], "seq": seq}});
    let mut resumed = Raw::connect(&sim).await;
    resumed.send(&resume(3)).await;
    let mut sequences = Vec::new();
    loop {
        let event = within(resumed.operation(0)).await;
        sequences.push(event["s"].as_u64().unwrap());
        if event["t"] == "RESUMED" {
            break;
        }
    }
    assert_eq!(sequences, [4, 5, 6]);
    assert_eq!(control.books().shards[&0].newest_session().unwrap().confirmed, 3);

    // A second resume takes over; the first connection goes.
    let mut again = Raw::connect(&sim).await;
    again.send(&resume(6)).await;
    assert_eq!(within(again.operation(0)).await["t"], "RESUMED");
    assert_eq!(within(resumed.end()).await, Next::Dropped);

    // What was confirmed is not kept: going back behind it is not possible.
    let mut behind = Raw::connect(&sim).await;
    behind.send(&resume(2)).await;
    assert_eq!(within(behind.operation(9)).await["d"], false);
    // And the session is over; on the same connection a new one may start.
    assert!(control.books().shards[&0].newest_session().unwrap().ended);
    behind.send(&identify(0, 1)).await;
    within(behind.event("READY")).await;
}

#[tokio::test]
async fn a_resume_from_the_future_is_closed() {
    let sim = Sim::start(Config { guilds: 1, ..Config::default() }).await;
    let mut raw = Raw::connect(&sim).await;
    raw.send(&identify(0, 1)).await;
    let ready = raw.event("READY").await;
    let mut ahead = Raw::connect(&sim).await;
    let session_id = &ready["session_id"];
    ahead.send(&json!({"op": 6, "d": {"token": "t", "session_id": session_id, "seq": 99}})).await;
    assert_eq!(within(ahead.end()).await, Next::Closed(4007));
    let shard = sim.control.books().shards[&0].clone();
    assert_eq!(shard.closes, [(4007, 1)].into());
}

#[tokio::test]
async fn identifies_above_the_concurrency_get_an_invalid_session() {
    let sim = Sim::start(Config { max_concurrency: 2, ..Config::default() }).await;
    let _first = Raw::identified(&sim, 0, 4).await;
    let _second = Raw::identified(&sim, 1, 4).await;
    let mut third = Raw::connect(&sim).await;
    third.send(&identify(2, 4)).await;
    assert_eq!(within(third.operation(9)).await["d"], false);
    let books = sim.control.books();
    assert_eq!((books.shards[&2].identifies, books.shards[&2].identifies_refused), (0, 1));
    assert_eq!(books.connected(), [0, 1].into());
    let attempts = &books.identify_keys[&0].attempts;
    let by: Vec<_> = attempts.iter().map(|attempt| (attempt.shard, attempt.admitted)).collect();
    assert_eq!((by, books.identify_breaches()), (vec![(0, true), (2, false)], 1));
}

#[tokio::test]
async fn an_identify_beyond_the_day_costs_the_token() {
    let sim = Sim::start(Config { identifies_per_day: 1, ..Config::default() }).await;
    let _first = Raw::identified(&sim, 0, 2).await;
    let mut second = Raw::connect(&sim).await;
    second.send(&identify(1, 2)).await;
    assert_eq!(within(second.end()).await, Next::Closed(4004));
    assert_eq!(sim.control.books().token_resets, 1);
}

#[tokio::test]
async fn sessions_of_a_shard_are_bounded() {
    let sim = Sim::start(Config { guilds: 0, ..Config::default() }).await;
    let mut oldest = Raw::identified(&sim, 0, 1).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(Raw::identified(&sim, 0, 1).await);
    }
    assert_eq!(within(oldest.end()).await, Next::Dropped);
    let books = sim.control.books();
    let sessions = &books.shards[&0].sessions;
    assert_eq!(sessions.iter().filter(|session| session.connected).count(), 4);
    assert_eq!(sessions.len(), 16);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_at_once_and_may_resume() {
    let sim = Sim::start(Config { guilds: 0, ..Config::default() }).await;
    let mut stuck = Raw::identified(&sim, 0, 1).await;
    // Long names fill the socket's buffers sooner.
    let command = "x".repeat(4_000);
    let cuts = || sim.control.books().shards[&0].cuts;
    let mut sent = 0;
    while cuts() == 0 {
        for _ in 0..500 {
            sim.control.interaction(Place::Dm, &command).await.unwrap();
        }
        sent += 500;
        assert!(sent < 50_000, "what waits for a socket is bounded");
    }
    assert!(sim.control.books().connected().is_empty());
    let mut read = 0;
    while let Next::Payload(_) = within(stuck.next()).await {
        read += 1;
    }
    assert!(read < sent / 2, "{read} of {sent} were written: the queue was not thrown away");
    assert!(!sim.control.books().shards[&0].newest_session().unwrap().ended);
}
