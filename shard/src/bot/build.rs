//! From a configuration to a bot that can run.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::HeaderValue;
use prometheus::Registry;
use shardmeter_pubsub::RedisError;
use shardmeter_telemetry::{Connection, Reporter};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use twilight_gateway::{ConfigBuilder, Intents, Shard, ShardId};

use super::{Bot, Registries};
use crate::{
    commands::{Commands, Standing},
    config::{Config, ManagerConfig, Secret, ShardCount, ShardIds},
    gateway_bot,
    guilds::Guilds,
    health::Health,
    identify::{Budget, IdentifyQueue, Pace},
    metrics::{self, IdentifyMetrics, RestMetrics, RuntimeMetrics, ShardMetrics},
    platform::{OnRedis, OnRedisError, Publisher, Settings},
    rest::{DISCORD_API, Rest, RestError},
    saved_session::{SessionFile, is_gateway_url},
    shard::{ShardTask, Shared},
};

/// Shards one process runs at most: each is a connection with its own caches, and the count may come from the network.
const MAX_SHARDS: u64 = 4096;

/// What the bot listens to: guilds coming and going. Interactions come without an intent.
const INTENTS: Intents = Intents::GUILDS;

/// Why a bot could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The token cannot be one.
    #[error("DISCORD_TOKEN is empty or has characters that no token has")]
    Token,
    /// Discord does not know the token.
    #[error(
        "Discord does not accept the token; set DISCORD_TOKEN to the bot's token from the developer portal"
    )]
    TokenRefused,
    /// An address cannot be one.
    #[error("{0} is no address of the form {1}")]
    Address(&'static str, &'static str),
    /// Discord did not say how to connect.
    #[error("Discord did not say where its gateway is")]
    Discord(#[source] RestError),
    /// The bot has fewer shards than this process is to run.
    #[error("shards {ids} do not exist: the bot has {count}")]
    ShardIds {
        /// The shards asked for.
        ids: ShardIds,
        /// The shards the bot has.
        count: u32,
    },
    /// More shards than one process runs.
    #[error(
        "{0} shards are too many for one process ({MAX_SHARDS} at most); give each process a part with SHARD_IDS"
    )]
    TooManyShards(u64),
    /// The folder for saved sessions cannot be used.
    #[error("the folder for saved sessions cannot be used")]
    StateDir(#[source] io::Error),
    /// The health address cannot be listened on.
    #[error("cannot listen on {addr} for health checks")]
    Health {
        /// As given.
        addr: SocketAddr,
        /// The system's word.
        #[source]
        error: io::Error,
    },
    /// `REDIS_URL` cannot be used.
    #[error("REDIS_URL cannot be used")]
    Redis(#[source] RedisError),
    /// A certificate for the manager cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    ManagerFile {
        /// As given.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// The manager's address, token or certificates cannot be used, or the reporters not be set up.
    #[error("the reports to the manager cannot be set up")]
    Report(#[from] shardmeter_telemetry::BuildError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The metrics cannot be registered; a mistake in this program.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

impl BuildError {
    /// Whether starting again with the same configuration changes nothing.
    pub fn is_config(&self) -> bool {
        !matches!(self, Self::Discord(_) | Self::Health { .. } | Self::Tls(_) | Self::Metrics(_))
    }
}

impl From<OnRedisError> for BuildError {
    fn from(error: OnRedisError) -> Self {
        match error {
            OnRedisError::Address(error) => Self::Redis(error),
            OnRedisError::Metrics(error) => Self::Metrics(error),
        }
    }
}

/// The connection to the manager, with what it may ask for.
fn manager(config: &ManagerConfig) -> Result<Connection, BuildError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|error| BuildError::ManagerFile { path: path.to_owned(), error })
    };
    let mut manager = Connection::builder(&config.endpoint);
    if let Some(file) = &config.token_file {
        manager = manager.token_file(file);
    }
    if let Some(ca) = &config.ca_cert {
        manager = manager.ca_certificate(read(ca)?);
    }
    if let Some((cert, key)) = config.client_cert.as_ref().zip(config.client_key.as_ref()) {
        manager = manager.identity(read(cert)?, read(key)?);
    }
    Ok(manager.build()?)
}

