//! The platform's HTTP API: live shards, incident history, guild settings, live events.
//!
//! ```text
//! manager -- WatchShards --> fleet ---> store (incidents)      store <-> http <-> dashboards
//! Redis   -- subscribe ----> events --> store (commands)       events --> http: SSE
//! ```

mod config;
mod http;

use std::{future::Future, io, net::SocketAddr};

use tokio::net::TcpListener;

pub use config::Config;

/// An api whose socket is bound.
#[derive(Debug)]
pub struct Api {
    http: TcpListener,
    addr: SocketAddr,
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
}

impl Api {
    /// Binds the socket; port 0 works. Nothing is answered before [`Api::run`].
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let bind = |error| BuildError::Bind { addr: config.addr, error };
        let http = TcpListener::bind(config.addr).await.map_err(bind)?;
        let addr = http.local_addr().map_err(bind)?;
        Ok(Self { http, addr })
    }

    /// The address that is really bound.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), io::Error> {
        axum::serve(self.http, http::router()).with_graceful_shutdown(shutdown).await
    }
}
