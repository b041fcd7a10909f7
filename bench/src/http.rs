//! Shards that report by HTTP, and the scraper.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use reqwest::{Client, RequestBuilder, header};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    load::Load,
    shard::{Change, Shard},
};

/// Connections that post at a time, each one body after the other.
const CONNECTIONS: usize = 8;

/// The slowest peer needs some seconds for its page.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// A client that keeps connections, and neither compresses nor decompresses.
pub(crate) fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().no_gzip().http1_only().no_proxy().timeout(ANSWER_WITHIN).build()?)
}

/// Where and how bodies are posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// POST /shard-metrics: JSON around the text.
    ShardMetrics,
    /// The same, for a server that does not add `shard_id`.
    LabelledShardMetrics,
    /// PUT to the grouping key of the shard.
    Pushgateway,
}

/// All shards of one server.
pub(crate) struct Posters {
    groups: Vec<Vec<Shard>>,
    target: Arc<Target>,
}

struct Target {
    client: Client,
    base: String,
    route: Route,
}

impl Posters {
    /// Posts everything once.
    pub(crate) async fn open(base: &str, route: Route, shards: u32) -> anyhow::Result<Self> {
        let mut posters = Self::on_filled(base, route, shards)?;
        posters.post(Change::Nothing, shards as usize).await?;
        Ok(posters)
    }

    /// For a server that has everything already.
    pub(crate) fn on_filled(base: &str, route: Route, shards: u32) -> anyhow::Result<Self> {
        let mut groups: Vec<Vec<Shard>> = Vec::new();
        groups.resize_with(CONNECTIONS.min(shards as usize), Vec::new);
        let all = groups.len();
        for id in 0..shards {
            groups[id as usize % all].push(Shard::new(id));
        }
        let target = Target { client: client()?, base: base.to_owned(), route };
        Ok(Self { groups, target: Arc::new(target) })
    }

    /// Shards post one after the other, [`CONNECTIONS`] at a time, `posts` bodies together.
    pub(crate) async fn post(&mut self, change: Change, posts: usize) -> anyhow::Result<Load> {
        let began = Instant::now();
        let groups = self.groups.len();
        let mut tasks = JoinSet::new();
        for (n, group) in self.groups.drain(..).enumerate() {
            let share = posts / groups + usize::from(n < posts % groups);
            tasks.spawn(post_group(Arc::clone(&self.target), group, change, share));
        }
        let mut latencies = Vec::with_capacity(posts);
        while let Some(done) = tasks.join_next().await {
            let (group, of_group) = done??;
            self.groups.push(group);
            latencies.extend(of_group);
        }
        Ok(Load { latencies, wall: began.elapsed() })
    }
}

async fn post_group(
    target: Arc<Target>,
    mut group: Vec<Shard>,
    change: Change,
    posts: usize,
) -> anyhow::Result<(Vec<Shard>, Vec<Duration>)> {
    let mut latencies = Vec::with_capacity(posts);
    for n in 0..posts {
        let at = n % group.len();
        let shard = &mut group[at];
        shard.advance(change);
        let request = target.request(shard)?;
        let sent = Instant::now();
        let answer = request.send().await?;
        let status = answer.status();
        let said = answer.bytes().await?;
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&said));
        latencies.push(sent.elapsed());
    }
    // The next bodies are those of the shards that waited longest.
    let all = group.len();
    group.rotate_left(posts % all);
    Ok((group, latencies))
}

impl Target {
    fn request(&self, shard: &Shard) -> anyhow::Result<RequestBuilder> {
        let Self { client, base, route } = self;
        let id = shard.id;
        if *route == Route::Pushgateway {
            let url = format!("{base}/metrics/job/bench/shard_id/{id}");
            return Ok(client.put(url).body(shard.text(false)));
        }
        let text = shard.text(*route == Route::LabelledShardMetrics);
        let body = serde_json::to_vec(&serde_json::json!({ "shardId": id, "metrics": text }))?;
        Ok(client
            .post(format!("{base}/shard-metrics"))
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-instance-id", format!("bench-{id}"))
            .body(body))
    }
}

/// How a page travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    pub(crate) const ALL: [Self; 2] = [Self::Plain, Self::Gzip];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
        }
    }
}

/// Gets pages from one server, over one connection that it keeps.
pub(crate) struct Scraper {
    client: Client,
    url: String,
}

impl Scraper {
    pub(crate) fn new(base: &str) -> anyhow::Result<Self> {
        Ok(Self { client: client()?, url: format!("{base}/metrics") })
    }

    /// Reads a page to its end. How long that took.
    pub(crate) async fn scrape(&self, encoding: Encoding) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut answer = self.get(encoding).await?;
        while answer.chunk().await?.is_some() {}
        Ok(began.elapsed())
    }

    /// The page.
    pub(crate) async fn page(&self, encoding: Encoding) -> anyhow::Result<Bytes> {
        Ok(self.get(encoding).await?.bytes().await?)
    }

    /// Waits until that many lines are on the page: a Pushgateway answers before it has read.
    pub(crate) async fn expect_samples(&self, least: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let page = self.page(Encoding::Plain).await?;
            let lines = page.split(|byte| *byte == b'\n');
            let samples = lines.filter(|l| l.first().is_some_and(|byte| *byte != b'#')).count();
            if samples >= least {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} has {samples} samples, not {least}", self.url);
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn get(&self, encoding: Encoding) -> anyhow::Result<reqwest::Response> {
        let request = self.client.get(&self.url).header(header::ACCEPT, "text/plain;version=0.0.4");
        let request = match encoding {
            Encoding::Plain => request,
            Encoding::Gzip => request.header(header::ACCEPT_ENCODING, "gzip"),
        };
        let answer = request.send().await.with_context(|| format!("scraping {}", self.url))?;
        let answer = answer.error_for_status()?;
        let compressed = answer.headers().get(header::CONTENT_ENCODING);
        ensure!(
            compressed.is_some() == (encoding == Encoding::Gzip),
            "{} answers {compressed:?}",
            self.url
        );
        Ok(answer)
    }
}
