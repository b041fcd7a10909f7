//! The system under test: the parts' own `build` and `run`, in this process, on free ports.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use shardmeter_gateway_sim::{Books, Control, GatewaySim};
use shardmeter_manager::{Manager, registry::Registry};
use shardmeter_process::ManagerConfig;
use shardmeter_shard::Bot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    promtool,
    scrape::{self, Samples, Series},
};

/// Short, so that a test sees many frames.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// A running manager.
pub(crate) struct RunningManager {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    /// What it keeps, for shards that report to it without a stream.
    pub(crate) registry: Arc<Registry>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl RunningManager {
    pub(crate) async fn start() -> Self {
        Self::start_with(shardmeter_manager::Config::default()).await
    }

    pub(crate) async fn start_with(config: shardmeter_manager::Config) -> Self {
        let config = shardmeter_manager::Config { report_interval: REPORT_INTERVAL, ..config };
        let manager = Manager::build(config).await.unwrap();
        let (http, grpc, registry) = (manager.http_addr(), manager.grpc_addr(), manager.registry());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let running = tokio::spawn(async move { manager.run(stopped).await.unwrap() });
        Self { http, grpc, registry, stop, running }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// The page in text format 0.0.4, after promtool has judged it.
    pub(crate) async fn page(&self) -> String {
        let answer = reqwest::get(self.url("/metrics")).await.unwrap();
        let page = answer.error_for_status().unwrap().text().await.unwrap();
        promtool::check(&page).await;
        page
    }

    pub(crate) async fn scrape(&self) -> Samples {
        scrape::parse(&self.page().await)
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// A simulated Discord; ends when dropped.
pub(crate) struct Discord {
    pub(crate) control: Control,
    pub(crate) gateway_url: String,
    pub(crate) api_url: String,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Discord {
    pub(crate) async fn start(shards: u32, guilds: u32, commands_per_second: f64) -> Self {
        let heartbeat_interval = Duration::from_millis(500);
        Self::start_with(shards, guilds, commands_per_second, heartbeat_interval).await
    }

    /// One that ends the session of a bot whose heartbeat is late by half of this interval.
    pub(crate) async fn start_with(
        shards: u32,
        guilds: u32,
        commands_per_second: f64,
        heartbeat_interval: Duration,
    ) -> Self {
        let sim = GatewaySim::build(shardmeter_gateway_sim::Config {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            guilds,
            shard_count: shards,
            commands_per_second,
            heartbeat_interval,
            // A loaded machine must not make Discord refuse an answer that came.
            interaction_deadline: Duration::from_secs(60),
            ..shardmeter_gateway_sim::Config::default()
        });
        let sim = sim.await.unwrap();
        let (gateway_url, api_url, control) = (sim.gateway_url(), sim.api_url(), sim.control());
        let stop = CancellationToken::new();
        let running = tokio::spawn(sim.run(stop.clone().cancelled_owned()));
        Self { control, gateway_url, api_url, stop, running }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// A simulated Discord and a bot on it.
pub(crate) struct Fleet {
    pub(crate) discord: Control,
    stop_bot: CancellationToken,
    bot: JoinHandle<()>,
    sim: Discord,
}

impl Fleet {
    /// Starts a bot of `shards` shards that reports to `manager`, and waits until Discord knows them all.
    pub(crate) async fn start(
        shards: u32,
        guilds: u32,
        commands_per_second: f64,
        manager: SocketAddr,
    ) -> Self {
        let bot = shardmeter_shard::Config::new("token");
        Self::start_with(shards, guilds, commands_per_second, manager, bot).await
    }

    /// As `start`, with what else the bot is configured.
    pub(crate) async fn start_with(
        shards: u32,
        guilds: u32,
        commands_per_second: f64,
        manager: SocketAddr,
        bot: shardmeter_shard::Config,
    ) -> Self {
        let sim = Discord::start(shards, guilds, commands_per_second).await;
        let bot = Bot::build(shardmeter_shard::Config {
            manager: ManagerConfig::at(format!("http://{manager}")),
            discord_gateway_url: Some(sim.gateway_url.clone()),
            discord_api_url: Some(sim.api_url.clone()),
            ..bot
        });
        let bot = bot.await.unwrap();
        let stop_bot = CancellationToken::new();
        let stopped = stop_bot.clone().cancelled_owned();
        let bot = tokio::spawn(async move { bot.run(stopped).await.unwrap() });
        let discord = sim.control.clone();
        discord.until_connected(shards as usize).await;
        Self { discord, stop_bot, bot, sim }
    }

    /// Ends the bot first, so that its last counts are reported, then Discord.
    pub(crate) async fn stop(self) {
        self.stop_bot.cancel();
        self.bot.await.unwrap();
        self.sim.stop().await;
    }
}

/// What the books say of `commands_executed_total`.
pub(crate) fn confirmed(books: &Books) -> BTreeMap<Series, f64> {
    let of_shard = |(shard, books): (&u32, &shardmeter_gateway_sim::ShardBooks)| {
        let shard = shard.to_string();
        let counts = books.confirmed.iter().map(|((place, command), count)| {
            let guild = place.to_string();
            let labels =
                [("command_name", command.as_str()), ("guild_id", &guild), ("shard_id", &shard)];
            (scrape::series("commands_executed_total", labels), *count as f64)
        });
        counts.collect::<Vec<_>>()
    };
    books.shards.iter().flat_map(of_shard).collect()
}

/// The samples of one name, without the labels Prometheus adds.
pub(crate) fn named(samples: &Samples, name: &str) -> BTreeMap<Series, f64> {
    let own = samples.iter().filter(|((n, _), _)| n == name);
    own.map(|((name, labels), value)| {
        let labels = labels.iter().filter(|(l, _)| *l != "job" && *l != "instance");
        ((name.clone(), labels.map(|(l, v)| (l.clone(), v.clone())).collect()), *value)
    })
    .collect()
}

/// Compares two sides; the error names what differs, for `until`.
pub(crate) fn same(
    left: &BTreeMap<Series, f64>,
    right: &BTreeMap<Series, f64>,
) -> Result<(), String> {
    let differ = |(series, value): &(&Series, &f64)| {
        right.get(*series).map(|v| v.to_bits()) != Some(value.to_bits())
    };
    if let Some((series, value)) = left.iter().find(differ) {
        return Err(format!("{series:?} is {value} here and {:?} there", right.get(series)));
    }
    match right.keys().find(|series| !left.contains_key(*series)) {
        Some(series) => Err(format!("{series:?} is only there")),
        None => Ok(()),
    }
}
