//! Faults laid in the way of REST calls.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::ApiError;

/// Faults that wait on one route at most; further ones are not taken.
const WAITING: usize = 10_000;

/// The routes that are served and booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// `GET /gateway`
    Gateway,
    /// `GET /gateway/bot`
    GatewayBot,
    /// `GET /users/@me`
    CurrentUser,
    /// `GET /applications/@me`, and the older `GET /oauth2/applications/@me`
    CurrentApplication,
    /// `GET` and `PUT /applications/{id}/commands`
    Commands,
    /// `POST /interactions/{id}/{token}/callback`
    Callback,
}

/// Whose limit a 429 is about: the header `x-ratelimit-scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimitScope {
    /// The bot's own, of a bucket of routes.
    User,
    /// The bot's own, of all routes.
    Global,
    /// Of what is asked for, whoever asks: not the bot's fault, and no invalid request.
    Shared,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// 429 with Discord's headers and JSON; the request has no effect.
    RateLimited {
        /// When the bot may try again.
        retry_after: Duration,
        /// Whose limit it is.
        scope: RateLimitScope,
    },
    /// This status with Discord's JSON; the request has no effect. One that is no error status has no effect either:
    /// the request is served.
    Status(u16),
    /// The request is served after this time.
    Delay(Duration),
}

impl Fault {
    /// The answer in place of the route's; `None` where the route answers.
    pub(super) fn response(self) -> Option<Response> {
        match self {
            Self::RateLimited { retry_after, scope } => Some(rate_limited(retry_after, scope)),
            Self::Status(status) => StatusCode::from_u16(status)
                .ok()
                .filter(|status| status.is_client_error() || status.is_server_error())
                .map(|status| ApiError::injected(status).into_response()),
            Self::Delay(_) => None,
        }
    }
}

fn rate_limited(retry_after: Duration, scope: RateLimitScope) -> Response {
    let seconds = retry_after.as_secs_f64();
    // The header knows whole seconds only.
    let whole = seconds.ceil().to_string();
    let name = match scope {
        RateLimitScope::User => "user",
        RateLimitScope::Global => "global",
        RateLimitScope::Shared => "shared",
    };
    let headers = [
        ("retry-after", whole),
        ("x-ratelimit-scope", name.to_owned()),
        ("x-ratelimit-bucket", "injected".to_owned()),
        ("x-ratelimit-limit", "1".to_owned()),
        ("x-ratelimit-remaining", "0".to_owned()),
        ("x-ratelimit-reset-after", seconds.to_string()),
    ];
    let body = json!({
        "message": "You are being rate limited.",
        "retry_after": seconds,
        "global": scope == RateLimitScope::Global,
    });
    (StatusCode::TOO_MANY_REQUESTS, headers, Json(body)).into_response()
}

/// The faults that wait for their requests.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: BTreeMap<Route, VecDeque<Fault>>,
}

impl Faults {
    /// Lays a fault in the way of the next `times` requests of a route, after those that wait already.
    pub(crate) fn inject(&mut self, route: Route, fault: Fault, times: usize) {
        let waiting = self.waiting.entry(route).or_default();
        let room = WAITING - waiting.len();
        waiting.extend(std::iter::repeat_n(fault, times.min(room)));
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(crate) fn take(&mut self, route: Route) -> Option<Fault> {
        self.waiting.get_mut(&route)?.pop_front()
    }
}
