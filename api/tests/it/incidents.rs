//! What the manager tells of shards is in the history, once, whoever is away meanwhile.

use std::fs;

use serde_json::{Value, json};
use shardmeter_access::testing::{Authority, Files, Pair};
use shardmeter_api::{Config, ManagerConfig, events::Heard};
use shardmeter_process::testing::{eventually, is, soon, until};
use sqlx::Connection as _;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::{
    backend::{Backend, Database, Postgres, on_both},
    manager::{Log, Manager},
    server::{Server, config},
};

on_both!(incidents_are_stored_once_whoever_is_restarted, what_the_manager_forgot_is_a_gap);

const LOST: &str = "api_incidents_lost_total";

/// All of shard 0's history, oldest first.
async fn history(server: &Server) -> Vec<Value> {
    let (mut all, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/shards/0/history?limit=1000{before}");
        let mut page = server.json(&path).await;
        all.extend(page["incidents"].as_array().unwrap().iter().cloned());
        match page["next_before"].take() {
            Value::Null => break,
            next => before = format!("&before={next}"),
        }
    }
    all.reverse();
    all
}

/// Waits until the history has so many incidents: kinds and revisions.
pub(crate) async fn recorded(server: &Server, many: usize) -> Vec<(String, u64)> {
    let recorded = until("the history", async || {
        let history = history(server).await;
        let (recorded, last) = (history.len(), history.last());
        if recorded < many { Err(format!("{recorded} of {many}: {last:?}")) } else { Ok(history) }
    });
    let told = |incident: &Value| {
        let kind = incident["kind"].as_str().unwrap().to_owned();
        (kind, incident["revision"].as_u64().unwrap())
    };
    recorded.await.iter().map(told).collect()
}

fn disconnected(revisions: impl Iterator<Item = u64>) -> Vec<(String, u64)> {
    revisions.map(|revision| ("disconnected".to_owned(), revision)).collect()
}

async fn incidents_are_stored_once_whoever_is_restarted(backend: Backend) {
    let manager = Manager::start(1).await;
    let (addr, log) = (manager.addr, manager.log.clone());
    let mut server = Server::start_beside(backend, &manager).await;
    manager.until_followed(1).await;
    log.happens(3);
    assert_eq!(recorded(&server, 3).await, disconnected(1..=3));
    let first = history(&server).await.remove(0);
    let expected = json!({
        "id": first["id"], "epoch": "first", "revision": 1, "at": "2023-11-14T22:13:21Z", "shard_id": 0,
        "kind": "disconnected", "instance": "00ff", "reason": "stream_broke", "count": 1,
    });
    assert_eq!(first, expected);

    // The manager is restarted, and something happens before it is followed again.
    manager.stop().await;
    log.happens(2);
    let manager = Manager::start_after(addr, 1, log.clone()).await;
    assert_eq!(recorded(&server, 5).await, disconnected(1..=5));

    // So is the api.
    let database = server.database.take().unwrap();
    server.stop().await;
    log.happens(4);
    let config = Config {
        database_url: database.url(),
        manager: ManagerConfig::at(manager.endpoint()),
        ..config()
    };
    let server = Server::start_with(config).await;
    server.wait_until_ready().await;
    assert_eq!(recorded(&server, 9).await, disconnected(1..=9));
    let asked: Vec<_> =
        log.kept().asked.iter().map(|(epoch, revision, _)| (epoch.clone(), *revision)).collect();
    let first = |revision| ("first".to_owned(), revision);
    assert_eq!(asked, [(String::new(), 0), first(3), first(5)]);
    assert_eq!(server.value(LOST).await, 0.0);
    server.stop().await;
    manager.stop().await;
}

async fn what_the_manager_forgot_is_a_gap(backend: Backend) {
    let manager = Manager::start(1).await;
    let (addr, log) = (manager.addr, manager.log.clone());
    let server = Server::start_beside(backend, &manager).await;
    manager.until_followed(1).await;
    log.happens(2);
    recorded(&server, 2).await;
    manager.stop().await;
    log.happens(5);
    log.forget();
    let manager = Manager::start_after(addr, 1, log.clone()).await;
    recorded(&server, 3).await;
    log.happens(1);
    let told = recorded(&server, 4).await;
    assert_eq!(told[2..], [("gap".to_owned(), 7), ("disconnected".to_owned(), 8)]);
    assert_eq!(history(&server).await[2]["count"], 5);
    assert_eq!(server.value(LOST).await, 5.0);

    // Another manager, which knows nothing of before.
    manager.stop().await;
    let other = Log::new("other");
    other.happens(3);
    let manager = Manager::start_after(addr, 1, other.clone()).await;
    recorded(&server, 5).await;
    other.happens(1);
    let told = recorded(&server, 6).await;
    assert_eq!(told[4..], [("gap".to_owned(), 3), ("disconnected".to_owned(), 4)]);
    assert_eq!(server.value(LOST).await, 6.0, "how many are lost with the other is not known");
    server.stop().await;
    manager.stop().await;
}

