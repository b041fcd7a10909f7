//! Routes; each is in the OpenAPI document, with every answer it may give.

mod commands;
mod etag;
mod events;
mod extract;
mod health;
mod openapi;
mod problem;
mod request_id;
mod settings;
mod shards;

use std::{future::ready, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use shardmeter_access::Role;
use shardmeter_process::traces::Cause;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;
use tracing::{Instrument as _, Span, debug_span, info_span};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    events::Events,
    fleet::Fleet,
    gate::{Gate, Group, admit},
    metrics::Metrics,
    store::Store,
};
pub(crate) use events::Listeners;
pub(crate) use problem::{ErrorType, MEDIA_TYPE, Problem};
use request_id::RequestId;
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

/// How long a browser may remember that a page of another origin may ask.
const CORS_FOR: Duration = Duration::from_secs(3600);

/// All routes. Each is in the group of those that may use it; pages of these origins may ask too.
pub(crate) fn routes(http: Http, gate: &Arc<Gate>, origins: Vec<HeaderValue>) -> Router {
    let group = |group| from_fn_with_state((Arc::clone(gate), group), admit);
    let only = |role| group(Group::Of(role));
    let anybody = OpenApiRouter::with_openapi(openapi::description())
        .routes(routes!(health::live))
        .routes(routes!(health::ready));
    let view = OpenApiRouter::new()
        .routes(routes!(shards::list))
        .routes(routes!(shards::one))
        .routes(routes!(shards::history))
        .routes(routes!(shards::guild))
        .routes(routes!(settings::read))
        .routes(routes!(commands::top))
        .routes(routes!(events::listen));
    let admin = OpenApiRouter::new().routes(routes!(settings::change));
    let (routes, document) = anybody
        .merge(view.route_layer(only(Role::View)))
        .merge(admin.route_layer(only(Role::Admin)))
        .split_for_parts();
    let scrapes = Router::new().route("/metrics", get(scrape)).route_layer(group(Group::Scrapes));
    let unknown = any(|| ready(StatusCode::NOT_FOUND)).layer(group(Group::Unknown));
    let routes = routes
        .merge(openapi::pages(document).route_layer(only(Role::View)))
        .merge(scrapes)
        .fallback_service(unknown)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn(in_time));
    let routes = if origins.is_empty() { routes } else { routes.layer(cors(origins)) };
    routes.layer(from_fn_with_state(http.clone(), finish)).with_state(http)
}

/// What pages of other origins may ask, and read of the answer.
fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::PUT])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            LAST_EVENT,
            request_id::HEADER,
        ])
        .expose_headers([header::ETAG, header::RETRY_AFTER, request_id::HEADER])
        .max_age(CORS_FOR)
}

/// An answer that takes too long is given up.
async fn in_time(request: Request, next: Next) -> Response {
    timeout(ANSWER_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
        Problem::new(ErrorType::Timeout, "the answer took too long; try again").into_response()
    })
}

/// What happens to every answer: refusals become problem documents, it says which request it is of, and is counted, by the
/// route that was matched.
async fn finish(State(http): State<Http>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = RequestId::of(request.headers());
    let span = span(&request, route.as_ref(), &id);
    let mut response = next.run(request).instrument(span).await;
    let error = Problem::render(&mut response, &path, &id);
    response.headers_mut().insert(request_id::HEADER, id.into());
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    http.metrics.http.count(&method, route, response.status(), began.elapsed(), error);
    response
}

/// What is done about a request. Traces go on here, or begin; but not with those who only look whether the api is well.
fn span(request: &Request, route: Option<&MatchedPath>, id: &RequestId) -> Span {
    let route = route.map_or("other", MatchedPath::as_str);
    let name = format!("{} {route}", request.method());
    let span = match route {
        "/healthz" | "/readyz" | "/metrics" => debug_span!("request", request_id = %id),
        _ => info_span!("request", request_id = %id, otel.name = name, otel.kind = "server"),
    };
    if let Some(cause) = Cause::of(request.headers()) {
        cause.causes(&span);
    }
    span
}

/// The api's own metrics, for Prometheus.
async fn scrape(State(http): State<Http>) -> Response {
    http.fleet.is_up().await; // and that is a metric
    match http.metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be shown");
            Problem::new(ErrorType::Internal, "the metrics cannot be shown").into_response()
        }
    }
}
