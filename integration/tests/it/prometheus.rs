//! A real Prometheus scrapes the manager, and finds what the simulated Discord's books say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use shardmeter_gateway_sim::{Control, ShardBooks};
use shardmeter_process::testing::until;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    proxy::Proxy,
    scrape::{self, Samples, Series},
    system::{Fleet, RunningManager, confirmed, named, same},
    tools::{self, free_addr},
};

/// An exemplar: name and labels of its series, its own labels, its value, its time in milliseconds.
pub(crate) type Exemplar = (BTreeMap<String, String>, BTreeMap<String, String>, f64, i64);

/// A running Prometheus with default negotiation.
pub(crate) struct Prometheus {
    addr: SocketAddr,
    _process: Child,
    _data: TempDir,
}

impl Prometheus {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        Self::start_with(&[("shardmeter", target)], &[]).await
    }

    /// One that scrapes several targets, each as a job of its own.
    pub(crate) async fn start_with(jobs: &[(&str, SocketAddr)], flags: &[&str]) -> Self {
        let mut text = "global:\n  scrape_interval: 250ms\nscrape_configs:\n".to_owned();
        for (job, target) in jobs {
            text += &format!(
                "  - job_name: {job}\n    honor_labels: false\n    static_configs:\n      - targets: ['{target}']\n"
            );
        }
        Self::start_configured(&text, free_addr(), flags).await
    }

    /// One with this configuration, which listens there.
    pub(crate) async fn start_configured(text: &str, addr: SocketAddr, flags: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("prometheus.yml");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=error")
            .args(flags);
        let process = tools::start(&mut command);
        let prometheus = Self { addr, _process: process, _data: data };
        until("Prometheus is ready", || async {
            let ready = reqwest::get(format!("http://{addr}/-/ready")).await;
            ready
                .and_then(reqwest::Response::error_for_status)
                .map(|_| ())
                .map_err(|e| e.to_string())
        })
        .await;
        prometheus
    }

    pub(crate) async fn api(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let url = format!("http://{}/api/v1/{path}", self.addr);
        let answer =
            reqwest::Client::new().get(url).query(query).send().await.map_err(|e| e.to_string())?;
        answer.json().await.map_err(|e| e.to_string())
    }

    /// The newest sample of every series the query selects.
    pub(crate) async fn query(&self, query: &str) -> Result<Samples, String> {
        self.query_with(&[("query", query)]).await
    }

    async fn query_with(&self, query: &[(&str, &str)]) -> Result<Samples, String> {
        let answer = self.api("query", query).await?;
        let results = answer["data"]["result"].as_array().ok_or_else(|| answer.to_string())?;
        Ok(results.iter().map(sample).collect())
    }

    /// All exemplars of these series, as (name and labels of the series, labels, value, time).
    pub(crate) async fn exemplars(&self, query: &str) -> Result<Vec<Exemplar>, String> {
        let range = [("query", query), ("start", "0"), ("end", "9999999999")];
        let answer = self.api("query_exemplars", &range).await?;
        let of_series = answer["data"].as_array().ok_or_else(|| answer.to_string())?;
        let labels = |labels: &Value| -> BTreeMap<String, String> {
            serde_json::from_value(labels.clone()).unwrap()
        };
        let all = of_series.iter().flat_map(|series| {
            let exemplars = series["exemplars"].as_array().into_iter().flatten();
            exemplars.map(|exemplar| {
                let value = exemplar["value"].as_str().unwrap().parse().unwrap();
                let at = (exemplar["timestamp"].as_f64().unwrap() * 1e3).round() as i64;
                (labels(&series["seriesLabels"]), labels(&exemplar["labels"]), value, at)
            })
        });
        Ok(all.collect())
    }

    /// Fails if a count of `page` fell between two of its scrapes, or its newest value is not the page's, or `increase()`
    /// is not the growth from the first value to the newest.
    pub(crate) async fn assert_never_fell(&self, page: impl AsyncFn() -> Result<String, String>) {
        let counts = scrape::counts(&until("the page", &page).await);
        let own = |name: &&String| name.starts_with("shardmeter_manager_");
        let names: BTreeSet<_> = counts.keys().map(|(name, _)| name).filter(|n| !own(n)).collect();
        for name in names.iter().filter(|name| **name != "shard_reports_total") {
            until("the newest value is the page's", || async {
                let shown = anonymous(&named(&scrape::counts(&page().await?), name));
                same(&shown, &anonymous(&self.query(name).await?))
            })
            .await;
        }
        // Some go on counting: all that follows is asked as of one moment, whose scrape is over.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let at = (now - Duration::from_secs(1)).as_secs_f64().to_string();
        for name in names {
            let of = async |function: &str| {
                let query = format!("{function}({name}[1d])");
                anonymous(&self.query_with(&[("query", &query), ("time", &at)]).await.unwrap())
            };
            let (resets, scrapes) = (of("resets").await, of("count_over_time").await);
            let fell: Vec<_> = resets.iter().filter(|(_, resets)| **resets != 0.0).collect();
            assert!(fell.is_empty() && !resets.is_empty(), "{name} fell: {fell:?}");
            let (first, newest) = (of("min_over_time").await, of("max_over_time").await);
            for (series, increase) in of("increase").await {
                let growth = newest[&series] - first[&series];
                // It also guesses what was counted up to a scrape's time before the first and after the last.
                let guessed = 1.0 + 2.0 / (scrapes[&series] - 1.0);
                let right = growth * (1.0 - 1e-9) <= increase && increase <= growth * guessed;
                assert!(right, "increase of {name}{series:?} is {increase}, not {growth}");
            }
        }
    }

    /// Whether what it has of a shard's guilds, users and connection is what the books say.
    async fn knows_guilds(&self, shard: u32, books: &ShardBooks) -> Result<(), String> {
        let booked = [
            ("guild_count", books.available_guilds() as f64),
            ("user_count", books.members() as f64),
            ("gateway_connected", 1.0),
        ];
        for (name, booked) in booked {
            let found = self.query(&format!("{name}{{shard_id=\"{shard}\"}}")).await?;
            let seen: Vec<_> = found.into_values().collect();
            if seen != [booked] {
                return Err(format!("{name} of shard {shard} is {seen:?}, booked {booked}"));
            }
        }
        Ok(())
    }

    /// Why the last scrape of a job failed; empty if it did not.
    pub(crate) async fn scrape_error(&self, job: &str) -> Result<String, String> {
        let answer = self.api("targets", &[]).await?;
        let mut targets = answer["data"]["activeTargets"].as_array().into_iter().flatten();
        let target = targets.find(|target| target["scrapePool"] == job);
        Ok(target.and_then(|t| t["lastError"].as_str()).unwrap_or_default().to_owned())
    }

    /// Fails unless the last scrape of each target worked.
    pub(crate) async fn assert_targets_healthy(&self) {
        until("the targets are up", || async {
            let answer = self.api("targets", &[]).await?;
            let mut targets = answer["data"]["activeTargets"].as_array().into_iter().flatten();
            let down = targets.find(|target| target["health"] != "up");
            down.map_or(Ok(()), |target| Err(target.to_string()))
        })
        .await;
    }
}

