//! Whether the bot is connected, for whoever looks after the process: `GET /healthz` on an address of its own.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc};

use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use crate::metrics::ShardMetrics;

/// Connections at a time: one asks, now and then.
const CONNECTIONS: usize = 8;

/// Answers how many shards are connected: 200 while at least one is, 503 while none is.
pub(crate) struct Health {
    listener: TcpListener,
    shards: Vec<ShardMetrics>,
}

impl Health {
    pub(crate) async fn bind(addr: SocketAddr, shards: Vec<ShardMetrics>) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        tracing::info!(health_addr = %listener.local_addr()?, "the bot says here whether it is connected");
        Ok(Self { listener, shards })
    }

    /// Answers until dropped.
    pub(crate) async fn run(self) -> Infallible {
        let Self { listener, shards } = self;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let shards = Arc::new(shards);
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok((stream, _)) = listener.accept().await else { continue };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let shards = Arc::clone(&shards);
            connections.spawn(async move {
                let answer = service_fn(|request| std::future::ready(answer(&request, &shards)));
                let mut http = http1::Builder::new();
                // Whoever sends nothing gives its place back within 30 s, hyper's own limit.
                let http = http.timer(TokioTimer::new()).keep_alive(false);
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                drop(place);
            });
        }
    }
}

fn answer(
    request: &Request<Incoming>,
    shards: &[ShardMetrics],
) -> Result<Response<String>, http::Error> {
    if request.uri().path() != "/healthz" {
        return Response::builder().status(StatusCode::NOT_FOUND).body("GET /healthz\n".to_owned());
    }
    let connected = shards.iter().filter(|metrics| metrics.gateway.is_connected()).count();
    let status = if connected > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let said = format!("{connected} of {} shards connected\n", shards.len());
    Response::builder().status(status).body(said)
}
