//! The callback: how a bot confirms an interaction.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::ApiError;
use crate::interactions::CallbackRefusal;
use crate::state::Shared;

#[derive(Debug, Deserialize)]
pub(super) struct CallbackQuery {
    #[serde(default)]
    with_response: bool,
}

#[derive(Deserialize)]
struct Callback {
    #[serde(rename = "type")]
    kind: u8,
}

/// Takes a callback. The token in the path is all the authorization it needs.
pub(super) async fn callback(
    State(shared): State<Arc<Shared>>,
    Path((id, token)): Path<(u64, String)>,
    Query(query): Query<CallbackQuery>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let callback: Callback = serde_json::from_slice(&body).map_err(|_| ApiError::INVALID_BODY)?;
    // Pong, messages, deferrals, updates, autocomplete, modal, premium, activity.
    if !matches!(callback.kind, 1 | 4..=10 | 12) {
        return Err(ApiError::INVALID_BODY);
    }
    let answered = shared.change(|state| state.interactions.answer(&mut state.books, id, &token));
    answered.map_err(|refusal| match refusal {
        CallbackRefusal::Unknown => ApiError::UNKNOWN_INTERACTION,
        CallbackRefusal::Duplicate => ApiError::ALREADY_ACKNOWLEDGED,
    })?;
    if !query.with_response {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let interaction = json!({
        "id": id.to_string(),
        "type": 2,
        "response_message_loading": false,
        "response_message_ephemeral": false,
    });
    Ok(Json(json!({"interaction": interaction})).into_response())
}
