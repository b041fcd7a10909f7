//! The HTTP port: the scrape, the way in for bots without gRPC, and what operators ask.

mod coding;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod page;
mod posted;
mod push;
mod readers;
mod received;
mod scrape;
mod shard_metrics;
mod shards;

use std::{future::ready, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use shardmeter_access::{Access, Peer, Places, Role};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    exposition::Exposition,
    ingest::PreviousBodies,
    journal::{Journal, JournalState},
    live::Live,
    metrics::Metrics,
    rates::Rates,
    registry::Registry,
    trace,
};
use error::HttpError;
pub(crate) use error::say_full;
pub(crate) use page::VIEWERS;
pub(crate) use readers::Readers;
pub(crate) use received::Room;

/// Longest body of a POST, bytes: a shard at its limit of 5,000 series has about 1 MB of text.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Parts of pages that are rendered at the same time: each costs what a page does.
pub(crate) const PARTS_AT_ONCE: usize = 2;

/// Bodies that are read as a whole at the same time: each may be unpacked to [`MAX_BODY_BYTES`], and takes several times its
/// size while it is read.
pub(crate) const BODIES_AT_ONCE: usize = 8;

/// What bodies that are not small may take at the same time while they come, wait and are read, bytes: each connection may
/// have one of [`MAX_BODY_BYTES`].
pub(crate) const BODY_BYTES_AT_ONCE: usize = 256 << 20;

/// What every request needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) registry: Arc<Registry>,
    pub(crate) previous_bodies: Arc<PreviousBodies>,
    pub(crate) exposition: Arc<Exposition>,
    /// Parts of pages that may be rendered at the same time.
    pub(crate) parts: Arc<Semaphore>,
    /// Those that read answers.
    pub(crate) readers: Arc<Readers>,
    /// The fleet at this second, and those that look at it.
    pub(crate) live: Arc<Live>,
    pub(crate) viewers: Arc<Places>,
    /// Bodies that may be read at the same time.
    pub(crate) bodies: Arc<Semaphore>,
    /// What bodies on their way may take.
    pub(crate) room: Arc<Room>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) clock: Clock,
    /// Whether OpenMetrics pages have `_created` samples.
    pub(crate) openmetrics_created: bool,
    pub(crate) shutdown: CancellationToken,
}

/// All routes. Each is in the group of those that may use it.
pub(crate) fn routes(http: Http, access: &Arc<Access>) -> Router {
    let group = || put(push::take_group).post(push::take_group).delete(push::end_group);
    let ingest = push::PATHS.iter().fold(Router::new(), |ingest, path| ingest.route(path, group()));
    let ingest = ingest
        .route("/metrics", post(push::take))
        .route("/shard-metrics", post(shard_metrics::take));
    let view = Router::new()
        .route("/metrics", get(scrape::scrape))
        .route("/", get(page::index))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
        .route("/api/v1/shards", get(shards::list))
        .route("/api/v1/shards/live", get(page::live))
        .route("/api/v1/shards/{id}", get(shards::get));
    let admin = Router::new().route("/api/v1/shards/{id}", delete(shards::forget));
    let anybody =
        Router::new().route("/healthz", get(|| ready("ok\n"))).route("/readyz", get(readiness));
    let only = |role| from_fn_with_state((Arc::clone(access), role), admit);
    anybody
        .merge(ingest.route_layer(only(Role::Ingest)))
        .merge(view.route_layer(only(Role::View)))
        .merge(admin.route_layer(only(Role::Admin)))
        .fallback(|| ready(HttpError::new(StatusCode::NOT_FOUND, "no such page; / lists them")))
        .method_not_allowed_fallback(|| {
            ready(HttpError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "the page exists, but not with this method",
            ))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(trace::request))
        .with_state(http)
}

/// Lets through who may do what the route does.
async fn admit(
    State((access, role)): State<(Arc<Access>, Role)>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>();
    match access.check(role, request.headers(), peer) {
        Ok(()) => next.run(request).await,
        Err(denied) => HttpError::from(denied).into_response(),
    }
}

const INDEX: &str = "\
shardmeter-manager
  GET  /metrics          all shards' metrics, for Prometheus (text, OpenMetrics, protobuf); a part of them with
                         ?name[]=guild_count and ?shard_id=3
  POST /shard-metrics    {\"shardId\": 3, \"metrics\": \"<Prometheus text>\"}
  POST /metrics?shard_id=3
                         Prometheus text, OpenMetrics, or delimited protobuf, by Content-Type
  PUT, POST, DELETE /metrics/job/<job>/shard_id/3{/<label>/<value>}
                         the same, as clients push to a Pushgateway
                         all bodies by Content-Encoding gzip or zstd too
  GET  /                 how the fleet is, live, for browsers
  GET  /api/v1/shards    who reports, as JSON; one of them with /3
  GET  /api/v1/shards/live
                         the same in short, each second what changed (Server-Sent Events)
  DELETE /api/v1/shards/3
                         forget what shard 3 counted (admin)
  GET  /healthz, /readyz
gRPC (telemetry, reflection, health) has a port of its own.
";

async fn readiness(State(http): State<Http>) -> Response {
    if http.shutdown.is_cancelled() {
        return HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down").into_response();
    }
    // A manager that only cannot write still takes and shows everything: whoever routes to it should go on.
    let answer = match http.journal.state() {
        JournalState::MemoryOnly => serde_json::json!({ "status": "ok", "journal": "memory" }),
        JournalState::Up => serde_json::json!({ "status": "ok", "journal": "up" }),
        JournalState::Degraded(reason) => {
            serde_json::json!({ "status": "degraded", "journal": "down", "reason": reason })
        }
    };
    Json(answer).into_response()
}
