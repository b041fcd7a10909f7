//! Shardmeter in one process on embedded defaults: a simulated Discord, a bot with its shards, the manager, and the api.
//! Each is built and run by its own `build` and `run`, as its binary does; only Discord is swapped, by configuration, and
//! Redis, by a bot and an api that know each other.

mod scenario;

use std::{fmt, future::Future, net::SocketAddr, num::NonZeroU32, time::Duration};

use anyhow::Context as _;
use shardmeter_api::{
    Api,
    events::{Ended, Event, Events, Heard},
};
use shardmeter_gateway_sim::{Control, GatewaySim};
use shardmeter_manager::Manager;
use shardmeter_process::ManagerConfig;
use shardmeter_proto::events::Event as Told;
use shardmeter_shard::{Bot, Settings, ShardCount};
use tempfile::TempDir;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::task::AbortOnDropHandle;

pub use scenario::Scenario;

/// Flags of the demo.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// How many shards the bot has
    #[arg(long, env = "SHARDMETER_DEMO_SHARDS", default_value = "4")]
    pub shards: NonZeroU32,
    /// How many guilds the bot is in
    #[arg(long, env = "SHARDMETER_DEMO_GUILDS", default_value_t = 100)]
    pub guilds: u32,
    /// Slash commands used per second, in all guilds together
    #[arg(long, env = "SHARDMETER_DEMO_RATE", default_value_t = 20.0)]
    pub rate: f64,
    /// What happens to Discord meanwhile
    #[arg(long, env = "SHARDMETER_DEMO_SCENARIO", value_enum, default_value_t = Scenario::Calm)]
    pub scenario: Scenario,
    /// End by itself after this long, as in `60s`; without it, Ctrl-C ends it
    #[arg(long = "for", env = "SHARDMETER_DEMO_FOR", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub run_for: Option<Duration>,
    /// Where the manager listens for HTTP
    #[arg(long, env = "SHARDMETER_HTTP_ADDR", default_value = "127.0.0.1:30000")]
    pub http_addr: SocketAddr,
    /// Where the manager listens for gRPC
    #[arg(long, env = "SHARDMETER_GRPC_ADDR", default_value = "127.0.0.1:30001")]
    pub grpc_addr: SocketAddr,
    /// Where the api listens
    #[arg(long, env = "API_ADDR", default_value = "127.0.0.1:3000")]
    pub api_addr: SocketAddr,
}

impl shardmeter_process::Configuration for Config {}

impl Config {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// If a flag cannot work; says which.
    pub fn validate(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.rate.is_finite() && self.rate >= 0.0,
            "--rate is {}; give a number from 0 up",
            self.rate
        );
        let most = shardmeter_gateway_sim::MAX_SHARDS;
        anyhow::ensure!(self.shards.get() <= most, "--shards is over {most}");
        let most = shardmeter_gateway_sim::MAX_GUILDS;
        anyhow::ensure!(self.guilds <= most, "--guilds is over {most}");
        Ok(())
    }
}

/// Shards report this often, so that a person who looks twice sees numbers move.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How long Discord and the manager may take to stop once the bot has.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Everything built and bound, nothing running.
pub struct Demo {
    manager: Manager,
    api: Api,
    /// The api's database, for as long as the demo runs.
    _database: TempDir,
    sim: GatewaySim,
    bot: shardmeter_shard::Config,
    scenario: Scenario,
    run_for: Option<Duration>,
}

/// What the simulated Discord confirmed and what the manager counted, after everything has drained. They are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Slash commands that Discord's books say were answered.
    pub confirmed: u64,
    /// `commands_executed_total` of all shards, at the manager.
    pub counted: u64,
}

impl Summary {
    /// Compares the two.
    ///
    /// # Errors
    /// If they differ: then a report was lost, and the logs say where.
    pub fn check(self) -> anyhow::Result<()> {
        let Self { confirmed, counted } = self;
        anyhow::ensure!(confirmed == counted, "the manager counted {counted}, not {confirmed}");
        Ok(())
    }
}

