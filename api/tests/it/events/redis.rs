//! Events and settings over a Redis that goes and comes.

use std::time::Duration;

use serde_json::{Value, json};
use shardmeter_api::{
    Config,
    store::{Expected, SettingsChange},
};
use shardmeter_process::testing::{is, until};
use shardmeter_proto::events::{EVENTS_CHANNEL, Event, SETTINGS_KEY};
use shardmeter_pubsub::testing::RedisServer;
use tokio::time::Instant;

use super::{Client, eventually, joined};
use crate::{
    backend::{Backend, Database, on_both},
    server::{Server, no_manager},
    store,
};

fn redis_status(connection: &str) -> String {
    format!("redis_connection_status{{connection_type=\"{connection}\"}}")
}

async fn until_connected(server: &Server, up: bool) {
    for connection in ["publisher", "subscriber"] {
        eventually(server, &redis_status(connection), f64::from(u8::from(up))).await;
    }
}

/// An api with a Redis and a database.
async fn on_redis(backend: Backend, redis: &RedisServer) -> Server {
    let database = Database::start(backend).await;
    let redis_url = Some(redis.url().into());
    let config = Config { database_url: database.url(), redis_url, ..no_manager() };
    let mut server = Server::start_with(config).await;
    server.database = Some(database);
    server.wait_until_ready().await;
    server
}

fn message(event: &Event) -> String {
    serde_json::to_string(event).unwrap()
}

on_both!(
    events_from_redis_are_told_and_settings_go_there,
    a_redis_that_goes_and_comes_blocks_nobody_and_learns_all_settings,
);

async fn put_settings(server: &Server, guild: u64, disabled: &[&str]) -> Duration {
    let new = json!({ "disabled_commands": disabled });
    let began = Instant::now();
    let path = format!("/api/v1/guilds/{guild}/settings");
    let put = server.put(&path, &new).header("If-Match", "*").send().await.unwrap();
    assert_eq!(put.status(), 200);
    began.elapsed()
}

/// Waits until Redis has these commands of a guild as disabled.
async fn kept(redis: &RedisServer, guild: u64, disabled: &[&str]) {
    until("the settings are kept", async || {
        let kept: Option<String> = redis.ask(&["HGET", SETTINGS_KEY, &guild.to_string()]).await;
        let kept: Value = kept.map_or(Value::Null, |json| serde_json::from_str(&json).unwrap());
        is(&kept["disabled_commands"], &json!(disabled)).map(drop)
    })
    .await;
}

async fn events_from_redis_are_told_and_settings_go_there(backend: Backend) {
    let redis = RedisServer::start().await;
    let server = on_redis(backend, &redis).await;
    until_connected(&server, true).await;
    assert_eq!(server.json("/readyz").await["events"], "redis");
    let mut client = Client::connected(&server, "", None).await;
    let told: u64 = redis.ask(&["PUBLISH", EVENTS_CHANNEL, &message(&joined(5))]).await;
    assert_eq!(told, 1);
    client.hears(&joined(5)).await;
    let delivered = "redis_pubsub_messages_delivered_total{event_type=\"guild_joined\"}";
    eventually(&server, delivered, 1.0).await;

    // Settings: one more to listen, so that two are told.
    let other = on_redis(Backend::Sqlite, &redis).await;
    until_connected(&other, true).await;
    let mut others = Client::connected(&other, "?guild_id=9", None).await;
    put_settings(&server, 9, &["ping"]).await;
    let told = client.next().await.unwrap();
    assert_eq!(told.data["disabled_commands"], json!(["ping"]));
    assert_eq!(others.next().await.unwrap().data, told.data);
    kept(&redis, 9, &["ping"]).await;
    let settings = |family: &str| {
        format!("redis_pubsub_messages_{family}_total{{event_type=\"guild_settings_updated\"}}")
    };
    eventually(&server, &settings("published"), 1.0).await;
    eventually(&server, &settings("delivered"), 2.0).await;
    eventually(&other, &settings("delivered"), 1.0).await;
    // Its own came back over Redis, and is not told twice.
    let () = redis.ask(&["PUBLISH", EVENTS_CHANNEL, &message(&joined(6))]).await;
    client.hears(&joined(6)).await;
    other.stop().await;
    server.stop().await;
}

