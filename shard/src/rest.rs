//! Discord's REST API: the one door through which every call of the bot goes, so that all are counted.
//!
//! twilight-http builds and validates the requests, this module sends them. twilight-http 0.18's own sending would not
//! do here: without bucket headers (interaction callbacks have none) its rate limiter lets one request of the whole
//! process through at a time, so one slow callback makes the others miss their deadline; and it retries a 429 by itself
//! without telling, so that invalid requests could not be counted. The routes the bot uses need no rate limiter: callbacks
//! are outside the global limit, the others are rare and wait as long as Discord says.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use shardmeter_process::traces::{self, part_of_trace};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, field::Empty, info_span};
use twilight_http::{
    API_VERSION,
    request::{Method, Request, TryIntoRequest},
};
use twilight_model::{
    application::command::Command,
    gateway::connection_info::BotConnectionInfo,
    http::interaction::InteractionResponse,
    id::{
        Id,
        marker::{ApplicationMarker, InteractionMarker},
    },
};

use crate::metrics::RestMetrics;

/// Discord's own API.
pub(crate) const DISCORD_API: &str = "https://discord.com";

/// How long a call may take that nobody waits for.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read of an answer; Discord's answers to this bot are a few kB.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Discord's word on an error is shown up to this length.
const MAX_MESSAGE_CHARS: usize = 200;

/// Nobody waits longer for a rate limit, whatever the header says.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Discord asks for a user agent of this shape (reference, "User Agent").
const USER_AGENT: &str = concat!("DiscordBot (shardmeter, ", env!("CARGO_PKG_VERSION"), ")");

/// The routes the bot calls; also the label value.
#[derive(Debug, Clone, Copy)]
enum Route {
    GatewayBot,
    InteractionCallback,
    Commands,
}

impl Route {
    const ALL: [Self; 3] = [Self::GatewayBot, Self::InteractionCallback, Self::Commands];

    fn label(self) -> &'static str {
        match self {
            Self::GatewayBot => "/gateway/bot",
            Self::InteractionCallback => "/interactions/{id}/{token}/callback",
            Self::Commands => "/applications/{id}/commands",
        }
    }
}

/// Whose rate limit a 429 is about, as Discord's header says; also the label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    User,
    Global,
    Shared,
    /// Not said, or in a new word: Discord's front, not Discord.
    None,
}

impl Scope {
    const ALL: [Self; 4] = [Self::User, Self::Global, Self::Shared, Self::None];

    fn of(headers: &HeaderMap) -> Self {
        let said = headers.get("x-ratelimit-scope").map(HeaderValue::as_bytes);
        let known = Self::ALL.into_iter().find(|scope| Some(scope.label().as_bytes()) == said);
        known.unwrap_or(Self::None)
    }

    fn label(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Global => "global",
            Self::Shared => "shared",
            Self::None => "none",
        }
    }
}

impl RestMetrics {
    /// Shows every rate limit from the start, so that a rate sees the first 429.
    fn start_at_zero(&self) {
        for route in Route::ALL {
            for scope in Scope::ALL {
                self.rate_limits(route, scope);
            }
        }
    }

    fn rate_limits(&self, route: Route, scope: Scope) -> prometheus::IntCounter {
        let labels = [route.label(), scope.label()];
        self.discord_rest_rate_limits_total.with_label_values(&labels)
    }

    /// Counts an answer of Discord's.
    fn answered(&self, route: Route, status: StatusCode, headers: &HeaderMap) {
        let labels = [route.label(), status_label(status)];
        self.discord_rest_requests_total.with_label_values(&labels).inc();
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.rate_limits(route, Scope::of(headers)).inc();
        }
        if is_invalid(status, headers) {
            self.discord_invalid_requests_total.inc();
            self.discord_invalid_requests_remaining.sent();
        }
    }

    /// Counts a request that was not answered.
    fn failed(&self, route: Route, how: &str) {
        self.discord_rest_requests_total.with_label_values(&[route.label(), how]).inc();
    }
}

