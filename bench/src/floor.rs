//! The physical floor, on the stack that the manager uses (axum and tonic on tokio), in a process of its own: reads what is
//! sent and does nothing with it but what cannot be left out, and sends pages that lie ready. What the manager costs above
//! it is its own; what it costs itself is sockets, HTTP, HTTP/2 and protobuf.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
    serve::ListenerExt as _,
};
use parking_lot::RwLock;
use shardmeter_proto::v1::{
    self, ReportRequest, ReportResponse,
    report_request::Message as Said,
    report_response::Message as Answer,
    telemetry_service_server::{TelemetryService, TelemetryServiceServer},
};
use tokio::{net::TcpListener, sync::broadcast};
use tokio_stream::{Stream, StreamExt as _, wrappers::BroadcastStream};
use tonic::{
    Request, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use crate::http::Encoding;

/// Pages that lie ready, as they go over the wire.
#[derive(Clone, Default)]
struct Pages(Arc<RwLock<[Bytes; 2]>>);

/// What listeners are told.
#[derive(Clone)]
struct Told(broadcast::Sender<Bytes>);

/// A floor whose sockets are bound.
pub(crate) struct Floor {
    http: TcpListener,
    grpc: TcpListener,
    pub(crate) http_addr: SocketAddr,
    pub(crate) grpc_addr: SocketAddr,
}

impl Floor {
    /// On free ports.
    pub(crate) async fn build() -> anyhow::Result<Self> {
        let http = TcpListener::bind("127.0.0.1:0").await?;
        let grpc = TcpListener::bind("127.0.0.1:0").await?;
        let (http_addr, grpc_addr) = (http.local_addr()?, grpc.local_addr()?);
        Ok(Self { http, grpc, http_addr, grpc_addr })
    }

    /// Serves until told to stop.
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { http, grpc, http_addr, grpc_addr } = self;
        tracing::info!(%http_addr, %grpc_addr, "floor listens");
        let routes = Router::new()
            .route("/shard-metrics", post(scan))
            .route("/pages/{encoding}", put(keep))
            .route("/metrics", get(send))
            .layer(DefaultBodyLimit::disable())
            .with_state(Pages::default())
            .route("/events", get(listen).put(tell).with_state(Told(broadcast::channel(16).0)));
        // A socket that refuses works all the same.
        let http = http.tap_io(|connection| drop(connection.set_nodelay(true)));
        let serve_http = axum::serve(http, routes);
        let serve_grpc = Server::builder()
            .max_concurrent_streams(4_096)
            .add_service(TelemetryServiceServer::new(Telemetry))
            .serve_with_incoming(TcpIncoming::from(grpc).with_nodelay(Some(true)));
        tokio::select! {
            () = shutdown => Ok(()),
            ended = serve_http.into_future() => Ok(ended?),
            ended = serve_grpc => Ok(ended?),
        }
    }
}

/// Looks at every byte once.
async fn scan(body: Bytes) -> String {
    lines(&body).to_string()
}

/// One pass over a body.
pub(crate) fn lines(body: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', body).count()
}

async fn keep(
    State(pages): State<Pages>,
    Path(encoding): Path<String>,
    page: Bytes,
) -> Result<(), StatusCode> {
    let known = Encoding::ALL.into_iter().find(|e| e.name() == encoding);
    pages.0.write()[known.ok_or(StatusCode::NOT_FOUND)? as usize] = page;
    Ok(())
}

async fn send(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let [plain, gzip] = pages.0.read().clone();
    if headers.contains_key(header::ACCEPT_ENCODING) {
        let encoding: (HeaderName, _) = (header::CONTENT_ENCODING, "gzip");
        return ([encoding], gzip).into_response();
    }
    plain.into_response()
}

async fn tell(State(Told(listeners)): State<Told>, text: Bytes) -> String {
    listeners.send(text).unwrap_or_default().to_string()
}

async fn listen(State(Told(listeners)): State<Told>) -> Response {
    let texts = BroadcastStream::new(listeners.subscribe());
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(texts)).into_response()
}

/// Decodes every message, and acknowledges frames.
struct Telemetry;

#[tonic::async_trait]
impl TelemetryService for Telemetry {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<ReportResponse, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<tonic::Response<Self::ReportStream>, Status> {
        let answers = request.into_inner().filter_map(|said| match said {
            Ok(request) => {
                answer(request).map(|message| Ok(ReportResponse { message: Some(message) }))
            }
            Err(status) => Some(Err(status)),
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}

fn answer(request: ReportRequest) -> Option<Answer> {
    let ack = |sequence| Answer::Ack(v1::Ack { sequence, ..v1::Ack::default() });
    match request.message? {
        Said::Hello(_) => Some(Answer::Welcome(v1::Welcome::default())),
        Said::Snapshot(snapshot) => Some(ack(snapshot.sequence)),
        Said::Delta(delta) => Some(ack(delta.sequence)),
        Said::Definitions(_) | Said::Goodbye(_) => None,
    }
}

#[cfg(test)]
mod tests;
