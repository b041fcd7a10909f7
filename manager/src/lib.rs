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
mod grpc;
mod http;
pub mod ingest;
pub mod metrics;
pub mod model;
pub mod registry;
mod session;
mod summary;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

pub use config::{Config, ConfigError};

use clock::Clock;
use metrics::Metrics;
use registry::{Registry, Settings};
use session::Sessions;

/// How long requests in flight may take after a shutdown began; `docker stop` kills after 10 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// A manager whose sockets are bound.
#[derive(Debug)]
pub struct Manager {
    http: TcpListener,
    http_addr: SocketAddr,
    grpc: TcpListener,
    grpc_addr: SocketAddr,
    sessions: Arc<Sessions>,
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
        config.validate()?;
        let metrics = Arc::new(Metrics::new()?);
        let reserved = exposition::reserved(&metrics.gather());
        let settings = Settings { stale_after: config.stale_after, ..Settings::default() };
        let registry = Arc::new(Registry::new(
            settings,
            reserved.iter().map(|(name, kind)| (name.as_str(), *kind)),
        ));
        let (http, http_addr) = bind("HTTP", config.http_addr).await?;
        let (grpc, grpc_addr) = bind("gRPC", config.grpc_addr).await?;
        let sessions = Arc::new(Sessions {
            registry,
            metrics,
            clock: Clock::new(),
            fleet: config.fleet,
            report_interval: config.report_interval,
            idle_gap: config.stale_after,
            shutdown: CancellationToken::new(),
        });
        Ok(Self { http, http_addr, grpc, grpc_addr, sessions })
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

    /// Serves until `shutdown` completes, then ends every session (shards reconnect elsewhere or later) and lets requests
    /// in flight finish.
    ///
    /// # Errors
    /// If a listener fails for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { http, http_addr, grpc, grpc_addr, sessions } = self;
        tracing::info!(%http_addr, %grpc_addr, "manager listens");
        tracing::warn!("counts are kept in memory only: a restart of the manager starts them anew");
        let stop = sessions.shutdown.clone();
        let routes = http::routes(http::Http {
            registry: Arc::clone(&sessions.registry),
            metrics: Arc::clone(&sessions.metrics),
            clock: sessions.clock,
            shutdown: stop.clone(),
        });
        let summary = summary::every_minute(Arc::clone(&sessions));
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
        summary.abort();
        served
    }
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
