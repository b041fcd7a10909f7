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

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use shardmeter_access::{accept, serve_http};
use shardmeter_process::Secret;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
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
    _events: EventTasks,
    recorder: JoinHandle<()>,
    following: JoinHandle<()>,
    store: JoinHandle<()>,
}

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
        let gate = Arc::new(Gate::open(&config.access, &config.tls, registry)?);
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
        Ok(Self {
            http,
            addr,
            router,
            gate,
            shutdown,
            events,
            _events: event_tasks,
            recorder,
            following,
            store: keeping,
        })
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
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let connections = accept(self.http, self.gate.door());
        let looking = AbortOnDropHandle::new(self.gate.look_after());
        let mut serving = pin!(serve_http(connections, self.router, self.shutdown.clone()));
        tokio::select! {
            () = &mut serving => {}
            () = shutdown => {
                self.shutdown.cancel();
                // A client that does not come to an end must not keep the api up.
                let _ = timeout(DRAIN_WITHIN, serving).await;
            }
        }
        self.shutdown.cancel();
        drop(looking);
        // They end with the token; a panic in one was reported where it was.
        let _ended = tokio::join!(self.recorder, self.following, self.store);
    }
}
