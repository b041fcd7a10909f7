//! What the api says of shards, and of which serves a guild.

use std::{
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use shardmeter_api::{
    Config, ManagerConfig,
    store::{Incident, Position, Presence},
};
use shardmeter_process::testing::{is, until};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

use crate::{
    backend::{Backend, Database, on_both},
    manager::Manager,
    server::{Server, config, no_manager, problem},
    store,
};

on_both!(a_guild_is_found_with_its_shard, a_history_is_read_in_pages_over_http);

const STATUS: &str = "manager_connection_status";

/// A shard with the time of which that is said.
fn dated(mut shard: Value) -> Value {
    shard["as_of"] = json!("2023-11-14T22:14:21Z");
    shard
}

#[tokio::test]
async fn shards_are_as_the_manager_says() {
    let manager = Manager::start(3).await;
    let server = Server::start_beside(Backend::Sqlite, &manager).await;
    let list = server.json("/api/v1/shards").await;
    let first = json!({
        "shard_id": 0, "state": "up", "last_report": "2023-11-14T22:14:20Z", "series": 3,
        "instances": [{
            "instance": "00ff", "transport": "grpc", "client": "test 1",
            "started_at": "2023-11-14T22:13:20Z", "last_report": "2023-11-14T22:14:20Z",
            "connected": true, "owns_gauges": true,
        }],
    });
    assert_eq!(list["as_of"], "2023-11-14T22:14:21Z");
    assert_eq!(list["shard_count"], 3);
    let states: Vec<_> =
        list["shards"].as_array().unwrap().iter().map(|shard| shard["state"].clone()).collect();
    assert_eq!(states, ["up", "stale", "never_seen"]);
    assert_eq!(list["shards"][0], first);
    assert_eq!(server.json("/api/v1/shards/0").await, dated(first));
    let last = json!({
        "shard_id": 2, "state": "never_seen", "last_report": null, "series": 3, "instances": [],
    });
    assert_eq!(server.json("/api/v1/shards/2").await, dated(last));
    problem(server.get("/api/v1/shards/3").send().await.unwrap(), 404, "not_found").await;
    for bad in ["x", "-1", "4294967296", "1.5"] {
        let answer = server.get(&format!("/api/v1/shards/{bad}")).send().await.unwrap();
        problem(answer, 400, "invalid").await;
    }
    server.stop().await;
    manager.stop().await;
}

#[tokio::test]
async fn however_many_ask_the_manager_is_asked_once_a_second() {
    let manager = Manager::start(2).await;
    let database = Database::start(Backend::Sqlite).await;
    let config = Config {
        manager: ManagerConfig::at(manager.endpoint()),
        database_url: database.url(),
        ..Config::default()
    };
    let server = Server::start_with(config).await;
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..200 {
        let request = server.get("/api/v1/shards").send();
        asking.spawn(async move { request.await.unwrap().status().as_u16() });
    }
    let statuses = asking.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200));
    let asked = manager.asked.load(Ordering::Relaxed);
    let seconds = u32::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!(asked <= seconds, "{asked} times in {seconds} s");
    server.stop().await;
    manager.stop().await;
}

#[tokio::test]
async fn without_a_manager_shards_are_as_they_were_last_known() {
    let manager = Manager::start(2).await;
    let addr = manager.addr;
    let server = Server::start_beside(Backend::Sqlite, &manager).await;
    assert_eq!(server.value(STATUS).await, 1.0);
    manager.stop().await;
    // It was asked for readiness.
    let known = server.json("/api/v1/shards").await;
    assert_eq!(known["shard_count"], 2);
    let ready = async || server.json("/readyz").await["manager"].clone();
    until("it is down", async || is(ready().await, "down")).await;
    assert_eq!(server.json("/api/v1/shards").await, known);
    for path in ["/api/v1/shards/0", "/api/v1/guilds/1"] {
        assert_eq!(server.json(path).await["as_of"], known["as_of"], "{path}");
    }
    assert_eq!(server.value(STATUS).await, 0.0);
    // One that takes connections and says nothing: who asks it waits in vain.
    let hung = TcpListener::bind(addr).await.unwrap();
    until("it is asked", async || {
        let asked = Instant::now();
        assert_eq!(server.value(STATUS).await, 0.0);
        let waited = asked.elapsed();
        if waited < Duration::from_secs(1) { Err(format!("{waited:?}")) } else { Ok(()) }
    })
    .await;
    drop(hung);
    let manager = Manager::start_on(addr, 5).await;
    let shard_count = async || server.json("/api/v1/shards").await["shard_count"].clone();
    until("it is back", async || is(shard_count().await, 5)).await;
    assert_eq!(ready().await, "up");
    assert_eq!(server.value(STATUS).await, 1.0);
    server.stop().await;
    manager.stop().await;
}

