//! Binding, serving, shutting down.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::config::{Config, ConfigError};
use crate::control::Control;
use crate::rest;
use crate::state::Shared;

/// How long shutdown waits for connections and requests to end.
const DRAIN: Duration = Duration::from_secs(5);

/// A simulator that is bound and not yet running.
#[derive(Debug)]
pub struct GatewaySim {
    listener: TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
}

/// Why a simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be bound.
    #[error("cannot listen on {addr}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl GatewaySim {
    /// Checks the configuration, makes the world and binds the socket: bots may connect from here on, and are served
    /// once [`GatewaySim::run`] runs.
    ///
    /// # Errors
    ///
    /// [`BuildError`].
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        config.validate()?;
        let addr = config.addr;
        let bind_error = |source| BuildError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(bind_error)?;
        let addr = listener.local_addr().map_err(bind_error)?;
        Ok(Self { listener, addr, shared: Arc::new(Shared::new(config)) })
    }

    /// The address that is bound, for gateway and REST alike.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `ws://…`, for twilight-gateway's `proxy_url`.
    #[must_use]
    pub fn gateway_url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    /// `http://…`; the routes are below `/api/v10`. (Twilight-http's `proxy` takes the address alone.)
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A handle to act on the simulator and to read its books.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared))
    }

    /// Serves until `shutdown` completes; then drops the connections without a close frame, as a crash would, and
    /// returns when their tasks have ended. Dropping the future stops everything as well.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let stopping = self.shared.stopping.clone();
        let _stop_when_dropped = stopping.clone().drop_guard();
        let server = axum::serve(self.listener, rest::router(&self.shared))
            .with_graceful_shutdown(stopping.clone().cancelled_owned())
            .into_future();
        tokio::pin!(server);
        tokio::select! {
            // Axum's server retries what fails on accept and ends only when told to.
            _ended = &mut server => {}
            () = shutdown => {
                stopping.cancel();
                let drained = async {
                    let _ended = server.await;
                    self.shared.tasks.close();
                    self.shared.tasks.wait().await;
                };
                if tokio::time::timeout(DRAIN, drained).await.is_err() {
                    tracing::warn!("some connections did not end in time");
                }
            }
        }
    }
}
