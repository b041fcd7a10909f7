//! Those who ask for the list of shards.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use reqwest::Client;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Cost, Who, server};
use crate::{grpc::Fleet, http, server::Server};

/// Connections that ask, each again as soon as it is answered.
pub(super) const AT_A_TIME: usize = 8;

/// How long the api may take to know all shards.
const KNOWS_WITHIN: Duration = Duration::from_secs(30);

/// A manager with shards, an api that asks it, and the floor with the same list.
pub(super) struct Questions {
    pub(super) list_bytes: usize,
    servers: [(Who, Server, String); 2],
    _manager: Server,
    /// Whose streams stay open.
    _fleet: Fleet,
    _folder: TempDir,
}

impl Questions {
    pub(super) async fn new(manager: &Path, api: &Path, shards: u32) -> anyhow::Result<Self> {
        let manager = Server::manager(manager, None).await?;
        let grpc = manager.grpc.clone().context("it has no gRPC port")?;
        let fleet = Fleet::open(&grpc, shards).await?;
        let (api, folder) = server(api, None, Some(&format!("http://{grpc}"))).await?;
        let url = format!("{}/api/v1/shards", api.http);
        let list = until_known(&url, shards).await?;
        let floor = Server::floor().await?;
        let page = format!("{}/pages/plain", floor.http);
        http::client()?.put(page).body(list.clone()).send().await?.error_for_status()?;
        let of_floor = format!("{}/metrics", floor.http);
        Ok(Self {
            list_bytes: list.len(),
            servers: [(Who::Floor, floor, of_floor), (Who::Api, api, url)],
            _manager: manager,
            _fleet: fleet,
            _folder: folder,
        })
    }

    /// Each is asked so many times.
    pub(super) async fn round(&mut self, times: usize) -> anyhow::Result<Vec<Cost>> {
        let mut costs = Vec::new();
        for (who, server, url) in &self.servers {
            let cost = ask(*who, server, url, times / AT_A_TIME).await;
            costs.push(cost.with_context(|| who.name())?);
        }
        Ok(costs)
    }
}

async fn until_known(url: &str, shards: u32) -> anyhow::Result<Bytes> {
    let (client, deadline) = (http::client()?, Instant::now() + KNOWS_WITHIN);
    loop {
        let list = client.get(url).send().await?.bytes().await?;
        let known = memchr::memmem::find_iter(&list, b"\"shard_id\":").count();
        if known >= shards as usize {
            return Ok(list);
        }
        ensure!(Instant::now() < deadline, "the api knows {known} shards");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn ask(who: Who, server: &Server, url: &str, times: usize) -> anyhow::Result<Cost> {
    let idle = server.rss()?.saturating_sub(server.rss_at_start);
    let before = server.cpu.settled().await?;
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..AT_A_TIME {
        asking.spawn(ask_on_one(http::client()?, url.to_owned(), times));
    }
    let mut latencies = Vec::new();
    while let Some(done) = asking.join_next().await {
        latencies.extend(done??);
    }
    let wall = began.elapsed();
    let cpu = server.cpu.settled().await?.saturating_sub(before);
    let after = server.rss()?.saturating_sub(server.rss_at_start);
    Ok(Cost { who, cpu, wall, times: latencies.len(), latencies, grown: [idle, after] })
}

async fn ask_on_one(client: Client, url: String, times: usize) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(times);
    for _ in 0..times {
        let sent = Instant::now();
        let mut answer = client.get(&url).send().await?.error_for_status()?;
        while answer.chunk().await?.is_some() {}
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}
