//! The platform's HTTP API: live shards, incident history, guild settings, live events.
//!
//! ```text
//! manager -- WatchShards --> fleet ---> store (incidents)      store <-> http <-> dashboards
//! Redis   -- subscribe ----> events --> store (commands)       events --> http: SSE
//! ```

mod config;
pub mod events;
mod fleet;
mod http;
mod metrics;
mod recorder;
pub mod store;

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use axum::Router;
use shardmeter_process::Secret;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use fleet::ManagerError;

use events::{EventTasks, Events, redis::StartError};
use fleet::Fleet;
use http::{Http, ListPage, Listeners};
use metrics::{FleetMetrics, Metrics, RecorderMetrics};
use store::{DatabaseUrlError, Store};

/// An api whose socket is bound.
#[derive(Debug)]
pub struct Api {
    http: TcpListener,
    addr: SocketAddr,
    router: Router,
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
    /// A mistake of this crate.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl BuildError {
    /// Whether starting again with the same configuration changes nothing.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Manager(_) | Self::Events(StartError::Redis(_)))
    }
}

impl Api {
    /// Binds the socket; port 0 works. Nothing is answered before [`Api::run`]. A database that is away is waited for.
    ///
    /// # Errors
    /// If the address cannot be bound, or the database's URL is none.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let shutdown = CancellationToken::new();
        let (store, keeping) = Store::open(&config.database_url, shutdown.clone())?;
        let metrics = Metrics::new(store.clone())?;
        let fleet = Fleet::new(&config)?;
        let redis_url = config.redis_url.as_ref().map(Secret::expose);
        let registry = &metrics.registry;
        let listeners = Listeners::new(registry)?;
        let (events, event_tasks) =
            events::redis::start(redis_url, store.clone(), registry, shutdown.clone())?;
        let lost = RecorderMetrics::register(registry)?;
        let recorder = recorder::start(&events, store.clone(), lost);
        let following = fleet::follow::start(
            fleet.manager(),
            store.clone(),
            events.clone(),
            FleetMetrics::register(registry)?,
            shutdown.clone(),
        );
        let bind = |error| BuildError::Bind { addr: config.addr, error };
        let http = TcpListener::bind(config.addr).await.map_err(bind)?;
        let addr = http.local_addr().map_err(bind)?;
        tracing::info!(%addr, "http");
        let router = http::routes(Http {
            store,
            fleet: Arc::new(fleet),
            metrics,
            shards_page: Arc::new(ListPage::default()),
            events: events.clone(),
            listeners,
            shutdown: shutdown.clone(),
        });
        Ok(Self {
            http,
            addr,
            router,
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

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), io::Error> {
        let stopping = self.shutdown.clone();
        let shutdown = async move {
            shutdown.await;
            stopping.cancel();
        };
        let served = axum::serve(self.http, self.router).with_graceful_shutdown(shutdown).await;
        self.shutdown.cancel();
        // They end with the token; a panic in one was reported where it was.
        let _ended = tokio::join!(self.recorder, self.following, self.store);
        served
    }
}