/// Why a call of Discord's REST API failed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// twilight-http refused to build the request.
    #[error("the request cannot be built")]
    Build(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer before the deadline.
    #[error("Discord did not answer in time")]
    Timeout,
    /// The connection could not be made, or broke.
    #[error("Discord cannot be reached")]
    Transport(#[source] hyper_util::client::legacy::Error),
    /// Discord refused.
    #[error("Discord answered {status}: {message}")]
    Status {
        /// The answer's status.
        status: StatusCode,
        /// How long Discord asks to wait.
        retry_after: Option<Duration>,
        /// Discord's words.
        message: String,
    },
    /// The answer is not what Discord documents.
    #[error("Discord's answer cannot be read")]
    Decode(#[source] serde_json::Error),
}

impl RestError {
    /// Whether Discord says that the token is no good.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::UNAUTHORIZED, .. })
    }

    /// How long to wait before the next try: `pause`, or longer if Discord asks for it.
    pub(crate) fn pause(&self, pause: Duration) -> Duration {
        match self {
            Self::Status { retry_after, .. } => pause.max(retry_after.unwrap_or_default()),
            _ => pause,
        }
    }
}

/// Discord's REST API, counted.
pub(crate) struct Rest {
    /// Builds and validates requests; never sends one and does not know the token.
    requests: twilight_http::Client,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    authorization: HeaderValue,
    metrics: RestMetrics,
}

impl Rest {
    /// REST at `api` (scheme and host), with `authorization` as the header of that name.
    pub(crate) fn new(
        api: &str,
        mut authorization: HeaderValue,
        metrics: RestMetrics,
    ) -> Result<Self, rustls::Error> {
        authorization.set_sensitive(true);
        metrics.start_at_zero();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_all_versions()
            .build();
        Ok(Self {
            requests: twilight_http::Client::builder().ratelimiter(None).build(),
            http: Client::builder(TokioExecutor::new()).build(connector),
            base: format!("{}/api/v{API_VERSION}", api.trim_end_matches('/')),
            authorization,
            metrics,
        })
    }

    /// What Discord says about this bot's gateway: its address, the shards it recommends, the identifies it allows.
    pub(crate) async fn gateway_bot(&self) -> Result<BotConnectionInfo, RestError> {
        let request = self.requests.gateway().authed();
        let answer = self.call(Route::GatewayBot, request, Instant::now() + CALL_TIMEOUT).await?;
        serde_json::from_slice(&answer).map_err(RestError::Decode)
    }

    /// Answers an interaction. `Ok` means that Discord confirmed it.
    pub(crate) async fn answer(
        &self,
        application: Id<ApplicationMarker>,
        interaction: Id<InteractionMarker>,
        token: &str,
        response: &InteractionResponse,
        deadline: Instant,
    ) -> Result<(), RestError> {
        let client = self.requests.interaction(application);
        let request = client.create_response(interaction, token, response);
        self.call(Route::InteractionCallback, request, deadline).await.map(drop)
    }

    /// Makes `commands` the bot's global commands, all others vanish.
    pub(crate) async fn set_commands(
        &self,
        application: Id<ApplicationMarker>,
        commands: &[Command],
    ) -> Result<(), RestError> {
        let client = self.requests.interaction(application);
        let request = client.set_global_commands(commands);
        self.call(Route::Commands, request, Instant::now() + CALL_TIMEOUT).await.map(drop)
    }

    /// Sends a request; a span, where it is part of a trace.
    async fn call(
        &self,
        route: Route,
        request: impl TryIntoRequest,
        deadline: Instant,
    ) -> Result<Bytes, RestError> {
        let request = request.try_into_request().map_err(|error| RestError::Build(error.into()))?;
        let span = part_of_trace(|| {
            let name = format!("{} {}", method(request.method()), route.label());
            info_span!(
                "call",
                otel.name = name,
                otel.kind = "client",
                otel.status_code = Empty,
                otel.status_description = Empty
            )
        });
        let sent = self.send(route, &request, deadline).instrument(span.clone()).await;
        sent.inspect_err(|error| traces::failed(&span, error))
    }

    /// Sends a request and counts how it ended. The body of an answer that breaks off is as good as none: only who needs
    /// it fails, for Discord has confirmed.
    async fn send(
        &self,
        route: Route,
        request: &Request,
        deadline: Instant,
    ) -> Result<Bytes, RestError> {
        let request = self.http_request(request).map_err(|error| RestError::Build(error.into()))?;
        let response = match timeout_at(deadline, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.metrics.failed(route, "unreachable");
                return Err(RestError::Transport(error));
            }
            Err(_elapsed) => {
                self.metrics.failed(route, "timeout");
                return Err(RestError::Timeout);
            }
        };
        let (parts, body) = response.into_parts();
        self.metrics.answered(route, parts.status, &parts.headers);
        let body = timeout_at(deadline, Limited::new(body, MAX_ANSWER_BYTES).collect()).await;
        let body = body
            .ok()
            .and_then(Result::ok)
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        if parts.status.is_success() {
            return Ok(body);
        }
        Err(RestError::Status {
            status: parts.status,
            retry_after: retry_after(&parts.headers),
            message: message(&body),
        })
    }

    fn http_request(&self, request: &Request) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let body = request.body().map(Bytes::copy_from_slice);
        let mut builder = http::Request::builder()
            .method(method(request.method()))
            .uri(format!("{}/{}", self.base, request.path()))
            .header(header::USER_AGENT, USER_AGENT);
        if request.use_authorization_token() {
            builder = builder.header(header::AUTHORIZATION, self.authorization.clone());
        }
        if body.is_some() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        builder.body(Full::new(body.unwrap_or_default()))
    }
}

