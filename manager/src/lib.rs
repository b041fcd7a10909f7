//! The manager: receives the metrics of all shards, merges them, and exposes one page for Prometheus.
//!
//! ```text
//! gRPC stream -> session -\
//! HTTP POST   -> ingest  --> registry -> exposition -> GET /metrics
//! ```
//!
//! [`Manager::build`] binds the sockets (port 0 works), [`Manager::run`] serves until it is told to stop. The
//! [`registry`] is the one owner of what was counted; everything else converts on the way in or out.

// What came from the network must not be able to end anything.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod admin;
mod clip;
pub mod clock;
mod config;
pub mod doctor;
pub mod exposition;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod http;
pub mod ingest;
mod journal;
mod live;
pub mod metrics;
pub mod model;
mod rates;
pub mod registry;
mod session;
mod summary;
mod trace;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use shardmeter_access::{Access, Door, Pages, Places, Protocol, Tls, accept, serve_http};
use shardmeter_process::traces::part_of_trace;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::transport::server::Connected;
use tracing::info_span;

pub use config::{AccessConfig, Config, ConfigError, FileError, Limits};
pub use journal::{JournalError, OpenError};
pub use shardmeter_access::{TlsConfig, TlsError, TokenError};

use clock::Clock;
use exposition::Exposition;
use ingest::PreviousBodies;
use journal::{FileJournal, Journal, JournalState, MemoryOnly};
use live::Live;
use metrics::{Dropped, Metrics};
use rates::Rates;
use registry::{Registry, Settings};
use session::{Lines, Room, Sessions, Turns};

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
    access: Arc<Access>,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    openmetrics_created: bool,
}

/// Why the manager cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A token file cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
        let config::File { limits, rules } = config::File::read(config.config.as_deref())?;
        let tls = Tls::open(&config.tls)?.map(Arc::new);
        let metrics = Arc::new(Metrics::new()?);
        let anybody = config.access.allow_unauthenticated;
        let pages = Pages::of_port(config.http_addr, anybody, Vec::new());
        let files = config.access.token_files();
        let access = Arc::new(Access::open(files, pages, metrics.access.clone())?);
        let of_journal = config.data_dir.as_ref().map(|_| metrics.of_journal()).transpose()?;
        let reserved = exposition::reserved(&metrics.gather());
        let settings = Settings {
            stale_after: config.stale_after,
            report_interval: config.report_interval,
            max_series_per_family: limits.series_per_family.get(),
            max_series_per_shard: limits.series_per_shard.get(),
            max_series: limits.series.get(),
        };
        let reserved = reserved.iter().map(|(name, kind)| (name.as_str(), *kind));
        let registry = Arc::new(Registry::with_rules(settings, reserved, rules));
        let journal: Arc<dyn Journal> = match config.data_dir.as_deref().zip(of_journal) {
            None => Arc::new(MemoryOnly),
            Some((dir, of_journal)) => FileJournal::open(dir, &registry, of_journal)?,
        };
        let sink = Arc::clone(&journal);
        registry.record_to(Box::new(move |changes| {
            part_of_trace(|| info_span!("journal")).in_scope(|| sink.append(changes))
        }));
        // Only now, when nothing else can keep it from starting, what rules no longer allow goes.
        let (http, http_addr) = bind("HTTP", config.http_addr).await?;
        let (grpc, grpc_addr) = bind("gRPC", config.grpc_addr).await?;
        metrics.count_dropped(Dropped::Rule, registry.apply_rules());
        registry.resume(clock.now());
        let sessions = Arc::new(Sessions {
            registry,
            journal,
            metrics,
            clock,
            places: Places::new(
                "Report streams",
                limits.streams.get(),
                limits.streams_per_peer.get(),
            ),
            rates: Arc::new(Rates::new(limits.frames_per_second)),
            snapshots: Room::default(),
            lines: Lines::default(),
            long: Turns::default(),
            fleet: config.fleet,
            report_interval: config.report_interval,
            idle_gap: config.stale_after,
            shutdown: CancellationToken::new(),
        });
        let openmetrics_created = config.openmetrics_created;
        Ok(Self {
            http,
            http_addr,
            grpc,
            grpc_addr,
            sessions,
            access,
            tls,
            limits,
            openmetrics_created,
        })
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
        grpc::serve(incoming, Arc::clone(&self.sessions), &self.access).await
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
    /// If gRPC cannot be served.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { http_addr, grpc_addr, ref sessions, ref access, .. } = self;
        tracing::info!(%http_addr, %grpc_addr, tls = self.tls.is_some(), "manager listens");
        if sessions.journal.state() == JournalState::MemoryOnly {
            tracing::warn!(
                "counts are kept in memory only: a restart of the manager starts them anew; --data-dir keeps them"
            );
        }
        let stop = sessions.shutdown.clone();
        let kept = Kept {
            sessions: Arc::clone(sessions),
            access: Arc::clone(access),
            tls: self.tls.clone(),
            rates: Arc::new(Rates::new(self.limits.frames_per_second)),
            exposition: Arc::default(),
            previous_bodies: Arc::new(PreviousBodies::new(
                sessions.metrics.previous_bodies.clone(),
            )),
        };
        let routes = http::routes(kept.http(self.openmetrics_created), access);
        let summary = AbortOnDropHandle::new(summary::every_minute(Arc::clone(sessions)));
        let drained = CancellationToken::new();
        let maintenance = AbortOnDropHandle::new(maintain(kept, drained.clone()));
        let connections = self.limits.connections.get();
        let http_door = Door {
            protocol: Protocol::Http,
            places: Places::new("HTTP connections", connections, connections.div_ceil(2)),
            tls: self.tls.clone(),
            say_full: http::say_full,
        };
        let grpc_door = Door {
            protocol: Protocol::Grpc,
            places: Places::new(
                "gRPC connections",
                self.limits.streams.get(),
                self.limits.streams_per_peer.get(),
            ),
            tls: self.tls.clone(),
            say_full: http::say_full,
        };
        let serve_http = serve_http(accept(self.http, http_door), routes, stop.clone());
        let calls = accept(self.grpc, grpc_door).map(Ok);
        let serve_grpc = grpc::serve(calls, Arc::clone(sessions), access);
        let serve = async { tokio::join!(serve_http, serve_grpc).1 };
        tokio::pin!(serve);
        let served = tokio::select! {
            served = &mut serve => served,
            () = shutdown => {
                stop.cancel();
                // A peer that keeps a call open must not keep the manager up.
                timeout(DRAIN_WITHIN, serve).await.unwrap_or(Ok(()))
            }
        };
        stop.cancel(); // ends the sessions too when gRPC failed
        drop(summary);
        // Its last act is to have the disk take everything.
        drained.cancel();
        let _ = maintenance.await;
        served
    }
}

