//! The HTTP port: the scrape, the way in for bots without gRPC, and what operators ask.

mod body;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod scrape;
mod shard_metrics;
mod shards;

use std::{future::ready, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    exposition::Exposition,
    ingest::PreviousBodies,
    journal::{Journal, JournalState},
    metrics::Metrics,
    registry::Registry,
};
use error::HttpError;

/// Longest body of a POST, bytes: a shard at its limit of 5,000 series has about 1 MB of text.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Parts of pages that are rendered at the same time: each costs what a page does.
pub(crate) const PARTS_AT_ONCE: usize = 2;

/// What every request needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) registry: Arc<Registry>,
    pub(crate) previous_bodies: Arc<PreviousBodies>,
    pub(crate) exposition: Arc<Exposition>,
    /// Parts of pages that may be rendered at the same time.
    pub(crate) parts: Arc<Semaphore>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    /// Whether OpenMetrics pages have `_created` samples.
    pub(crate) openmetrics_created: bool,
    pub(crate) shutdown: CancellationToken,
}

/// All routes.
pub(crate) fn routes(http: Http) -> Router {
    Router::new()
        .route("/metrics", get(scrape::scrape))
        .route("/", get(|| ready(INDEX)))
        .route("/shard-metrics", post(shard_metrics::take))
        .route("/api/v1/shards", get(shards::list))
        .route("/healthz", get(|| ready("ok\n")))
        .route("/readyz", get(readiness))
        .fallback(|| ready(HttpError::new(StatusCode::NOT_FOUND, "no such page; / lists them")))
        .method_not_allowed_fallback(|| {
            ready(HttpError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "the page exists, but not with this method",
            ))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(http)
}

const INDEX: &str = "\
shardmeter-manager
  GET  /metrics          all shards' metrics, for Prometheus (text, OpenMetrics, protobuf); a part of them with
                         ?name[]=guild_count and ?shard_id=3
  POST /shard-metrics    {\"shardId\": 3, \"metrics\": \"<Prometheus text>\"}
  GET  /api/v1/shards    who reports, as JSON
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