impl Demo {
    /// Binds what listens.
    ///
    /// # Errors
    /// If a port is taken or the flags do not fit each other; says which.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let manager = Manager::build(shardmeter_manager::Config {
            http_addr: config.http_addr,
            grpc_addr: config.grpc_addr,
            report_interval: REPORT_INTERVAL,
            ..shardmeter_manager::Config::default()
        });
        let manager = manager.await.context("the manager does not start")?;
        let database = tempfile::tempdir().context("no folder for the api's database")?;
        let file = database.path().join("api.db");
        let api = Api::build(shardmeter_api::Config {
            addr: config.api_addr,
            manager: ManagerConfig::at(format!("http://{}", manager.grpc_addr())),
            database_url: format!("sqlite://{}", file.display()).into(),
            ..shardmeter_api::Config::default()
        });
        let api = api.await.context("the api does not start")?;
        let sim = GatewaySim::build(shardmeter_gateway_sim::Config {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            guilds: config.guilds,
            shard_count: config.shards.get(),
            commands_per_second: config.rate,
            ..shardmeter_gateway_sim::Config::default()
        });
        let sim = sim.await.context("the simulated Discord does not start")?;
        let bot = shardmeter_shard::Config {
            shard_count: ShardCount::Fixed(config.shards),
            manager: ManagerConfig::at(format!("http://{}", manager.grpc_addr())),
            discord_gateway_url: Some(sim.gateway_url()),
            discord_api_url: Some(sim.api_url()),
            ..shardmeter_shard::Config::new("demo")
        };
        let Config { scenario, run_for, .. } = config;
        Ok(Self { manager, api, _database: database, sim, bot, scenario, run_for })
    }

    /// Handle of the simulated Discord.
    #[must_use]
    pub fn discord(&self) -> Control {
        self.sim.control()
    }

    /// Runs until `shutdown`, or for as long as the flags say; then the bot drains first, so that its last counts
    /// arrive, and the others after it.
    ///
    /// # Errors
    /// If a part cannot run.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<Summary> {
        let Self { manager, api, _database, sim, bot, scenario, run_for } = self;
        let (registry, discord, events) = (manager.registry(), sim.control(), api.events());
        let (stop_sim, sim_stopped) = oneshot::channel::<()>();
        let (stop_manager, manager_stopped) = oneshot::channel::<()>();
        let (stop_api, api_stopped) = oneshot::channel::<()>();
        // A dropped sender stops them too.
        let sim = tokio::spawn(sim.run(async { drop(sim_stopped.await) }));
        let manager = tokio::spawn(manager.run(async { drop(manager_stopped.await) }));
        let api = tokio::spawn(api.run(async { drop(api_stopped.await) }));

        let ended = async {
            match run_for {
                Some(run_for) => drop(timeout(run_for, shutdown).await),
                None => shutdown.await,
            }
            // Commands that Discord sends while the bot leaves would stay unanswered.
            discord.pause();
        };
        // Beside Redis, whose place this takes: what the bot does the api hears, and what is set there the bot obeys.
        let hears = events.clone();
        let bot = Bot::build_beside(bot, move |event| hears.publish(event));
        let bot = bot.await.context("the bot does not start")?;
        let obeying = AbortOnDropHandle::new(tokio::spawn(obey(events, bot.settings())));
        let playing = AbortOnDropHandle::new(tokio::spawn(scenario.play(discord.clone())));
        bot.run(ended).await.context("the bot ended")?;
        drop((obeying, playing));

        let summary =
            Summary { confirmed: discord.books().confirmed(), counted: counted(&registry) };
        drop((stop_sim, stop_manager, stop_api));
        let drained = async { tokio::join!(sim, manager, api) };
        let (sim, manager, api) =
            timeout(DRAIN_WITHIN, drained).await.context("the manager or the api does not stop")?;
        sim.context("the simulated Discord failed")?;
        manager.context("the manager failed")??;
        api.context("the api failed")??;
        Ok(summary)
    }
}

/// Brings what is set at the api to the bot.
async fn obey(events: Events, settings: Settings) {
    loop {
        let mut subscription = events.subscribe(None, None);
        let ended = loop {
            match subscription.next().await {
                Ok(Heard::Events(told)) => {
                    for event in told.events() {
                        if let Event::Platform(Told::GuildSettingsUpdated(changed)) = event {
                            settings.apply(changed);
                        }
                    }
                }
                Ok(Heard::Gap | Heard::Heartbeat) => {}
                Err(ended) => break ended,
            }
        };
        match ended {
            Ended::Closed => return,
            Ended::Behind => tracing::warn!("the bot may have missed what was set; set it again"),
        }
    }
}

/// For people who just started the demo: what listens where, and what to try.
impl fmt::Display for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (http, grpc) = (self.manager.http_addr(), self.manager.grpc_addr());
        let api = self.api.addr();
        writeln!(
            f,
            "shardmeter demo: {} shards of a bot on a simulated Discord",
            self.bot.shard_count
        )?;
        writeln!(f, "  Discord (simulated)  {}  {}", self.sim.gateway_url(), self.sim.api_url())?;
        writeln!(f, "  manager, gRPC        {grpc}")?;
        writeln!(f, "  manager, HTTP        http://{http}/")?;
        writeln!(f, "  api                  http://{api}/docs")?;
        writeln!(f, "Try, in another terminal:")?;
        writeln!(f, "  curl -s http://{http}/metrics | grep commands_executed_total")?;
        writeln!(f, "  curl -s http://{http}/api/v1/shards")?;
        writeln!(f, "  curl -N http://{api}/api/v1/events")?;
        write!(f, "Ctrl-C stops it and compares the books.")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { confirmed, counted } = self;
        write!(f, "Discord confirmed {confirmed} commands; the manager counted {counted}.")
    }
}

/// All commands that the manager counted.
fn counted(registry: &shardmeter_manager::registry::Registry) -> u64 {
    let mut sum = 0.0;
    registry.visit(shardmeter_manager::clock::Clock::new().now(), |shard| {
        for (family, series) in shard.families() {
            if &*family.name == "commands_executed_total" {
                sum += series.flat_map(|s| s.values).sum::<f64>();
            }
        }
    });
    sum as u64
}
