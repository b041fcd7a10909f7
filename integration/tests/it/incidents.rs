//! The history of a shard as the api tells it, while a real bot, the manager and the api are killed, stopped and started:
//! what happened to the shard is there once, and what happened to the others is not.

use std::{path::Path, time::Duration};

use serde_json::Value;
use shardmeter_api::Api;
use shardmeter_process::{ManagerConfig, testing::until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    process::{ManagerProcess, Scratch, ShardProcess, get},
    system::Discord,
};

/// Longer than a bot takes to come back to a manager that was killed, on a machine that has much to do.
const STALE_AFTER: Duration = Duration::from_secs(20);

struct RunningApi {
    url: String,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl RunningApi {
    /// On the database in `folder`.
    async fn start(folder: &Path, manager: &ManagerProcess) -> Self {
        let api = Api::build(shardmeter_api::Config {
            addr: ([127, 0, 0, 1], 0).into(),
            database_url: format!("sqlite://{}/api.db", folder.display()).into(),
            manager: ManagerConfig::at(format!("http://{}", manager.grpc)),
            ..shardmeter_api::Config::default()
        });
        let api = api.await.unwrap();
        let (url, stop) = (format!("http://{}", api.addr()), CancellationToken::new());
        let stopped = stop.clone().cancelled_owned();
        let running = tokio::spawn(async move { api.run(stopped).await.unwrap() });
        Self { url, stop, running }
    }

    /// Waits until so many incidents of shard 0 are known: what they are, oldest first.
    async fn history(&self, many: usize) -> Vec<String> {
        let url = format!("{}/api/v1/shards/0/history", self.url);
        let told = until("the history", || async {
            let page: Value = serde_json::from_str(&get(&url).await?).unwrap();
            let incidents = page["incidents"].as_array().unwrap();
            let told = |incident: &Value| {
                let kind = incident["kind"].as_str().unwrap();
                let count = incident["count"].as_u64().unwrap();
                match incident["reason"].as_str() {
                    Some(reason) => format!("{kind}: {reason}"),
                    None if count > 1 => format!("{kind} {count} times"),
                    None => kind.to_owned(),
                }
            };
            let all: Vec<_> = incidents.iter().rev().map(told).collect();
            if all.len() >= many { Ok(all) } else { Err(format!("{all:?}")) }
        });
        told.await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// How often the shard reported, as the manager says it.
async fn reports(manager: &ManagerProcess) -> Result<String, String> {
    let page = manager.page().await?;
    let line = page.lines().find(|line| line.starts_with("shard_reports_total"));
    line.map(str::to_owned).ok_or_else(|| page.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shards_history_is_its_own_whoever_is_restarted() {
    let scratch = Scratch::new("incidents");
    // A heartbeat that a busy machine keeps waiting must not become part of the history.
    let discord = Discord::start_with(1, 10, 5.0, Duration::from_secs(20)).await;
    let mut manager = ManagerProcess::start(scratch.path(), STALE_AFTER).await;
    let api = RunningApi::start(scratch.path(), &manager).await;
    // What was before is not of its history.
    until("the api follows", || async {
        let page = manager.page().await?;
        let follows = page.lines().any(|line| line == "shardmeter_manager_watchers 1");
        if follows { Ok(()) } else { Err(page) }
    })
    .await;
    let mut shard = ShardProcess::start(scratch.path(), &discord, 0, 1, manager.grpc);
    let mut expected = vec!["connected"];
    assert_eq!(api.history(1).await, expected);

    // It is counted on, and so is connected, wherever the manager was meanwhile.
    for _ in 0..2 {
        let before = until("it reports", || reports(&manager)).await;
        manager.process.kill().await;
        manager.start_again();
        let more = || async {
            let now = reports(&manager).await?;
            if now == before { Err(now) } else { Ok(()) }
        };
        until("it reports again", more).await;
    }
    shard.process.kill().await;
    expected.push("disconnected: stream_broke");
    assert_eq!(api.history(2).await, expected);

    // Back while the api is down.
    api.stop().await;
    shard.start_again();
    until("the shard is back", || async {
        let shards = get(&manager.url("/api/v1/shards")).await?;
        if shards.contains("\"connected\":true") { Ok(()) } else { Err(shards) }
    })
    .await;
    let api = RunningApi::start(scratch.path(), &manager).await;
    expected.push("connected");
    assert_eq!(api.history(3).await, expected);

    // A clean end saves the session, which is resumed.
    shard.process.terminate().await;
    shard.start_again();
    expected.extend(["disconnected: goodbye", "connected", "resumed"]);
    assert_eq!(api.history(6).await, expected);
    manager.process.terminate().await;
    manager.start_again();
    manager.process.says("manager listens").await;
    shard.process.terminate().await;
    expected.extend(["disconnected: goodbye", "stale"]);
    assert_eq!(api.history(8).await, expected);
    api.stop().await;
    discord.stop().await;
}
