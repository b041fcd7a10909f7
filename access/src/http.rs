//! HTTP on connections: one request after the other on each, and no peer that keeps one waiting for good.

mod body;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    response::IntoResponse as _,
};
use futures_util::{Stream, StreamExt as _};
use http::{HeaderName, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::serve::{Connection, HangUp, Patience, Peer};
use body::{AnswerBody, TimedBody};
pub use body::{BodyError, cause};

/// Longest head of a request, bytes: a path with a hundred `name[]`, and a few tokens.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// A body stops coming for this long, or takes that long as a whole: the request is given up.
const BODY_IDLE: Duration = Duration::from_secs(30);
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// In an answer's extensions: it has no end, as a stream of events. The peer need not have read all of it in time, only keep
/// reading.
#[derive(Debug, Clone, Copy)]
struct Endless;

/// An answer of Server-Sent Events, without end (the HTML standard, section 9.2).
pub fn event_stream(texts: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that collect answers would hold back what is live.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let body = Body::from_stream(texts.map(Ok::<_, Infallible>));
    (headers, Extension(Endless), body).into_response()
}

/// Serves connections until `stop` is cancelled, and then what is in flight on them. Requests have their [`Peer`] and
/// a way to end the connection ([`HangUp`]) in their extensions.
pub async fn serve<IO>(
    connections: impl Stream<Item = Connection<IO>>,
    routes: Router,
    stop: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connections = Box::pin(connections);
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            connection = connections.next() => match connection {
                Some(connection) => {
                    serving.spawn(serve_one(connection, routes.clone(), stop.clone()));
                }
                None => break,
            },
            Some(_) = serving.join_next() => {}
        }
    }
    drop(connections);
    while serving.join_next().await.is_some() {}
}

async fn serve_one<IO>(connection: Connection<IO>, routes: Router, stop: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = connection.peer().clone();
    let patience = Arc::clone(connection.patience());
    let answering = service_fn(|request| answer(routes.clone(), &patience, &peer, request));
    let mut http = http1::Builder::new();
    // How long it waits for a head is the connection's business: hyper's limit counts the time between requests too.
    http.max_header_size(MAX_HEAD_BYTES).header_read_timeout(None);
    let serving = http.serve_connection(TokioIo::new(connection), answering);
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "an HTTP connection ends");
    }
}

fn answer(
    routes: Router,
    patience: &Arc<Patience>,
    peer: &Peer,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + use<> {
    let turn = patience.begin();
    let mut request = request.map(|body| Body::new(TimedBody::new(body, BODY_IDLE, BODY_WITHIN)));
    request.extensions_mut().insert(peer.clone());
    request.extensions_mut().insert(HangUp::new(Arc::clone(patience)));
    async move {
        let answer = routes.oneshot(request).await?;
        if answer.extensions().get::<Endless>().is_none() {
            turn.answers();
        }
        Ok(answer.map(|body| AnswerBody::new(body, turn)))
    }
}

#[cfg(test)]
mod tests;
