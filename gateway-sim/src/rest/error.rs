//! How a request is refused: a status, and Discord's JSON with a code of its own.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A refusal. The codes are those of Discord's documentation of JSON error codes; 0 where it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: u32,
    message: &'static str,
}

impl ApiError {
    pub(crate) const UNAUTHORIZED: Self =
        Self::new(StatusCode::UNAUTHORIZED, 0, "401: Unauthorized");
    pub(crate) const NOT_FOUND: Self = Self::new(StatusCode::NOT_FOUND, 0, "404: Not Found");
    pub(crate) const METHOD_NOT_ALLOWED: Self =
        Self::new(StatusCode::METHOD_NOT_ALLOWED, 0, "405: Method Not Allowed");
    pub(crate) const UNKNOWN_APPLICATION: Self =
        Self::new(StatusCode::NOT_FOUND, 10_002, "Unknown Application");
    pub(crate) const UNKNOWN_INTERACTION: Self =
        Self::new(StatusCode::NOT_FOUND, 10_062, "Unknown interaction");
    pub(crate) const ALREADY_ACKNOWLEDGED: Self =
        Self::new(StatusCode::BAD_REQUEST, 40_060, "Interaction has already been acknowledged.");
    pub(crate) const INVALID_BODY: Self =
        Self::new(StatusCode::BAD_REQUEST, 50_035, "Invalid Form Body");

    const fn new(status: StatusCode, code: u32, message: &'static str) -> Self {
        Self { status, code, message }
    }

    /// A status that was injected, whatever it is.
    pub(crate) const fn injected(status: StatusCode) -> Self {
        Self::new(status, 0, "injected")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"message": self.message, "code": self.code});
        (self.status, Json(body)).into_response()
    }
}