/// Its file is gone, and what happened since the begin is asked of the manager, whether or not more happens.
#[tokio::test]
async fn an_sqlite_file_that_was_deleted_has_the_incidents_again() {
    let manager = Manager::start(1).await;
    let log = manager.log.clone();
    let server = Server::start_beside(Backend::Sqlite, &manager).await;
    manager.until_followed(1).await;
    log.happens(3);
    assert_eq!(recorded(&server, 3).await, disconnected(1..=3));
    let Some(Database::Sqlite(folder)) = &server.database else { unreachable!() };
    for more in [0, 2] {
        fs::remove_file(folder.path().join("api.db")).unwrap();
        server.wait_for_readiness(reqwest::StatusCode::SERVICE_UNAVAILABLE).await;
        log.happens(more);
        server.wait_until_ready().await;
        assert_eq!(recorded(&server, 3 + more as usize).await, disconnected(1..=3 + more));
    }
    assert_eq!(server.value(LOST).await, 0.0);
    server.stop().await;
    manager.stop().await;
}

/// As by a dump of an earlier time.
#[tokio::test]
async fn a_postgresql_that_was_put_back_has_the_incidents_again_or_a_gap() {
    let manager = Manager::start(1).await;
    let log = manager.log.clone();
    let server = Server::start_beside(Backend::Postgres, &manager).await;
    let mut live = server.events.subscribe(None, None);
    manager.until_followed(1).await;
    log.happens(10);
    assert_eq!(recorded(&server, 10).await, disconnected(1..=10));
    let url = server.database.as_ref().unwrap().url();
    let mut restore = sqlx::AnyConnection::connect(url.expose()).await.unwrap();
    let mut put_back = async || {
        let earlier = "DELETE FROM incidents WHERE revision > 4; UPDATE position SET revision = 4";
        sqlx::raw_sql(earlier).execute(&mut restore).await.unwrap();
    };
    put_back().await;
    assert_eq!(recorded(&server, 10).await, disconnected(1..=10));
    put_back().await;
    log.happens(1);
    assert_eq!(recorded(&server, 11).await, disconnected(1..=11));
    assert_eq!(server.value(LOST).await, 0.0);
    log.forget();
    put_back().await;
    recorded(&server, 5).await;
    assert_eq!(server.value(LOST).await, 7.0);
    log.happens(1);
    let told = recorded(&server, 6).await;
    assert_eq!(
        told[3..],
        [("disconnected".to_owned(), 4), ("gap".to_owned(), 11), ("disconnected".to_owned(), 12)]
    );

    // It was told live once, all the same.
    let mut heard = Vec::new();
    while !heard.last().is_some_and(|event: &String| event.contains("revision: 12")) {
        let Heard::Events(passage) = soon("live", live.next()).await.unwrap() else { continue };
        heard.extend(passage.events().map(|event| format!("{event:?}")));
    }
    assert_eq!(heard.len(), 12, "{heard:?}");
    server.stop().await;
    manager.stop().await;
}

#[tokio::test]
async fn what_happens_before_postgresql_is_there_is_stored() {
    let manager = Manager::start(1).await;
    let log = manager.log.clone();
    log.happens(2);
    log.forget();
    log.happens(3);
    let mut postgres = Postgres::prepare().await;
    let config = Config {
        database_url: postgres.url().into(),
        manager: ManagerConfig::at(manager.endpoint()),
        ..config()
    };
    let server = Server::start_with(config).await;
    server.wait_for_readiness(reqwest::StatusCode::SERVICE_UNAVAILABLE).await;
    log.happens(2);
    postgres.resume().await;
    server.wait_until_ready().await;
    assert_eq!(recorded(&server, 5).await, disconnected(3..=7));
    log.happens(1);
    assert_eq!(recorded(&server, 6).await, disconnected(3..=8));
    assert_eq!(server.value(LOST).await, 0.0);
    server.stop().await;
    manager.stop().await;
}

