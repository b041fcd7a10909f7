//! Traces that others began go on here; the manager begins none. So what is recorded is for those to decide who know what they
//! want to know, and what nobody records costs nothing.

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use shardmeter_process::traces::Cause;
use tracing::{Instrument as _, info_span};

/// A request, or a call, until the head of its answer is there.
pub(crate) async fn request(request: Request, next: Next) -> Response {
    let Some(cause) = Cause::of(request.headers()) else { return next.run(request).await };
    let span = info_span!("request", otel.name = name(&request), otel.kind = "server");
    cause.causes(&span);
    next.run(request).instrument(span).await
}

/// The route of a request, the method of a call.
fn name(request: &Request) -> String {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
    match route.strip_suffix("/{*rest}") {
        Some(_service) => request.uri().path().trim_start_matches('/').to_owned(),
        None => format!("{} {route}", request.method()),
    }
}
