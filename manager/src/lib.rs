//! The manager: receives the metrics of all shards, merges them, and exposes one page for Prometheus.
//!
//! ```text
//! gRPC stream -> session -\
//! HTTP POST   -> ingest  --> registry -> exposition -> GET /metrics
//! ```
//!
//! [`Manager::build`] binds the sockets (port 0 works), [`Manager::run`] serves until it is told to stop. The
//! [`registry`] is the one owner of what was counted; everything else converts on the way in or out.

mod clip;
pub mod clock;
mod config;
pub mod exposition;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod http;
pub mod ingest;
mod journal;
pub mod metrics;
pub mod model;
pub mod registry;
mod session;
mod summary;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::ListenerExt as _;
use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::transport::server::Connected;

pub use config::{Config, ConfigError};
pub use journal::{JournalError, OpenError};

use clock::Clock;
use exposition::Exposition;
use ingest::PreviousBodies;
use journal::{FileJournal, Journal, JournalState, MemoryOnly};
use metrics::Metrics;
use registry::{Registry, Settings};
use session::Sessions;

/// How long requests in flight may take after a shutdown began; `docker stop` kills after 10 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// How often the disk takes what the journal has: what a power cut may cost.
const MAINTAIN_EVERY: Duration = Duration::from_secs(1);

/// A manager whose sockets are bound.
#[derive(Debug)]
pub struct Manager {
    http: TcpListener,
    http_addr: SocketAddr,
    grpc: TcpListener,
    grpc_addr: SocketAddr,
    sessions: Arc<Sessions>,
    openmetrics_created: bool,
}

