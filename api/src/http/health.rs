//! Whether the api lives, and whether it can serve.

use axum::{
    Json, extract,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::Http;
use crate::events::Reach;

/// What the api needs, and has or not.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "status": "ok", "database": "up", "events": "redis", "manager": "up" }))]
pub(super) struct Readiness {
    #[schema(inline)]
    status: ReadinessStatus,
    #[schema(inline)]
    database: State,
    #[schema(inline)]
    events: Reach,
    #[schema(inline)]
    manager: State,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ReadinessStatus {
    Ok,
    Unavailable,
    ShuttingDown,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum State {
    Up,
    Down,
}

/// The process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses((status = 200, description = "`ok`", body = String, content_type = "text/plain; charset=utf-8", example = "ok"))
)]
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// The api can serve.
///
/// Without the database it cannot; it goes on without Redis or the manager, and says so.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot, or is shutting down", body = Readiness),
    )
)]
pub(super) async fn ready(extract::State(http): extract::State<Http>) -> Response {
    let up = http.store.is_up();
    let (code, status) = if http.shutdown.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, ReadinessStatus::ShuttingDown)
    } else if up {
        (StatusCode::OK, ReadinessStatus::Ok)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, ReadinessStatus::Unavailable)
    };
    let state = |up| if up { State::Up } else { State::Down };
    let manager = state(http.fleet.is_up().await);
    let events = http.events.reach();
    (code, Json(Readiness { status, database: state(up), events, manager })).into_response()
}
