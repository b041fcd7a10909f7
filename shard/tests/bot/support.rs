//! A simulated Discord and bots that run against it.

use std::{collections::BTreeMap, net::SocketAddr};

use prometheus::{Registry, proto::MetricType};
use shardmeter_gateway_sim as sim;
use shardmeter_process::{
    ManagerConfig,
    testing::{eventually, soon},
};
use shardmeter_shard::{Bot, Config, Registries, RunError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A manager that is not there: these tests read the registries themselves.
const NO_MANAGER: &str = "http://127.0.0.1:1";

/// The token of every bot in these tests.
pub(crate) const TOKEN: &str = "dGVzdA.secret-token";

/// A world of 2 shards and 20 guilds that does nothing of its own accord.
pub(crate) fn quiet_world() -> sim::Config {
    sim::Config {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        guilds: 20,
        shard_count: 2,
        token: Some(TOKEN.into()),
        ..sim::Config::default()
    }
}

/// A simulated Discord that runs.
pub(crate) struct Discord {
    pub(crate) control: sim::Control,
    pub(crate) addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Discord {
    pub(crate) async fn start(config: sim::Config) -> Self {
        let sim = sim::GatewaySim::build(config).await.unwrap();
        let (control, addr) = (sim.control(), sim.addr());
        let stop = CancellationToken::new();
        let task = tokio::spawn(sim.run(stop.clone().cancelled_owned()));
        Self { control, addr, stop, task }
    }

    /// Ends it, as a crash would.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// How a bot is told to run against it.
    pub(crate) fn config(&self) -> Config {
        Config {
            manager: ManagerConfig::at(NO_MANAGER),
            discord_gateway_url: Some(format!("ws://{}", self.addr)),
            discord_api_url: Some(format!("http://{}", self.addr)),
            ..Config::new(TOKEN)
        }
    }

    /// A bot with all shards, connected, with all its guilds.
    pub(crate) async fn bot(&self) -> Running {
        let bot = Running::start(self.config()).await;
        bot.until_guilds(&self.control).await;
        bot
    }

    pub(crate) fn shard_books(&self, shard: u32) -> sim::ShardBooks {
        self.control.books().shard(shard).cloned().unwrap_or_default()
    }
}

/// A bot that runs.
pub(crate) struct Running {
    pub(crate) registries: Registries,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        Self::run(Bot::build(config).await.unwrap())
    }

    pub(crate) fn run(bot: Bot) -> Self {
        let registries = bot.registries();
        let stop = CancellationToken::new();
        let task = tokio::spawn(bot.run(stop.clone().cancelled_owned()));
        Self { registries, stop, task }
    }

    /// Shuts it down.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon("the bot's end", self.task).await.unwrap().unwrap();
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(self) -> Result<(), RunError> {
        soon("the bot's end", self.task).await.unwrap()
    }

    pub(crate) fn shard(&self, id: u32) -> &Registry {
        &self.registries.shards.iter().find(|(shard, _)| *shard == id).unwrap().1
    }

    /// A gauge or a counter of a shard; 0 if it is not there.
    pub(crate) fn value(&self, shard: u32, family: &str, labels: &[(&str, &str)]) -> f64 {
        value(self.shard(shard), family, labels).unwrap_or(0.0)
    }

    /// A gauge or a counter of the process; 0 if it is not there.
    pub(crate) fn process_value(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        value(&self.registries.process, family, labels).unwrap_or(0.0)
    }

    pub(crate) fn connected(&self, shard: u32) -> bool {
        self.value(shard, "gateway_connected", &[]) == 1.0
    }

    /// Sessions of a shard: identified, resumed, invalidated.
    pub(crate) fn sessions(&self, shard: u32) -> [f64; 3] {
        ["identified", "resumed", "invalidated"]
            .map(|outcome| self.value(shard, "gateway_sessions_total", &[("outcome", outcome)]))
    }

    /// Guilds, users and unavailable guilds of a shard.
    pub(crate) fn guilds(&self, shard: u32) -> [f64; 3] {
        ["guild_count", "user_count", "unavailable_guilds"]
            .map(|family| self.value(shard, family, &[]))
    }

    pub(crate) async fn until_connected(&self) {
        eventually("all shards connected", || {
            self.registries.shards.iter().all(|(id, _)| self.connected(*id))
        })
        .await;
    }

    /// Waits until the bot's guilds are those of the books, which it has to be connected for.
    pub(crate) async fn until_guilds(&self, control: &sim::Control) {
        self.until_connected().await;
        for (id, _) in &self.registries.shards {
            eventually("the guilds of the books", || {
                self.guilds(*id) == booked_guilds(control, *id)
            })
            .await;
        }
    }
}

/// Guilds, users and unavailable guilds of a shard, as its world has them.
pub(crate) fn booked_guilds(control: &sim::Control, shard: u32) -> [f64; 3] {
    let books = control.books().shard(shard).cloned().unwrap_or_default();
    let shard_count = books.newest_session().map_or(0, |session| session.shard_count);
    let mut world = [0.0; 3];
    for guild in
        control.guilds().iter().filter(|guild| sim::shard_of(guild.id, shard_count) == shard)
    {
        match guild.presence {
            sim::Presence::Available => {
                world[0] += 1.0;
                world[1] += f64::from(guild.members);
            }
            sim::Presence::Unavailable => world[2] += 1.0,
            sim::Presence::Left => {}
        }
    }
    world
}

/// A sample's labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// The samples of a family, by labels; a histogram's value is its count.
pub(crate) fn family(registry: &Registry, name: &str) -> BTreeMap<Labels, f64> {
    let families = registry.gather();
    let family = families.iter().filter(|family| family.name() == name);
    family
        .flat_map(|family| {
            let kind = family.get_field_type();
            family.get_metric().iter().map(move |metric| {
                let labels = metric.get_label().iter();
                let labels =
                    labels.map(|label| (label.name().to_owned(), label.value().to_owned()));
                let value = match kind {
                    MetricType::COUNTER => metric.get_counter().get_value(),
                    MetricType::HISTOGRAM => metric.get_histogram().get_sample_count() as f64,
                    _ => metric.get_gauge().get_value(),
                };
                (labels.collect(), value)
            })
        })
        .collect()
}

/// The sum of a family's samples.
pub(crate) fn total(registry: &Registry, name: &str) -> f64 {
    family(registry, name).values().sum()
}

fn value(registry: &Registry, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels: Labels =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    family(registry, name).get(&labels).copied()
}
