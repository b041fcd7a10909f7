//! The HTTP port: the scrape, the way in for bots without gRPC, and what operators ask.

mod body;
mod error;
mod scrape;
mod shards;

use std::{future::ready, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    exposition::{Exposition, SharedPages},
    ingest::{self, Post, ShardIds},
    journal::{Journal, JournalState},
    metrics::{Metrics, PostOutcome},
    registry::Registry,
};
use error::HttpError;

/// Longest body of a POST, bytes: a shard at its limit of 5,000 series has about 1 MB of text.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Longest name a sender may give itself, bytes.
const MAX_INSTANCE_NAME: usize = 128;

/// Longest pause between two reports of a sender.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// What every request needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) registry: Arc<Registry>,
    pub(crate) exposition: Arc<Exposition>,
    pub(crate) pages: Arc<SharedPages>,
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
        .route("/shard-metrics", post(shard_metrics))
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

/// What bots in other languages post.
#[derive(Deserialize)]
struct ShardMetrics<'a> {
    #[serde(rename = "shardId")]
    shard_id: ShardIds,
    #[serde(borrow)]
    metrics: std::borrow::Cow<'a, str>,
}

async fn shard_metrics(
    State(http): State<Http>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let metrics = Arc::clone(&http.metrics);
    let answer = match body {
        Ok(body) => {
            // Megabytes of text take milliseconds: not on a worker that serves others.
            let taking = move || take_shard_metrics(&http, &headers, &body);
            tokio::task::spawn_blocking(taking)
                .await
                .unwrap_or_else(|_| Err(HttpError::failed("taking the body")))
        }
        Err(rejection) => Err(rejection.into()),
    };
    metrics.count_post(if answer.is_ok() { PostOutcome::Applied } else { PostOutcome::Refused });
    answer.into_response()
}

fn take_shard_metrics(
    http: &Http,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Json<serde_json::Value>, HttpError> {
    error::expect_json(headers)?;
    let instance = instance_name(headers)?;
    let sequence = report_sequence(headers)?;
    let interval = report_interval(headers)?;
    if body.trim_ascii_start().first() == Some(&b'[') {
        // serde would take an array for an object too.
        return Err(HttpError::not_an_object());
    }
    let posted: ShardMetrics<'_> = serde_json::from_slice(body).map_err(HttpError::bad_json)?;
    let post =
        Post { shards: posted.shard_id, instance, sequence, interval, text: &posted.metrics };
    let taken = ingest::ingest(&http.registry, post, http.clock.now()).map_err(|error| {
        tracing::debug!(shards = %posted.shard_id, %error, "body refused");
        HttpError::from(error)
    })?;
    http.metrics.samples.inc_by(taken.series as u64);
    let rejected = taken.rejected.iter().map(|r| {
        serde_json::json!({
            "family": r.family, "reason": r.reason.as_str(), "series": r.series, "message": r.message,
        })
    });
    Ok(Json(serde_json::json!({
        "series": taken.series,
        "identity": if taken.identified { "known" } else { "none" },
        "late": taken.late,
        // Of a late report nothing was taken, whatever became of it before.
        "durable": taken.durable && !taken.late,
        "rejected": rejected.collect::<Vec<_>>(),
    })))
}

/// What the sender calls itself, if it does.
fn instance_name(headers: &HeaderMap) -> Result<Option<&str>, HttpError> {
    let Some(name) = headers.get("x-instance-id") else {
        return Ok(None);
    };
    let name = name.to_str().ok().filter(|n| !n.is_empty() && n.len() <= MAX_INSTANCE_NAME);
    name.map(Some).ok_or_else(|| {
        let what =
            format!("X-Instance-Id must be 1 to {MAX_INSTANCE_NAME} visible ASCII characters");
        HttpError::new(StatusCode::BAD_REQUEST, what)
    })
}

/// The number of the report, if the sender numbers them.
fn report_sequence(headers: &HeaderMap) -> Result<Option<u64>, HttpError> {
    let Some(stated) = headers.get("x-report-sequence") else {
        return Ok(None);
    };
    let sequence = stated.to_str().ok().and_then(|s| s.parse().ok()).filter(|s| *s > 0);
    sequence.map(Some).ok_or_else(|| {
        HttpError::new(
            StatusCode::BAD_REQUEST,
            "X-Report-Sequence must be a whole number from 1, greater with every report",
        )
    })
}

/// How often the sender reports, if it says so.
fn report_interval(headers: &HeaderMap) -> Result<Option<Duration>, HttpError> {
    let Some(stated) = headers.get("x-report-interval") else {
        return Ok(None);
    };
    let seconds = stated.to_str().ok().and_then(|s| s.parse().ok());
    let interval = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    interval.filter(|i| !i.is_zero() && *i <= MAX_INTERVAL).map(Some).ok_or_else(|| {
        let what = format!(
            "X-Report-Interval must be the seconds between two reports, at most {}",
            MAX_INTERVAL.as_secs()
        );
        HttpError::new(StatusCode::BAD_REQUEST, what)
    })
}

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