pub(super) async fn build(config: Config, beside: Option<Publisher>) -> Result<Bot, BuildError> {
    // Exactly one crypto provider: with none or two of them, rustls would panic when asked for the default. An error
    // says that there is one already.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let process = Registry::new();
    metrics::register_process(&process)?;
    let runtime = RuntimeMetrics::register(&process)?;
    let identify = IdentifyMetrics::register(&process)?;
    identify.start_at_zero();
    let budget = Budget::new(identify.clone());
    // First what needs no network: a configuration that cannot work ends at once, whether Discord is there or not.
    let token = token(&config)?;
    let rest = Arc::new(rest(&config, &token, &process)?);
    let manager = manager(&config.manager)?;
    let fixed_ids = match config.shard_count {
        ShardCount::Auto => None,
        ShardCount::Fixed(count) => Some(OwnShards::new(&config, count.get())?),
    };
    let own_gateway = own_gateway(&config)?;
    make_state_dir(&config).await?;
    let redis = match &config.redis_url {
        Some(url) if beside.is_none() => Some(OnRedis::start(url.expose(), &process)?),
        _ => None,
    };
    let on_redis = redis.as_ref().map(|redis| redis.publisher.clone());
    let publisher = beside.or(on_redis).unwrap_or(Publisher::Nobody);
    let info = gateway_bot::ask(&rest, &budget).await.map_err(|error| {
        if error.is_unauthorized() { BuildError::TokenRefused } else { BuildError::Discord(error) }
    })?;
    let ids = match fixed_ids {
        Some(ids) => ids,
        None => OwnShards::new(&config, info.shards.max(1))?,
    };
    let gateway = match own_gateway {
        Some(url) => url,
        None => gateway_url("the gateway Discord names", &info.url)?,
    };
    let (registries, metrics) = registries(process, ids.range)?;
    let health = health(&config, &metrics).await?;
    let settings = Settings::new(ids.range, ids.count);
    let subscriber = redis.as_ref().map(|redis| redis.obey(settings.clone()));
    let shared = Shared {
        commands: Commands::new(
            Arc::clone(&rest),
            publisher.clone(),
            settings.clone(),
            Standing::new(metrics.clone()),
        ),
        publisher,
        identified: Arc::new(Notify::new()),
        stop: CancellationToken::new(),
    };
    let pace = Pace {
        max_concurrency: info.session_start_limit.max_concurrency,
        shard_count: ids.count,
        interval: config.identify_interval,
    };
    let redis_url = redis.as_ref().and(config.redis_url.as_ref()).map(Secret::expose);
    let own = ids.range.first()..=ids.range.last();
    let queue = IdentifyQueue::new(own, pace, budget.clone(), redis_url, identify)
        .map_err(BuildError::Redis)?;
    let shards = Shards { config: &config, token, gateway: &gateway, queue };
    let tasks = shards.tasks(&shared, metrics, ids.count).await;
    let reporters = reporters(&config, &manager, &registries, ids.count)?;
    tracing::info!(shards = %ids.range, of = ids.count, gateway, manager = config.manager.endpoint, "the bot is ready to connect");
    let turn = config.identify_interval;
    let refresh = gateway_bot::refresh(rest, budget, Arc::clone(&shared.identified), turn);
    Ok(Bot {
        registries,
        reporters,
        shards: tasks,
        shared,
        health,
        settings,
        publishing: redis.map(|redis| redis.publishing),
        _subscriber: subscriber,
        _watching: [tokio::spawn(refresh), tokio::spawn(runtime.watch())]
            .map(AbortOnDropHandle::new),
    })
}

/// The `Authorization` header's value.
fn token(config: &Config) -> Result<String, BuildError> {
    let token = config.discord_token.expose().trim();
    let token = token.strip_prefix("Bot ").unwrap_or(token);
    let plausible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if plausible { Ok(format!("Bot {token}")) } else { Err(BuildError::Token) }
}

fn rest(config: &Config, token: &str, process: &Registry) -> Result<Rest, BuildError> {
    let api = config.discord_api_url.as_deref().unwrap_or(DISCORD_API);
    let is_api = api.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some()
            && uri.query().is_none()
    });
    if !is_api {
        return Err(BuildError::Address("DISCORD_API_URL", "https://HOST[:PORT]"));
    }
    let authorization = HeaderValue::from_str(token).map_err(|_| BuildError::Token)?;
    Ok(Rest::new(api, authorization, RestMetrics::register(process)?)?)
}

/// Where to connect instead of where Discord says.
fn own_gateway(config: &Config) -> Result<Option<String>, BuildError> {
    let url = config.discord_gateway_url.as_deref();
    url.map(|url| gateway_url("DISCORD_GATEWAY_URL", url)).transpose()
}