#[tokio::test]
async fn shards_that_were_never_known_are_said_to_be_so() {
    let server = Server::start(Backend::Sqlite).await;
    for path in ["/api/v1/shards", "/api/v1/shards/0", "/api/v1/guilds/1"] {
        let answer = server.get(path).send().await.unwrap();
        assert_eq!(answer.headers()["retry-after"], "1");
        problem(answer, 503, "manager_away").await;
    }
    assert_eq!(server.json("/readyz").await["manager"], "down");
    server.stop().await;
}

async fn a_guild_is_found_with_its_shard(backend: Backend) {
    let database = Database::start(backend).await;
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let joined = Presence { guild_id: 1, shard_id: 0, at, joined: true };
    store::before(&database, async |store| store::record(store, &[], &[joined]).await.unwrap())
        .await;
    let manager = Manager::start(3).await;
    let config = Config { manager: ManagerConfig::at(manager.endpoint()), ..config() };
    let server = Server::start_over(database, backend, config).await;
    // Discord's example: (197038439483310086 >> 22) % 3.
    let guild = server.json("/api/v1/guilds/197038439483310086").await;
    let shard = (197_038_439_483_310_086_u64 >> 22) % 3;
    assert_eq!((&guild["shard_id"], &guild["shard_count"]), (&json!(shard), &json!(3)));
    let alone = server.json(&format!("/api/v1/shards/{shard}")).await;
    assert_eq!(dated(guild["shard"].clone()), alone);
    assert_eq!(guild["as_of"], alone["as_of"]);
    assert_eq!((&guild["joined_at"], &guild["left_at"]), (&json!(null), &json!(null)));
    let guild = server.json("/api/v1/guilds/1").await;
    assert_eq!(guild["joined_at"], "2023-11-14T22:13:20Z");
    server.stop().await;
    manager.stop().await;
}

async fn a_history_is_read_in_pages_over_http(backend: Backend) {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let incident = |revision: u64| Incident {
        epoch: "e".into(),
        revision,
        at: start + Duration::from_secs(revision),
        shard_id: Some(3),
        kind: "stale".into(),
        instance: None,
        reason: None,
        count: 1,
    };
    let incidents: Vec<_> = (1..=10).map(incident).collect();
    let position = Position { epoch: "e".into(), revision: 10 };
    let database = Database::start(backend).await;
    store::before(&database, async |store| {
        crate::store::record_incidents(store, &incidents, &position).await;
    })
    .await;
    let server = Server::start_over(database, backend, no_manager()).await;
    let revisions = |page: &Value| -> Vec<u64> {
        let incidents = page["incidents"].as_array().unwrap();
        incidents.iter().map(|incident| incident["revision"].as_u64().unwrap()).collect()
    };
    let page = server.json("/api/v1/shards/3/history?limit=5").await;
    assert_eq!(revisions(&page), [10, 9, 8, 7, 6]);
    assert_eq!(page["incidents"][0]["at"], "2023-11-14T22:13:30Z");
    let next = page["next_before"].as_u64().unwrap();
    let page = server.json(&format!("/api/v1/shards/3/history?limit=5&before={next}")).await;
    assert_eq!(revisions(&page), [5, 4, 3, 2, 1]);
    assert_eq!(page["next_before"], json!(null), "exactly at the end");
    let since = "/api/v1/shards/3/history?since=2023-11-15T00:13:28%2B02:00";
    assert_eq!(revisions(&server.json(since).await), [10, 9, 8]);
    assert_eq!(revisions(&server.json("/api/v1/shards/4/history").await), [0; 0]);
    for bad in ["limit=0", "limit=1001", "limit=x", "before=0", "before=-1", "since=yesterday"] {
        let answer = server.get(&format!("/api/v1/shards/3/history?{bad}")).send().await.unwrap();
        problem(answer, 400, "invalid").await;
    }
    server.stop().await;
}
