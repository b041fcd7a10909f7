//! The platform's HTTP API: live shards, incident history, guild settings, live events.
//!
//! ```text
//! manager -- WatchShards --> fleet ---> store (incidents)      store <-> http <-> dashboards
//! Redis   -- subscribe ----> events --> store (commands)       events --> http: SSE
//! ```

mod config;
pub mod events;
mod fleet;
mod gate;
mod http;
mod metrics;
mod recorder;
pub mod store;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use shardmeter_access::{accept, serve_http};
use shardmeter_process::Secret;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub use config::{AccessConfig, Config, ConfigError};
pub use fleet::ManagerError;
pub use gate::GateError;
pub use shardmeter_access::TlsConfig;
pub use shardmeter_process::ManagerConfig;

use events::{EventTasks, Events, redis::StartError};
use fleet::Fleet;
use gate::Gate;
use http::{Http, ListPage, Listeners};
use metrics::{FleetMetrics, Metrics, RecorderMetrics};
use store::{DatabaseUrlError, Store};

/// How long requests in flight may take after a shutdown began; `docker stop` kills after 10 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// An api whose socket is bound.
#[derive(Debug)]
pub struct Api {
    http: TcpListener,
    addr: SocketAddr,
    router: Router,
    gate: Arc<Gate>,
    shutdown: CancellationToken,
    events: Events,
    event_tasks: EventTasks,
    /// What else goes on beside requests, until `shutdown`: what each is called.
    tasks: JoinSet<&'static str>,
}

/// A task of the api ended while it was needed: what is left would look as if all were well.
#[derive(Debug, thiserror::Error)]
#[error("the {0} ended by itself, and the api with it; the log has more")]
pub struct TaskEnded(&'static str);

/// Why the api cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {error}")]
    Bind {
        /// As configured.
        addr: SocketAddr,
        /// The system's word.
        error: io::Error,
    },
    /// The database's URL is none.
    #[error(transparent)]
    Database(#[from] DatabaseUrlError),
    /// The manager cannot be asked.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// `REDIS_URL` is none.
    #[error(transparent)]
    Events(#[from] StartError),
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Tokens or certificates cannot be used.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// A mistake of this crate.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl BuildError {
    /// Whether starting again with the same configuration changes nothing.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Gate(_)
                | Self::Database(_)
                | Self::Manager(_)
                | Self::Events(StartError::Redis(_))
        )
    }
}

impl Api {
    /// Binds the socket; port 0 works. Nothing is answered before [`Api::run`]. A database that is away is waited for.
    ///
    /// # Errors
    /// If the address cannot be bound, or the database's URL is none.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        config.access.check(config.addr, &config.tls)?;
        let shutdown = CancellationToken::new();
        let (store, keeping) = Store::open(&config.database_url, shutdown.clone())?;
        let metrics = Metrics::new(store.clone())?;
        let redis_url = config.redis_url.as_ref().map(Secret::expose);
        let registry = &metrics.registry;
        let fleet_metrics = FleetMetrics::register(registry)?;
        let fleet = Fleet::new(&config.manager, fleet_metrics.manager_connection_status.clone())?;
        let gate = Arc::new(Gate::open(config.addr, &config.access, &config.tls, registry)?);
        let listeners = Listeners::new(registry)?;
        let (events, event_tasks) =
            events::redis::start(redis_url, store.clone(), registry, shutdown.clone())?;
        let lost = RecorderMetrics::register(registry)?;
        let recorder = recorder::start(&events, store.clone(), lost);
        let following = fleet::follow::start(
            fleet.manager(),
            store.clone(),
            events.clone(),
            fleet_metrics,
            shutdown.clone(),
        );
        let mut tasks = JoinSet::new();
        for (name, task) in [("recorder", recorder), ("follower", following), ("store", keeping)] {
            tasks.spawn(async move {
                // A panic in it was reported where it was.
                let _ended = task.await;
                name
            });
        }
        let bind = |error| BuildError::Bind { addr: config.addr, error };
        let http = TcpListener::bind(config.addr).await.map_err(bind)?;
        let addr = http.local_addr().map_err(bind)?;
        tracing::info!(%addr, "http");
        let parts = Http {
            store,
            fleet: Arc::new(fleet),
            metrics,
            shards_page: Arc::new(ListPage::default()),
            events: events.clone(),
            listeners,
            shutdown: shutdown.clone(),
        };
        let router = http::routes(parts, &gate, config.access.cors_origin);
        Ok(Self { http, addr, router, gate, shutdown, events, event_tasks, tasks })
    }

    /// The address that is really bound.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The live events that this process tells and hears of.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// Serves until `shutdown`, then ends what has no end and lets requests in flight finish.
    ///
    /// # Errors
    /// If it ended before, because a task of it did.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), TaskEnded> {
        let connections = accept(self.http, self.gate.door());
        let mut looking = AbortOnDropHandle::new(self.gate.look_after());
        let serving = serve_http(connections, self.router, self.shutdown.clone());
        self.tasks.spawn(async {
            serving.await;
            "HTTP port"
        });
        let ended = tokio::select! {
            Some(task) = self.tasks.join_next() => Err(TaskEnded(task.unwrap_or("api"))),
            task = self.event_tasks.ended() => Err(TaskEnded(task)),
            _ = &mut looking => Err(TaskEnded("look at tokens and certificates")),
            () = shutdown => Ok(()),
        };
        self.shutdown.cancel();
        // A client that does not come to an end must not keep the api up.
        let _ =
            timeout(DRAIN_WITHIN, async { while self.tasks.join_next().await.is_some() {} }).await;
        // Not before: requests in flight tell of what they changed.
        drop((looking, self.event_tasks));
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    async fn build(redis_url: Option<&str>) -> (Api, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            addr: ([127, 0, 0, 1], 0).into(),
            database_url: format!("sqlite://{}/api.db", folder.path().display()).into(),
            redis_url: redis_url.map(|url| url.to_owned().into()),
            ..Config::default()
        };
        (Api::build(config).await.unwrap(), folder)
    }

    async fn ends_with(api: Api, task: &str) {
        let ended = timeout(Duration::from_secs(30), api.run(pending())).await.unwrap();
        assert!(ended.unwrap_err().to_string().starts_with(&format!("the {task} ended by itself")));
    }

    #[tokio::test]
    async fn the_api_ends_with_any_task_of_it() {
        let (mut api, _folder) = build(None).await;
        assert_eq!(api.tasks.len(), 3);
        let task = tokio::spawn(async { panic!("on purpose") });
        api.tasks.spawn(async {
            task.await.unwrap_err();
            "test"
        });
        ends_with(api, "test").await;
    }

    #[tokio::test]
    async fn the_api_ends_with_any_task_of_its_events() {
        let (api, _folder) = build(None).await;
        assert_eq!(api.event_tasks.len(), 1);
        let (mut api, _folder) = build(Some("redis://127.0.0.1:9")).await;
        assert_eq!(api.event_tasks.len(), 4);
        api.event_tasks.add("test", tokio::spawn(async { panic!("on purpose") }));
        ends_with(api, "test").await;
    }
}