fn gateway_url(name: &'static str, url: &str) -> Result<String, BuildError> {
    let url = url.trim_end_matches('/').to_owned();
    // twilight takes the address on trust and would panic.
    if is_gateway_url(&url) { Ok(url) } else { Err(BuildError::Address(name, "wss://HOST[:PORT]")) }
}

/// The shards of this process.
#[derive(Clone, Copy)]
struct OwnShards {
    range: ShardIds,
    /// How many the bot has.
    count: u32,
}

impl OwnShards {
    /// Those the configuration asks for, of a bot that has `count`.
    fn new(config: &Config, count: u32) -> Result<Self, BuildError> {
        let range = config.shard_ids.unwrap_or_else(|| ShardIds::all(count));
        if range.last() >= count {
            return Err(BuildError::ShardIds { ids: range, count });
        }
        if range.count() > MAX_SHARDS {
            return Err(BuildError::TooManyShards(range.count()));
        }
        Ok(Self { range, count })
    }
}

async fn make_state_dir(config: &Config) -> Result<(), BuildError> {
    match &config.state_dir {
        Some(dir) => tokio::fs::create_dir_all(dir).await.map_err(BuildError::StateDir),
        None => Ok(()),
    }
}

async fn health(
    config: &Config,
    shards: &[(u32, ShardMetrics)],
) -> Result<Option<Health>, BuildError> {
    let Some(addr) = config.health_addr else { return Ok(None) };
    let shards = shards.iter().map(|(_, metrics)| metrics.clone()).collect();
    let health = Health::bind(addr, shards).await;
    health.map(Some).map_err(|error| BuildError::Health { addr, error })
}

/// One registry per shard beside the process's, and the families in each.
fn registries(
    process: Registry,
    ids: ShardIds,
) -> Result<(Registries, Vec<(u32, ShardMetrics)>), BuildError> {
    let mut shards = Vec::new();
    let mut metrics = Vec::new();
    for id in ids.first()..=ids.last() {
        let registry = Registry::new();
        metrics.push((id, ShardMetrics::register(&registry)?));
        shards.push((id, registry));
    }
    Ok((Registries { process, shards }, metrics))
}

/// One stream to the manager per shard, over one connection; the process's registry goes along with the lowest shard.
fn reporters(
    config: &Config,
    manager: &Connection,
    registries: &Registries,
    count: u32,
) -> Result<Vec<Reporter>, shardmeter_telemetry::BuildError> {
    let mut process = Some(registries.process.clone());
    let reporters = registries.shards.iter().map(|(id, registry)| {
        let shard = shardmeter_telemetry::Shard { id: *id, count };
        let builder = Reporter::builder(manager, shard).registry(registry.clone());
        let builder =
            if config.fleet.is_empty() { builder } else { builder.fleet(config.fleet.as_str()) };
        match process.take() {
            Some(process) => builder.registry(process).build(),
            None => builder.build(),
        }
    });
    reporters.collect()
}

/// What the shards of one process have in common when they are made.
struct Shards<'a> {
    config: &'a Config,
    token: String,
    gateway: &'a str,
    /// One for all, so that the process identifies no faster than Discord allows.
    queue: IdentifyQueue,
}

impl Shards<'_> {
    async fn tasks(
        &self,
        shared: &Shared,
        metrics: Vec<(u32, ShardMetrics)>,
        count: u32,
    ) -> Vec<ShardTask> {
        let mut tasks = Vec::with_capacity(metrics.len());
        for (id, metrics) in metrics {
            tasks.push(self.task(shared.clone(), metrics, ShardId::new(id, count)).await);
        }
        tasks
    }

    /// A shard that resumes its saved session, if it has one.
    async fn task(&self, shared: Shared, metrics: ShardMetrics, id: ShardId) -> ShardTask {
        let file =
            self.config.state_dir.as_ref().map(|dir| SessionFile::new(dir, self.gateway, id));
        let mut builder = ConfigBuilder::new(self.token.clone(), INTENTS)
            .proxy_url(self.gateway.to_owned())
            .queue(self.queue.clone());
        let mut guilds = Guilds::new(metrics.guilds.clone());
        let mut application = None;
        let saved = match &file {
            Some(file) => file.take().await,
            None => None,
        };
        if let Some(saved) = saved {
            tracing::info!(shard_id = id.number(), "resuming the saved session");
            guilds.restore(&saved.guilds);
            application = Some(saved.application);
            builder = builder.session(saved.session).resume_url(saved.resume_url);
        }
        let shard = Shard::with_config(id, builder.build());
        ShardTask::new(shard, metrics, shared, file, guilds, application)
    }
}
