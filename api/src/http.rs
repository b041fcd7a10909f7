//! Routes.

use axum::{Router, routing::get};

pub(crate) fn router() -> Router {
    Router::new().route("/healthz", get(async || "ok\n"))
}
