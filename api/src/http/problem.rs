//! Every answer that says no is a problem document (RFC 9457); this is the one place that makes them.

use axum::{
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use shardmeter_access::CHALLENGES;
use utoipa::ToSchema;

use super::request_id::RequestId;
use crate::store::StoreError;

/// The media type of a problem document.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// Seconds after which a request that could not be served may be tried again: the database is looked for that often.
const RETRY_AFTER: u32 = 1;

/// What is wrong: the end of the document's `type`, and a label value of `http_request_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorType {
    /// The request is not as it must be: its path, its query, its headers, its body.
    Invalid,
    /// No such page, shard or guild.
    NotFound,
    MethodNotAllowed,
    /// Somebody else changed it since.
    Changed,
    /// It must be said what is to be changed: `If-Match`.
    PreconditionRequired,
    TooLarge,
    UnsupportedMediaType,
    Unauthorized,
    Forbidden,
    TooMany,
    /// It took too long.
    Timeout,
    DatabaseAway,
    ManagerAway,
    /// As much is going on as may.
    Full,
    /// A mistake of ours; the log has more.
    Internal,
}

impl ErrorType {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Changed => "changed",
            Self::PreconditionRequired => "precondition_required",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TooMany => "too_many",
            Self::Timeout => "timeout",
            Self::DatabaseAway => "database_away",
            Self::ManagerAway => "manager_away",
            Self::Full => "full",
            Self::Internal => "internal",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Changed => StatusCode::PRECONDITION_FAILED,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Timeout | Self::DatabaseAway | Self::ManagerAway | Self::Full => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Of an answer that was not made here: axum's own, say.
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            status if status.is_client_error() => Self::Invalid,
            _ => Self::Internal,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Invalid => "The request is not valid",
            Self::NotFound => "There is no such thing",
            Self::MethodNotAllowed => "Not with this method",
            Self::Changed => "It was changed meanwhile",
            Self::PreconditionRequired => "Say what you change",
            Self::TooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body is of an unknown type",
            Self::Unauthorized => "A token is needed",
            Self::Forbidden => "Not allowed",
            Self::TooMany => "Too many requests",
            Self::Timeout => "It took too long",
            Self::DatabaseAway => "The database is away",
            Self::ManagerAway => "The manager is away",
            Self::Full => "Too much is going on",
            Self::Internal => "A mistake of ours",
        }
    }
}

/// Why a request is not served. As a response it is a status and headers alone; [`render`](Problem::render) gives it its
/// body where the request is known.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    error_type: ErrorType,
    detail: String,
    retry_after: Option<u32>,
}

impl Problem {
    pub(crate) fn new(error_type: ErrorType, detail: impl Into<String>) -> Self {
        let retry_after =
            (error_type.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER);
        Self { error_type, detail: detail.into(), retry_after }
    }

    /// Says when to try again, in seconds.
    #[must_use]
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, detail)
    }

    /// Of a response that says no and was not made here.
    fn of(status: StatusCode) -> Self {
        let error_type = ErrorType::of(status);
        let detail = match error_type {
            ErrorType::NotFound => "no such page; /docs lists them",
            ErrorType::MethodNotAllowed => "the page exists, but not with this method; see Allow",
            _ => status.canonical_reason().unwrap_or("refused"),
        };
        Self::new(error_type, detail)
    }

    /// Makes a problem document of any response that says no, and tells what was wrong. An answer in JSON of its own, as
    /// readiness is, stays what it is.
    pub(crate) fn render(response: &mut Response, path: &str, id: &RequestId) -> Option<ErrorType> {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return None;
        }
        let json = HeaderValue::from_static("application/json");
        if response.headers().get(header::CONTENT_TYPE) == Some(&json) {
            return None;
        }
        let problem = response.extensions_mut().remove().unwrap_or_else(|| Self::of(status));
        let error_type = problem.error_type;
        let document = Document { status: status.as_u16(), ..problem.document(path, Some(id)) };
        // Texts and a number: this cannot fail.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        *response.body_mut() = body.into();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        Some(error_type)
    }
}

impl Problem {
    /// What it says about the request of this path and name.
    pub(crate) fn document(self, path: &str, id: Option<&RequestId>) -> Document {
        let Self { error_type, detail, .. } = self;
        Document {
            kind: format!("urn:shardmeter:problem:{}", error_type.as_str()),
            title: error_type.title().to_owned(),
            status: error_type.status().as_u16(),
            detail,
            instance: path.to_owned(),
            request_id: id.map(ToString::to_string),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.error_type.status().into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.error_type == ErrorType::Unauthorized {
            for how in CHALLENGES.map(HeaderValue::from_static) {
                response.headers_mut().append(header::WWW_AUTHENTICATE, how);
            }
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Why a request was not served (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "urn:shardmeter:problem:not_found",
    "title": "There is no such thing",
    "status": 404,
    "detail": "the fleet has no shard 99",
    "instance": "/api/v1/shards/99",
    "request_id": "5f3a9c01d2e4b687",
}))]
pub(crate) struct Document {
    /// What kind of problem it is; stable.
    #[serde(rename = "type")]
    kind: String,
    /// The same for people.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request.
    detail: String,
    /// The path that was asked for.
    instance: String,
    /// What the api's log calls the request: its `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away(reason) => {
                tracing::debug!(reason, "a request needs the database, which is away");
                Self::new(ErrorType::DatabaseAway, "the database does not answer; try again")
            }
            StoreError::Failed(error) => {
                tracing::error!(%error, "the database refused a statement");
                Self::new(ErrorType::Internal, "the database refused; the api's log has more")
            }
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ErrorType::of(rejection.status()), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorType::of(rejection.status()), rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(ErrorType::of(rejection.status()), rejection.body_text())
    }
}
