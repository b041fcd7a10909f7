//! Connections whose other end is gone without a word: each side notices within 20 s (design section 3), and the shard
//! comes back as the same instance with the same counts once it can.

use std::time::Duration;

use serde_json::Value;
use shardmeter_process::testing::until;
use tokio::time::{Instant, timeout_at};

use crate::{
    process::{ManagerProcess, Scratch, ShardProcess, get},
    proxy::Proxy,
    scrape::{self, series},
    system::{Discord, confirmed, named, same},
};

const NOTICED_WITHIN: Duration = Duration::from_secs(20);

/// The default. What is tested here is not that a silent shard is thrown out after it.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// What a shard's log says when it has lost its manager.
const LOST: &str = "no connection to the manager";

/// A shard that reports to a manager through a proxy. No commands are under way.
struct Pair {
    discord: Discord,
    manager: ManagerProcess,
    proxy: Proxy,
    shard: ShardProcess,
    _scratch: Scratch,
}

impl Pair {
    async fn start() -> Self {
        let scratch = Scratch::new("half-open");
        let discord = Discord::start(1, 5, 100.0).await;
        let manager = ManagerProcess::start(scratch.path(), STALE_AFTER).await;
        let proxy = Proxy::start(manager.grpc).await;
        let shard = ShardProcess::start(scratch.path(), &discord, 0, 1, proxy.addr);
        let pair = Self { discord, manager, proxy, shard, _scratch: scratch };
        pair.counts().await;
        pair
    }

    /// Waits until the manager knows of some more commands, and of all there were; then none is under way.
    async fn counts(&self) {
        let discord = &self.discord.control;
        let before = discord.books().confirmed();
        discord.resume();
        discord.until(|books| books.confirmed() > before + 20).await;
        discord.pause();
        until("the page equals the books", || async {
            let page = scrape::parse(&self.manager.page().await?);
            same(&confirmed(&discord.books()), &named(&page, "commands_executed_total"))
        })
        .await;
        assert_eq!(self.streams().await, Ok((1.0, vec![true])), "one stream of one instance");
    }

    /// How many streams the manager has, and of which of its instances it has one.
    async fn streams(&self) -> Result<(f64, Vec<bool>), String> {
        let page = scrape::parse(&self.manager.page().await?);
        let streams = page[&series("shardmeter_manager_streams", [])];
        let shards: Value =
            serde_json::from_str(&get(&self.manager.url("/api/v1/shards")).await?).unwrap();
        let instances = shards["shards"][0]["instances"].as_array().unwrap().iter();
        Ok((streams, instances.map(|instance| instance["connected"].as_bool().unwrap()).collect()))
    }

    async fn manager_notices(&self) {
        until("the manager notices", || async {
            let streams = self.streams().await?;
            if streams == (0.0, vec![false]) { Ok(()) } else { Err(format!("{streams:?}")) }
        })
        .await;
    }

    async fn shard_notices(&self) {
        self.shard.process.says(LOST).await;
    }
}

/// Waits for what must come before `deadline`.
async fn by(deadline: Instant, what: impl Future<Output = ()>) {
    assert!(timeout_at(deadline, what).await.is_ok(), "not noticed within {NOTICED_WITHIN:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_notice_a_line_that_swallows_everything() {
    let pair = Pair::start().await;
    pair.proxy.swallow();
    let deadline = Instant::now() + NOTICED_WITHIN;
    by(deadline, async { tokio::join!(pair.manager_notices(), pair.shard_notices()).0 }).await;
    pair.proxy.heal();
    pair.counts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manager_notices_a_shard_that_stopped() {
    let mut pair = Pair::start().await;
    pair.shard.process.signal("STOP");
    by(Instant::now() + NOTICED_WITHIN, pair.manager_notices()).await;
    pair.shard.process.signal("CONT");
    pair.discord.control.until_connected(1).await;
    pair.counts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_notices_a_manager_that_stopped() {
    let mut pair = Pair::start().await;
    pair.manager.process.signal("STOP");
    by(Instant::now() + NOTICED_WITHIN, pair.shard_notices()).await;
    pair.manager.process.signal("CONT");
    pair.counts().await;
}