/// What is looked after once a second.
#[derive(Clone)]
struct Kept {
    sessions: Arc<Sessions>,
    access: Arc<Access>,
    tls: Option<Arc<Tls>>,
    /// How often shards may post. Streams have buckets of their own: who posts as a shard does not end its stream.
    rates: Arc<Rates>,
    exposition: Arc<Exposition>,
    previous_bodies: Arc<PreviousBodies>,
}

impl Kept {
    /// What HTTP needs of it.
    fn http(&self, openmetrics_created: bool) -> http::Http {
        let Self { sessions, exposition, previous_bodies, .. } = self;
        http::Http {
            registry: Arc::clone(&sessions.registry),
            previous_bodies: Arc::clone(previous_bodies),
            exposition: Arc::clone(exposition),
            readers: Arc::new(http::Readers::new(sessions.metrics.cut_readers.clone())),
            live: Live::new(Arc::clone(&sessions.registry), sessions.clock),
            viewers: Places::new("viewers of live rows", http::VIEWERS, http::VIEWERS / 2),
            parts: Arc::new(Semaphore::new(http::PARTS_AT_ONCE)),
            bodies: Arc::new(Semaphore::new(http::BODIES_AT_ONCE)),
            room: Arc::new(http::Room::new(http::BODY_BYTES_AT_ONCE)),
            journal: Arc::clone(&sessions.journal),
            metrics: Arc::clone(&sessions.metrics),
            rates: Arc::clone(&self.rates),
            clock: sessions.clock,
            openmetrics_created,
            shutdown: sessions.shutdown.clone(),
        }
    }

    /// Reads files, and writes some: takes as long as the disk does.
    fn maintain(&self) {
        let now = self.sessions.clock.now();
        self.access.reload();
        if let Some(tls) = &self.tls {
            tls.reload();
        }
        self.sessions.rates.forget_full();
        self.rates.forget_full();
        self.sessions.registry.count();
        self.sessions.registry.notice_silence(now);
        self.sessions.metrics.count_events(self.sessions.registry.take_event_counts());
        self.sessions.metrics.count_dropped(Dropped::Type, self.sessions.registry.yield_types(now));
        self.sessions.journal.maintain(&self.sessions.registry, now);
        self.exposition.forget_unused(now);
        self.previous_bodies.forget_unused(now);
    }
}

/// Starts the task that looks after what is kept once a second until no more is to come, and once more then.
fn maintain(kept: Kept, drained: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = interval(MAINTAIN_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = drained.cancelled() => {}
            }
            let ends = drained.is_cancelled();
            let kept = kept.clone();
            if let Err(error) = spawn_blocking(move || kept.maintain()).await {
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
