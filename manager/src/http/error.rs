//! Every answer that says no: its status and its JSON, in one place.

use axum::{
    Json,
    extract::rejection::BytesRejection,
    http::{HeaderMap, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
};
use mediatype::MediaType;
use serde::Deserialize;

use shardmeter_access::{BodyError, CHALLENGES, Denied, Farewell, Full, cause};

use super::{MAX_BODY_BYTES, received::NoRoom};
use crate::{
    clip::clip,
    ingest::IngestError,
    rates::{self, TooFast},
    registry::ReportError,
};

/// Seconds after which a request that was too much may be tried again: by then a silent instance no longer counts.
const RETRY_AFTER: u64 = 30;

/// A refused request. Rendered as `{"error": "..."}`; nothing of the request was applied.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    message: String,
    /// Seconds after which the same may be taken, with 429 and 503.
    retry_after: u64,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: clip(message.into()), retry_after: RETRY_AFTER }
    }

    /// What it says.
    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// serde says line and column.
    #[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
    pub(super) fn bad_json(error: serde_json::Error) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{EXPECTED}: {error}"))
    }

    /// Why `metrics` of this body is no string: serde says it once it is to read one.
    pub(super) fn bad_metrics(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Metrics {
            #[expect(dead_code, reason = "read for the error alone")]
            metrics: String,
        }
        match serde_json::from_slice::<Metrics>(body) {
            Err(error) => Self::bad_json(error),
            Ok(_) => Self::new(StatusCode::BAD_REQUEST, EXPECTED),
        }
    }

    /// There is no place for another.
    pub(super) fn full(full: Full) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, full.to_string())
    }

    /// A mistake of ours; the log has more.
    pub(super) fn failed(what: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{what} failed"))
    }

    pub(super) fn not_an_object() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            format!("{EXPECTED}: expected an object at line 1 column 1"),
        )
    }
}

const EXPECTED: &str = "the body is not {\"shardId\": ..., \"metrics\": \"...\"}";

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let body = Json(serde_json::json!({ "error": self.message }));
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let retry_after = self.retry_after.to_string();
                (self.status, [(header::RETRY_AFTER, retry_after)], body).into_response()
            }
            StatusCode::UNAUTHORIZED => {
                let ask = CHALLENGES.map(|how| (header::WWW_AUTHENTICATE, how));
                (self.status, AppendHeaders(ask), body).into_response()
            }
            status => (status, body).into_response(),
        }
    }
}

impl From<IngestError> for HttpError {
    fn from(error: IngestError) -> Self {
        let status = match &error {
            IngestError::NotAString
            | IngestError::Parse(_)
            | IngestError::Protobuf(_)
            | IngestError::Assemble(_)
            | IngestError::Report(ReportError::Bad { .. } | ReportError::Twice { .. }) => {
                StatusCode::BAD_REQUEST
            }
            IngestError::GroupTaken => StatusCode::CONFLICT,
            IngestError::Report(
                ReportError::Closed | ReportError::AlsoGrpc | ReportError::FellAgain { .. },
            ) => StatusCode::CONFLICT,
            IngestError::Report(ReportError::TooManyInstances(_) | ReportError::FleetFull(_)) => {
                StatusCode::TOO_MANY_REQUESTS
            }
        };
        let place = if status == StatusCode::BAD_REQUEST { "metrics: " } else { "" };
        Self::new(status, format!("{place}{error}"))
    }
}

impl From<Denied> for HttpError {
    fn from(denied: Denied) -> Self {
        let status =
            if denied.wants_token() { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        Self::new(status, denied.to_string())
    }
}

impl From<TooFast> for HttpError {
    fn from(too_fast: TooFast) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, rates::refusal(&too_fast));
        error.retry_after = too_fast.retry_after.as_secs().saturating_add(1);
        error
    }
}

impl From<BytesRejection> for HttpError {
    fn from(rejection: BytesRejection) -> Self {
        if let Some(late @ BodyError::Late) = cause(&rejection) {
            return Self::new(StatusCode::REQUEST_TIMEOUT, late.to_string());
        }
        if let Some(full) = cause::<NoRoom>(&rejection) {
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, full.to_string());
        }
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the body is over {MAX_BODY_BYTES} bytes");
            return Self::new(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// What a connection is told that finds no place.
pub(crate) fn say_full(full: Full) -> Farewell {
    let body = serde_json::json!({ "error": full.to_string() }).to_string();
    Farewell { content_type: "application/json", body }
}

/// Refuses a body that does not say it is JSON.
pub(super) fn expect_json(headers: &HeaderMap) -> Result<(), HttpError> {
    let stated =
        headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let is_json =
        MediaType::parse(stated).is_ok_and(|t| t.ty == "application" && t.subty == "json");
    if is_json {
        return Ok(());
    }
    let message = format!("Content-Type is {stated:?}; send application/json");
    Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}
