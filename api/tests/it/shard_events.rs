//! What the manager tells of shards, told live, whatever else is away; and what the log says of it.

use serde_json::json;
use shardmeter_api::{Config, ManagerConfig};
use shardmeter_process::testing::{eventually, soon};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

use crate::{
    backend::{Backend, Postgres},
    events::Client,
    incidents::recorded,
    manager::Manager,
    server::{Server, config},
};

#[tokio::test]
async fn what_happens_to_shards_before_the_database_is_there_is_told_live_and_once() {
    let manager = Manager::start(1).await;
    let log = manager.log.clone();
    log.happens(2);
    let mut postgres = Postgres::prepare().await;
    let config = Config {
        database_url: postgres.url().into(),
        manager: ManagerConfig::at(manager.endpoint()),
        ..config()
    };
    let server = Server::start_with(config).await;
    let mut all = Client::connected(&server, "", None).await;
    eventually("it is followed", || log.kept().asked.len() == 1).await;
    let mut hears = async |revision: u64| {
        let event = soon("an event", all.next()).await.unwrap();
        assert_eq!((&*event.name, &event.data["revision"]), ("shard_event", &json!(revision)));
    };
    log.happens(2);
    hears(3).await;
    hears(4).await;
    postgres.resume().await;
    server.wait_until_ready().await;
    assert_eq!(recorded(&server, 4).await.len(), 4);
    log.happens(1);
    hears(5).await;
    server.stop().await;
    manager.stop().await;
}

/// It is stored, but no news.
#[tokio::test]
async fn what_happened_before_a_new_database_is_not_told_live() {
    let manager = Manager::start(1).await;
    let log = manager.log.clone();
    log.happens(3);
    let config = Config { manager: ManagerConfig::at(manager.endpoint()), ..config() };
    let server = Server::start_as(Backend::Sqlite, config).await;
    assert_eq!(recorded(&server, 3).await.len(), 3);
    let mut all = Client::connected(&server, "", None).await;
    log.happens(1);
    let event = soon("an event", all.next()).await.unwrap();
    assert_eq!((&*event.name, &event.data["revision"]), ("shard_event", &json!(4)));
    assert!(event.id.ends_with("-1"), "the first that was ever told: {}", event.id);
    server.stop().await;
    manager.stop().await;
}

/// The api's binary, and its log.
struct Process {
    process: Child,
    log: NamedTempFile,
}

impl Process {
    fn start(environment: &[(&str, &str)]) -> Self {
        let log = NamedTempFile::new().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_shardmeter-api"))
            .env_clear()
            .envs(environment.iter().copied())
            .env("API_ADDR", "127.0.0.1:0")
            .env("RUST_LOG", "info")
            .stderr(log.reopen().unwrap())
            .stdout(log.reopen().unwrap())
            .kill_on_drop(true)
            .spawn();
        Self { process: process.unwrap(), log }
    }

    /// How many lines have these words.
    fn said(&self, words: &str) -> usize {
        let log = std::fs::read_to_string(self.log.path()).unwrap();
        log.lines().filter(|line| line.contains(words)).count()
    }
}

/// Each outage is tried again and again, and said once.
#[tokio::test]
async fn what_is_away_is_said_once_a_spell() {
    let manager = Manager::start(1).await;
    let log = manager.log.clone();
    let asked = |times: usize| {
        let log = log.clone();
        eventually("it is asked again", move || log.kept().asked.len() >= times)
    };
    log.set(|kept| kept.ends_at_once = true);
    let folder = tempfile::tempdir().unwrap();
    let later = folder.path().join("later");
    let mut api = Process::start(&[
        ("DATABASE_URL", &format!("sqlite://{}/api.db", later.display())),
        ("REDIS_URL", "redis://127.0.0.1:9"),
        ("MANAGER_ENDPOINT", &manager.endpoint()),
    ]);
    asked(5).await;
    let outages = [
        ("the manager does not tell what happens to shards", 1),
        ("the database is away", 1),
        // One connection that publishes, and one that subscribes.
        ("Redis is away", 2),
    ];
    let (follows, there) = ("follows what happens to shards", "the database is there");
    for (words, times) in outages.into_iter().chain([(follows, 0), (there, 0)]) {
        assert_eq!(api.said(words), times, "{words}");
    }

    std::fs::create_dir(&later).unwrap();
    eventually("the database", || api.said(there) == 1).await;
    log.set(|kept| kept.ends_at_once = false);
    log.happens(1);
    eventually("followed", || api.said(follows) == 1).await;
    for (words, times) in outages {
        assert_eq!(api.said(words), times, "{words}");
    }

    // Another spell.
    log.set(|kept| kept.ends_at_once = true);
    let before = log.kept().asked.len();
    let addr = manager.addr;
    manager.stop().await;
    let manager = Manager::start_after(addr, 1, log.clone()).await;
    asked(before + 3).await;
    assert_eq!((api.said(outages[0].0), api.said(follows)), (2, 1));
    api.process.kill().await.unwrap();
    manager.stop().await;
}