async fn a_redis_that_goes_and_comes_blocks_nobody_and_learns_all_settings(backend: Backend) {
    let mut redis = RedisServer::start().await;
    let server = on_redis(backend, &redis).await;
    until_connected(&server, true).await;
    put_settings(&server, 1, &["ping"]).await;
    put_settings(&server, 2, &["ping"]).await;
    kept(&redis, 2, &["ping"]).await;
    let mut client = Client::connected(&server, "", None).await;

    redis.kill();
    until_connected(&server, false).await;
    let readiness = server.json("/readyz").await;
    assert_eq!((&readiness["status"], &readiness["events"]), (&json!("ok"), &json!("down")));
    let took = put_settings(&server, 2, &["stats"]).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let told = client.next().await.unwrap();
    let disabled = &told.data["disabled_commands"];
    assert_eq!(*disabled, json!(["stats"]), "those who listen here hear of it all the same");

    redis.start_again().await;
    until_connected(&server, true).await;
    client.hears_of_a_gap().await;
    kept(&redis, 2, &["stats"]).await;
    kept(&redis, 1, &["ping"]).await;
    let () = redis.ask(&["PUBLISH", EVENTS_CHANNEL, &message(&joined(7))]).await;
    client.hears(&joined(7)).await;
    server.stop().await;
}

/// Bots obey what Redis has: of a database of before, too.
#[tokio::test]
async fn a_change_wins_over_what_redis_has_of_a_database_that_was_lost() {
    let redis = RedisServer::start().await;
    let lost = on_redis(Backend::Sqlite, &redis).await;
    for _ in 0..3 {
        put_settings(&lost, 1, &["ping"]).await;
    }
    kept(&redis, 1, &["ping"]).await;
    lost.stop().await;
    let server = on_redis(Backend::Sqlite, &redis).await;
    put_settings(&server, 1, &["stats"]).await;
    kept(&redis, 1, &["stats"]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_redis_that_is_emptied_learns_all_settings() {
    let redis = RedisServer::start().await;
    let server = on_redis(Backend::Sqlite, &redis).await;
    put_settings(&server, 1, &["ping"]).await;
    put_settings(&server, 2, &["ping"]).await;
    kept(&redis, 2, &["ping"]).await;
    let () = redis.ask(&["FLUSHALL"]).await;
    put_settings(&server, 2, &["stats"]).await;
    kept(&redis, 1, &["ping"]).await;
    kept(&redis, 2, &["stats"]).await;
    server.stop().await;
}

/// Bots obey what Redis has, which is newer.
#[tokio::test]
async fn a_database_that_was_put_back_is_found_out_when_it_comes_back() {
    let database = Database::start(Backend::Postgres).await;
    let change =
        SettingsChange { disabled_commands: ["ping".to_owned()].into(), command_prefix: None };
    store::before(&database, async |store| {
        store.change_settings(1, &change, Expected::Any).await.unwrap();
    })
    .await;
    let mut server = Server::start_over(database, Backend::Postgres, no_manager()).await;
    let Some(Database::Postgres(mut postgres)) = server.database.take() else { unreachable!() };
    let redis = server.redis.as_ref().unwrap();
    // So all was told that is told at the start.
    kept(redis, 1, &["ping"]).await;
    let older = "redis_pubsub_messages_dropped_total{event_type=\"guild_settings_updated\",reason=\"older\"}";
    let later = r#"{ "revision": 9000000000000000, "disabled_commands": ["stats"] }"#;
    let () = redis.ask(&["HSET", SETTINGS_KEY, "1", later]).await;
    postgres.stop().await;
    server.wait_for_readiness(reqwest::StatusCode::SERVICE_UNAVAILABLE).await;
    postgres.resume().await;
    server.wait_until_ready().await;
    until("it is told", async || {
        let told = server.value(older).await;
        if told < 1.0 { Err(told) } else { Ok(()) }
    })
    .await;
    kept(redis, 1, &["stats"]).await;
    server.stop().await;
}
