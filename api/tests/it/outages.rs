//! The database is away, and comes back.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use shardmeter_process::testing::{is, until};
use sqlx::Connection as _;
use tokio::time::Instant;

use crate::{
    backend::{Backend, Database, Postgres, on_both},
    server::{Server, problem},
};

const SETTINGS: &str = "/api/v1/guilds/1/settings";

/// What is no outage but an answer.
const QUICK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn without_postgresql_every_answer_comes_soon_and_says_so_until_it_is_back() {
    let mut server = Server::start(Backend::Postgres).await;
    let Some(Database::Postgres(mut postgres)) = server.database.take() else { unreachable!() };
    let new = json!({ "disabled_commands": ["ping"] });
    let put = || server.put(SETTINGS, &new).header("If-Match", "*").send();
    assert_eq!(put().await.unwrap().status(), 200);

    for _twice in 0..2 {
        postgres.stop().await;
        for _ in 0..20 {
            let asked = Instant::now();
            let answer = server.get(SETTINGS).send().await.unwrap();
            assert!(asked.elapsed() < QUICK, "{:?}", asked.elapsed());
            assert_eq!(answer.headers()["retry-after"], "1");
            problem(answer, 503, "database_away").await;
        }
        problem(put().await.unwrap(), 503, "database_away").await;
        server.wait_for_readiness(StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(server.value("database_connection_status").await, 0.0);
        assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200);

        postgres.resume().await;
        server.wait_until_ready().await;
        assert_eq!(server.value("database_connection_status").await, 1.0);
        let settings = server.json(SETTINGS).await;
        assert_eq!(settings["disabled_commands"], json!(["ping"]));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_postgresql_that_hangs_is_away_too() {
    let mut server = Server::start(Backend::Postgres).await;
    let Some(Database::Postgres(postgres)) = server.database.take() else { unreachable!() };
    assert_eq!(server.get(SETTINGS).send().await.unwrap().status(), 200);
    let hung = postgres.hang();
    server.wait_for_readiness(StatusCode::SERVICE_UNAVAILABLE).await;
    let asked = Instant::now();
    problem(server.get(SETTINGS).send().await.unwrap(), 503, "database_away").await;
    assert!(asked.elapsed() < QUICK, "{:?}", asked.elapsed());
    postgres.go_on(&hung);
    server.wait_until_ready().await;
    assert_eq!(server.get(SETTINGS).send().await.unwrap().status(), 200);
    server.stop().await;
}

/// As a database elsewhere has it.
#[tokio::test]
async fn postgresql_is_reached_over_tls() {
    let mut postgres = Postgres::prepare().await;
    let signer = postgres.require_tls();
    postgres.resume().await;
    let url = postgres.url().replace("127.0.0.1", "localhost");
    let plain = Server::start_on(format!("{url}?sslmode=disable").into()).await;
    let secured = format!("{url}?sslmode=verify-full&sslrootcert={}", signer.display());
    let server = Server::start_on(secured.into()).await;
    server.wait_until_ready().await;
    assert_eq!(server.json(SETTINGS).await["revision"], 0);
    let refused = plain.get("/readyz").send().await.unwrap();
    assert_eq!(refused.status(), 503, "it takes nothing else");
    plain.stop().await;
    server.stop().await;
}

on_both!(who_waits_for_a_lock_gives_up);

/// What somebody does by hand to the database, say.
async fn who_waits_for_a_lock_gives_up(backend: Backend) {
    let server = Server::start(backend).await;
    let new = json!({ "disabled_commands": ["ping"] });
    let put = || server.put(SETTINGS, &new).header("If-Match", "*").send();
    assert_eq!(put().await.unwrap().status(), 200);
    let url = server.database.as_ref().unwrap().url();
    let mut other = sqlx::AnyConnection::connect(url.expose()).await.unwrap();
    let mut transaction = other.begin().await.unwrap();
    let write = sqlx::query("UPDATE guild_settings SET revision = 7");
    write.execute(&mut *transaction).await.unwrap();
    problem(put().await.unwrap(), 503, "database_away").await;
    let revision = async || server.json(SETTINGS).await["revision"].as_u64().unwrap();
    let before = revision().await;
    assert_ne!(before, 7, "who reads does not wait");
    transaction.commit().await.unwrap();
    assert_eq!(revision().await, 7);
    assert_eq!(put().await.unwrap().status(), 200);
    assert!(revision().await > before);
    server.stop().await;
}

#[tokio::test]
async fn the_api_starts_before_its_database() {
    let mut postgres = Postgres::prepare().await;
    let server = Server::start_on(postgres.url().into()).await;
    server.wait_for_readiness(StatusCode::SERVICE_UNAVAILABLE).await;
    problem(server.get(SETTINGS).send().await.unwrap(), 503, "database_away").await;
    postgres.resume().await;
    server.wait_until_ready().await;
    assert_eq!(server.json(SETTINGS).await["revision"], 0);
    server.stop().await;
}

#[tokio::test]
async fn an_sqlite_folder_that_is_not_there_is_waited_for() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("later");
    let url = format!("sqlite://{}/api.db", folder.display());
    let server = Server::start_on(url.into()).await;
    problem(server.get(SETTINGS).send().await.unwrap(), 503, "database_away").await;
    std::fs::create_dir(&folder).unwrap();
    until("the settings", async || is(server.get(SETTINGS).send().await.unwrap().status(), 200))
        .await;
    server.stop().await;
}

#[tokio::test]
async fn an_sqlite_file_that_is_deleted_is_noticed_and_made_anew() {
    let server = Server::start(Backend::Sqlite).await;
    let Some(Database::Sqlite(folder)) = &server.database else { unreachable!() };
    let new = json!({ "disabled_commands": ["ping"] });
    let put = || server.put(SETTINGS, &new).header("If-Match", "*").send();
    assert_eq!(put().await.unwrap().status(), 200);
    let path = folder.path().join("api.db");
    std::fs::remove_file(&path).unwrap();
    until("what was deleted is not shown any more", async || {
        let settings = server.get(SETTINGS).send().await.unwrap();
        is(settings.headers().get("etag").and_then(|etag| etag.to_str().ok()), Some("\"0\""))
            .map(drop)
    })
    .await;
    assert!(path.exists());
    assert_eq!(put().await.unwrap().status(), 200);
    server.stop().await;
}

/// As whoever begins anew does.
#[tokio::test]
async fn a_postgresql_that_was_emptied_gets_its_tables_again() {
    let server = Server::start(Backend::Postgres).await;
    let url = server.database.as_ref().unwrap().url();
    let mut other = sqlx::AnyConnection::connect(url.expose()).await.unwrap();
    let empty = sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    empty.execute(&mut other).await.unwrap();
    let new = json!({ "disabled_commands": ["ping"] });
    until("settings can be changed again", async || {
        let put = server.put(SETTINGS, &new).header("If-Match", "*").send().await.unwrap();
        is(put.status(), StatusCode::OK)
    })
    .await;
    server.stop().await;
}