#[tokio::test]
async fn while_postgresql_is_away_the_manager_keeps_what_happens() {
    // Long ones, and more than wait here and are on the way.
    const MANY: u64 = 2_500;
    let instance = "00ff".repeat(1_000);
    let manager = Manager::start(1).await;
    let log = manager.log.clone();
    let mut server = Server::start_beside(Backend::Postgres, &manager).await;
    let Some(Database::Postgres(mut postgres)) = server.database.take() else { unreachable!() };
    manager.until_followed(1).await;
    log.happens(10);
    recorded(&server, 10).await;
    postgres.stop().await;
    log.happens_to(&instance, MANY - 10);
    eventually("it is read", || log.kept().told >= 1_000).await;
    server.wait_for_readiness(reqwest::StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(log.kept().told < MANY, "it is read, wherever that goes");
    postgres.resume().await;
    server.wait_until_ready().await;
    // All of the history is much to ask for again and again.
    until("the newest", async || {
        let page = server.json("/api/v1/shards/0/history?limit=1").await;
        is(page["incidents"][0]["revision"].as_u64().unwrap(), MANY)
    })
    .await;
    assert_eq!(recorded(&server, MANY as usize).await, disconnected(1..=MANY));
    assert_eq!(server.value(LOST).await, 0.0);
    assert_eq!(log.kept().asked.len(), 1, "the stream never ended");
    server.stop().await;
    manager.stop().await;
}

#[tokio::test]
async fn it_says_who_it_is_by_a_token_that_may_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "old\n").unwrap();
    let manager = Manager::start(1).await;
    let (addr, log) = (manager.addr, manager.log.clone());
    let config = Config {
        manager: ManagerConfig {
            token_file: Some(token.clone()),
            ..ManagerConfig::at(manager.endpoint())
        },
        ..config()
    };
    let server = Server::start_as(Backend::Sqlite, config).await;
    manager.until_followed(1).await;
    fs::write(&token, "new\n").unwrap();
    manager.stop().await;
    let manager = Manager::start_after(addr, 1, log.clone()).await;
    manager.until_followed(2).await;
    let said: Vec<_> = log.kept().asked.iter().map(|(_, _, said)| said.clone().unwrap()).collect();
    assert_eq!(said, ["Bearer old", "Bearer new"]);
    server.stop().await;
    manager.stop().await;
}

#[tokio::test]
async fn a_manager_with_tls_is_followed_by_who_has_a_certificate() {
    let authority = Authority::new();
    let Pair { cert, key } = authority.server();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(authority.pem()));
    let manager = Manager::start_secured(tls).await;
    let files = Files::new(&authority.server(), None);
    let Pair { cert, key } = authority.client("an api");
    let secured = ManagerConfig {
        ca_cert: Some(files.put("ca.pem", &authority.pem())),
        client_cert: Some(files.put("client.pem", &cert)),
        client_key: Some(files.put("client.key", &key)),
        ..ManagerConfig::at(format!("https://localhost:{}", manager.addr.port()))
    };
    let without = ManagerConfig { client_cert: None, client_key: None, ..secured.clone() };
    let stranger = files.put("stranger.pem", &Authority::new().pem());
    let of_stranger = ManagerConfig { ca_cert: Some(stranger), ..secured.clone() };
    let start = |manager| Server::start_as(Backend::Sqlite, Config { manager, ..config() });
    for config in [without, of_stranger] {
        let server = start(config).await;
        assert_eq!(server.json("/readyz").await["manager"], "down");
        server.stop().await;
    }
    assert!(manager.log.kept().asked.is_empty());
    let server = start(secured).await;
    manager.until_followed(1).await;
    manager.log.happens(2);
    assert_eq!(recorded(&server, 2).await, disconnected(1..=2));
    assert_eq!(server.json("/readyz").await["manager"], "up");
    server.stop().await;
    manager.stop().await;
}

#[tokio::test]
async fn a_manager_that_hangs_is_down_until_it_goes_on() {
    let manager = Manager::start(3).await;
    let server = Server::start_beside(Backend::Sqlite, &manager).await;
    let is_said = async |state: &str| {
        until(state, async || is(server.json("/readyz").await["manager"].take(), json!(state)))
            .await;
    };
    for _twice in 0..2 {
        is_said("up").await;
        assert_eq!(server.value("manager_connection_status").await, 1.0);
        manager.log.set(|kept| kept.hangs = true);
        is_said("down").await;
        assert_eq!(server.value("manager_connection_status").await, 0.0);
        let shards = server.json("/api/v1/shards").await;
        assert_eq!(shards["shards"].as_array().unwrap().len(), 3, "as they were: {shards}");
        manager.log.set(|kept| kept.hangs = false);
    }
    is_said("up").await;
    server.stop().await;
    manager.stop().await;
}