fn sample(result: &Value) -> (Series, f64) {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let labels = result["metric"].as_object().unwrap().iter();
    let labels =
        labels.filter(|(n, _)| *n != "__name__").map(|(n, v)| (n.clone(), text(v))).collect();
    let name = result["metric"]["__name__"].as_str().unwrap_or_default().to_owned();
    ((name, labels), result["value"][1].as_str().unwrap().parse().unwrap())
}

/// Series of one name as functions return them: without the name, and without the labels that Prometheus adds; `le` as
/// a number.
fn anonymous(samples: &Samples) -> Samples {
    let comparable = comparable_labels(samples);
    comparable.into_iter().map(|((_, labels), value)| ((String::new(), labels), value)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_finds_what_discords_books_say() {
    const SHARDS: u32 = 4;
    let manager = RunningManager::start().await;
    let proxy = Proxy::start(manager.grpc).await;
    let prometheus = Prometheus::start(manager.http).await;
    let fleet = Fleet::start(SHARDS, 60, 150.0, proxy.addr).await;
    let discord = fleet.discord.clone();

    let joined = trouble(&discord, &proxy, SHARDS).await;
    discord.pause();

    // The manager, then Prometheus, agree with the books.
    until("the manager's page equals the books", || async {
        same(
            &confirmed(&discord.books()),
            &named(&manager.scrape().await, "commands_executed_total"),
        )
    })
    .await;
    until("Prometheus equals the books", || async {
        let seen = prometheus.query("commands_executed_total").await?;
        same(&confirmed(&discord.books()), &named(&seen, "commands_executed_total"))
    })
    .await;
    assert!(discord.books().confirmed() > 400, "the test had traffic");
    prometheus.assert_targets_healthy().await;

    // What the shards know of Discord is true as well.
    let books = discord.books();
    assert!(books.shards[&3].guilds.contains_key(&joined));
    for (shard, books) in &books.shards {
        until("guilds and users equal the books", || prometheus.knows_guilds(*shard, books)).await;
    }
    until("the shards' resumes equal the books", || async {
        let booked: u64 = discord.books().shards.values().map(|s| s.resumes).sum();
        let seen = prometheus.query("gateway_sessions_total{outcome=\"resumed\"}").await?;
        let seen: f64 = seen.values().sum();
        if seen == booked as f64 { Ok(()) } else { Err(format!("{seen}, booked {booked}")) }
    })
    .await;

    fleet.stop().await;
    until("a bot that left is down, its counts stay", || async {
        same(
            &confirmed(&discord.books()),
            &named(&manager.scrape().await, "commands_executed_total"),
        )
    })
    .await;
    manager.stop().await;
}

/// Trouble on every side, with traffic between. Returns a guild that the bot joined on shard 3 meanwhile.
async fn trouble(discord: &Control, proxy: &Proxy, shards: u32) -> u64 {
    let traffic = |more: u64| {
        let from = discord.books().confirmed();
        async move {
            discord.until(|books| books.confirmed() >= from + more).await;
        }
    };
    traffic(100).await;
    for shard in 0..shards {
        discord.cut(shard).await.unwrap();
        discord.until(|books| books.shards[&shard].resumes >= 1).await;
        traffic(30).await;
    }
    let connections = proxy.connections();
    proxy.cut();
    until("the bot reconnects to the manager", || async {
        if proxy.connections() > connections { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    traffic(100).await;
    discord.invalidate(1, false).await.unwrap();
    discord.until(|books| books.shards[&1].identifies >= 2).await;
    discord.reconnect(2).await.unwrap();
    discord.until(|books| books.shards[&2].resumes >= 2).await;
    let joined = discord.guild_join(3, 77).await.unwrap();
    traffic(100).await;
    joined
}

/// Every series of the page reaches Prometheus in its default negotiation, with the same value if it stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_reads_every_series_of_the_page() {
    let manager = RunningManager::start().await;
    let fleet = Fleet::start(2, 10, 50.0, manager.grpc).await;
    fleet.discord.until(|books| books.confirmed() >= 50).await;
    fleet.discord.pause();
    let prometheus = Prometheus::start(manager.http).await;
    until("every series of the page is in Prometheus", || async {
        let (page, seen) =
            (manager.scrape().await, prometheus.query("{job=\"shardmeter\"}").await?);
        same(&comparable(&page), &comparable(&seen))
    })
    .await;
    prometheus.assert_targets_healthy().await;
    fleet.stop().await;
    manager.stop().await;
}

/// Families whose values move without anybody doing anything.
const MOVING: [&str; 9] = [
    "shardmeter_manager_",
    "shard_reports_total",
    "shard_last_report_timestamp_seconds",
    "gateway_heartbeat_ack_age_seconds",
    "gateway_last_event_timestamp_seconds",
    "gateway_latency_seconds",
    "gateway_events_total",
    "cpu_usage_percent",
    "memory_usage_bytes",
];

/// Series as both sides can have them: without what Prometheus says of the scrape itself, a moving value as 0.
fn comparable(samples: &Samples) -> Samples {
    let scrape_itself = |name: &str| name == "up" || name.starts_with("scrape_");
    let own = comparable_labels(samples).into_iter().filter(|((name, _), _)| !scrape_itself(name));
    own.map(|(series, value)| {
        let moving = MOVING.iter().any(|prefix| series.0.starts_with(prefix));
        (series, if moving { 0.0 } else { value })
    })
    .collect()
}

/// Series without the target's labels, and `le` as a number.
fn comparable_labels(samples: &Samples) -> Samples {
    let comparable = samples.iter().map(|((name, labels), value)| {
        let mut labels = labels.clone();
        labels.retain(|label, _| label != "job" && label != "instance");
        for bound in ["le", "quantile"] {
            labels.entry(bound.to_owned()).and_modify(|text| {
                *text = text.replace("+Inf", "inf").parse::<f64>().unwrap().to_string();
            });
        }
        ((name.clone(), labels), *value)
    });
    comparable.collect()
}
