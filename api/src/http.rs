//! Routes; each is in the OpenAPI document, with every answer it may give.

mod commands;
mod etag;
mod events;
mod extract;
mod health;
mod openapi;
mod problem;
mod settings;
mod shards;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::header,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{events::Events, fleet::Fleet, metrics::Metrics, store::Store};
pub(crate) use events::Listeners;
pub(crate) use problem::ErrorType;
use problem::Problem;
pub(crate) use shards::ListPage;

/// Longest body, bytes: settings with all that is allowed in them take a tenth of it.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Longest until the head of an answer is there. The database gives up before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What every request needs to know.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) store: Store,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) metrics: Metrics,
    pub(crate) shards_page: Arc<ListPage>,
    pub(crate) events: Events,
    pub(crate) listeners: Listeners,
    pub(crate) shutdown: CancellationToken,
}

/// All routes.
pub(crate) fn routes(http: Http) -> Router {
    let (view, document) = OpenApiRouter::with_openapi(openapi::description())
        .routes(routes!(shards::list))
        .routes(routes!(shards::one))
        .routes(routes!(shards::history))
        .routes(routes!(shards::guild))
        .routes(routes!(settings::read, settings::change))
        .routes(routes!(commands::top))
        .routes(routes!(events::listen))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .split_for_parts();
    view.route("/metrics", get(scrape))
        .merge(openapi::pages(document))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(in_time))
        .layer(from_fn_with_state(http.clone(), finish))
        .with_state(http)
}

/// An answer that takes too long is given up.
async fn in_time(request: Request, next: Next) -> Response {
    timeout(ANSWER_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
        Problem::new(ErrorType::Timeout, "the answer took too long; try again").into_response()
    })
}

/// What happens to every answer: refusals become problem documents, and it is counted, by the route that was matched.
async fn finish(State(http): State<Http>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let error = Problem::render(&mut response, &path);
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    http.metrics.http.count(&method, route, response.status(), began.elapsed(), error);
    response
}

/// The api's own metrics, for Prometheus.
async fn scrape(State(http): State<Http>) -> Response {
    match http.metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be shown");
            Problem::new(ErrorType::Internal, "the metrics cannot be shown").into_response()
        }
    }
}