/// Why the manager cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} for {what}: {error}")]
    Bind {
        /// HTTP or gRPC.
        what: &'static str,
        /// As configured.
        addr: SocketAddr,
        /// The system's word.
        error: io::Error,
    },
    /// The journal cannot be used.
    #[error("--data-dir cannot be used")]
    Journal(#[from] JournalError),
    /// The manager's own metrics contradict each other.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

impl Manager {
    /// Binds the sockets. Nothing is answered before [`Manager::run`].
    ///
    /// # Errors
    /// If the configuration cannot work or an address cannot be bound.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        Self::build_with(config, Clock::new()).await
    }

    /// Like [`Manager::build`], by another clock than the system's: a simulation's.
    ///
    /// # Errors
    /// As [`Manager::build`] has.
    pub async fn build_with(config: Config, clock: Clock) -> Result<Self, BuildError> {
        config.validate()?;
        let metrics = Arc::new(Metrics::new()?);
        let of_journal = config.data_dir.as_ref().map(|_| metrics.of_journal()).transpose()?;
        let reserved = exposition::reserved(&metrics.gather());
        let settings = Settings {
            stale_after: config.stale_after,
            report_interval: config.report_interval,
            ..Settings::default()
        };
        let registry = Arc::new(Registry::new(
            settings,
            reserved.iter().map(|(name, kind)| (name.as_str(), *kind)),
        ));
        let journal: Arc<dyn Journal> = match config.data_dir.as_deref().zip(of_journal) {
            None => Arc::new(MemoryOnly),
            Some((dir, of_journal)) => FileJournal::open(dir, &registry, of_journal)?,
        };
        let sink = Arc::clone(&journal);
        registry.record_to(Box::new(move |changes| sink.append(changes)));
        registry.apply_rules();
        registry.resume(clock.now());
        let (http, http_addr) = bind("HTTP", config.http_addr).await?;
        let (grpc, grpc_addr) = bind("gRPC", config.grpc_addr).await?;
        let sessions = Arc::new(Sessions {
            registry,
            journal,
            metrics,
            clock,
            fleet: config.fleet,
            report_interval: config.report_interval,
            idle_gap: config.stale_after,
            shutdown: CancellationToken::new(),
        });
        let openmetrics_created = config.openmetrics_created;
        Ok(Self { http, http_addr, grpc, grpc_addr, sessions, openmetrics_created })
    }

    /// Where HTTP really listens.
    #[must_use]
    pub const fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where gRPC really listens.
    #[must_use]
    pub const fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// What it keeps of all shards.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.sessions.registry)
    }

    /// Serves gRPC alone, on connections that another network than the port brings: a simulation's. Ends when they do.
    ///
    /// # Errors
    /// If a connection cannot be taken for good.
    pub async fn serve_grpc<IO>(
        &self,
        incoming: impl Stream<Item = io::Result<IO>>,
    ) -> io::Result<()>
    where
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        grpc::serve_on(incoming, Arc::clone(&self.sessions)).await
    }

    /// Looks after the journal, which [`Manager::run`] does every second. Takes as long as the disk does.
    pub fn maintain_journal(&self) {
        let Sessions { journal, registry, clock, .. } = &*self.sessions;
        journal.maintain(registry, clock.now());
    }

    /// Serves until `shutdown` completes, then ends every session (shards reconnect elsewhere or later) and lets requests
    /// in flight finish.
    ///
    /// # Errors
    /// If a listener fails for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { http, http_addr, grpc, grpc_addr, sessions, openmetrics_created } = self;
        tracing::info!(%http_addr, %grpc_addr, "manager listens");
        if sessions.journal.state() == JournalState::MemoryOnly {
            tracing::warn!(
                "counts are kept in memory only: a restart of the manager starts them anew; --data-dir keeps them"
            );
        }
        let stop = sessions.shutdown.clone();
        let exposition = Arc::<Exposition>::default();
        let previous_bodies =
            Arc::new(PreviousBodies::new(sessions.metrics.previous_bodies.clone()));
        let routes = http::routes(http::Http {
            registry: Arc::clone(&sessions.registry),
            previous_bodies: Arc::clone(&previous_bodies),
            exposition: Arc::clone(&exposition),
            parts: Arc::new(Semaphore::new(http::PARTS_AT_ONCE)),
            journal: Arc::clone(&sessions.journal),
            metrics: Arc::clone(&sessions.metrics),
            clock: sessions.clock,
            openmetrics_created,
            shutdown: stop.clone(),
        });
        let summary = AbortOnDropHandle::new(summary::every_minute(Arc::clone(&sessions)));
        let drained = CancellationToken::new();
        let maintenance = AbortOnDropHandle::new(maintain(
            Arc::clone(&sessions),
            exposition,
            previous_bodies,
            drained.clone(),
        ));
        // A page is written at once; without this its end would wait for the reader's word on the rest. A socket that
        // refuses works all the same.
        let http = http.tap_io(|connection| drop(connection.set_nodelay(true)));
        let serve_http =
            axum::serve(http, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        let serve =
            async { tokio::try_join!(serve_http, grpc::serve(grpc, Arc::clone(&sessions))) };
        tokio::pin!(serve);
        let served = tokio::select! {
            served = &mut serve => served.map(|_| ()),
            () = shutdown => {
                stop.cancel();
                // A peer that keeps a call open must not keep the manager up.
                timeout(DRAIN_WITHIN, serve).await.map_or(Ok(()), |served| served.map(|_| ()))
            }
        };
        stop.cancel(); // ends the sessions too when a listener failed
        drop(summary);
        // Its last act is to have the disk take everything.
        drained.cancel();
        let _ = maintenance.await;
        served
    }
}

/// Starts the task that looks after the journal, the pages and the bodies once a second until no more is to come, and once
/// more then.
fn maintain(
    sessions: Arc<Sessions>,
    exposition: Arc<Exposition>,
    previous_bodies: Arc<PreviousBodies>,
    drained: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = interval(MAINTAIN_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = drained.cancelled() => {}
            }
            let ends = drained.is_cancelled();
            let (sessions, exposition) = (Arc::clone(&sessions), Arc::clone(&exposition));
            let previous_bodies = Arc::clone(&previous_bodies);
            let now = sessions.clock.now();
            let maintained = spawn_blocking(move || {
                sessions.registry.count();
                sessions.registry.yield_types(now);
                sessions.journal.maintain(&sessions.registry, now);
                exposition.forget_unused(now);
                previous_bodies.forget_unused(now);
            });
            if let Err(error) = maintained.await {
                tracing::error!(%error, "looking after what is kept failed");
            }
            if ends {
                return;
            }
        }
    })
}

async fn bind(
    what: &'static str,
    addr: SocketAddr,
) -> Result<(TcpListener, SocketAddr), BuildError> {
    let bound = async {
        let listener = TcpListener::bind(addr).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bound.await.map_err(|error| BuildError::Bind { what, addr, error })
}