fn method(method: Method) -> http::Method {
    match method {
        Method::Delete => http::Method::DELETE,
        Method::Patch => http::Method::PATCH,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        // `Method` may grow; what the bot uses is listed.
        _ => http::Method::GET,
    }
}

/// Whether Discord counts the request towards its limit of invalid ones (reference, "Invalid Request Limit").
fn is_invalid(status: StatusCode, headers: &HeaderMap) -> bool {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
        StatusCode::TOO_MANY_REQUESTS => Scope::of(headers) != Scope::Shared,
        _ => false,
    }
}

/// The status as a label: Discord's usual ones by number, the rest by class, so that no peer can grow the set.
fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        201 => "201",
        204 => "204",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        other => match other / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        },
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().map(|wait| wait.min(LONGEST_RETRY_AFTER))
}

/// Discord's words in an error's body.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Body {
        message: String,
    }
    serde_json::from_slice(body).map_or_else(
        |_| "no message".to_owned(),
        |Body { message }| message.chars().take(MAX_MESSAGE_CHARS).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_rate_limit_is_no_invalid_request() {
        let mut headers = HeaderMap::new();
        assert!(is_invalid(StatusCode::TOO_MANY_REQUESTS, &headers));
        headers.insert("x-ratelimit-scope", HeaderValue::from_static("user"));
        assert!(is_invalid(StatusCode::TOO_MANY_REQUESTS, &headers));
        headers.insert("x-ratelimit-scope", HeaderValue::from_static("shared"));
        assert!(!is_invalid(StatusCode::TOO_MANY_REQUESTS, &headers));
        assert!(is_invalid(StatusCode::UNAUTHORIZED, &headers));
        assert!(is_invalid(StatusCode::FORBIDDEN, &headers));
        assert!(!is_invalid(StatusCode::NOT_FOUND, &headers));
    }

    #[test]
    fn a_retry_after_is_bounded() {
        let of = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(
                header::RETRY_AFTER,
                HeaderValue::from_static(text),
            )]))
        };
        assert_eq!(of("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(of("1e300"), None);
        assert_eq!(of("99999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(of("-1"), None);
        assert_eq!(of("NaN"), None);
        assert_eq!(of("soon"), None);
    }
}
