//! The gateway: a connection task per socket, a session task per session.
//!
//! A session outlives its connections: it numbers events, keeps those the bot has not confirmed, and is attached to the
//! connection that identified or resumed. A connection knows sockets, heartbeats and close codes, and no events.

mod connection;
mod identify;
mod payload;
mod session;
mod sessions;

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

pub(crate) use identify::Starts;
pub(crate) use payload::{APPLICATION_ID, application, bot_user, command_id};
pub(crate) use session::{GuildChange, Order, SessionCommand};
pub(crate) use sessions::{SessionHandle, Sessions};

use crate::state::Shared;
use connection::Connection;

/// Greatest message taken off a socket. Above Discord's own limit for a payload, which is answered with a close code.
const MAX_MESSAGE: usize = 64 * 1024;
/// Socket buffers: a simulator holds a thousand connections, so they are small.
const SOCKET_BUFFER: usize = 8 * 1024;

/// What the gateway URL asks for. Compression is asked for and not given: plain text frames are always allowed.
#[derive(Debug, Deserialize)]
pub(crate) struct GatewayQuery {
    v: Option<String>,
    encoding: Option<String>,
}

impl GatewayQuery {
    /// Whether this is the version and encoding spoken here.
    fn is_spoken(&self) -> bool {
        self.v.as_deref().is_none_or(|version| version == "10")
            && self.encoding.as_deref().is_none_or(|encoding| encoding == "json")
    }
}

/// Takes a socket and serves it until it ends.
pub(crate) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<GatewayQuery>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let url = gateway_url(&headers);
    let cut = shared.read(|state| (!state.gateway_away).then(|| state.sessions.connection_token()));
    let Some(cut) = cut else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    upgrade
        .max_message_size(MAX_MESSAGE)
        .read_buffer_size(SOCKET_BUFFER)
        .write_buffer_size(0)
        .on_upgrade(move |socket| {
            let tasks = shared.tasks.clone();
            let connection = Connection::new(socket, shared, url, cut);
            tasks.track_future(async move {
                connection.serve(query.is_spoken()).await;
                drop(permit);
            })
        })
}

/// The gateway's address as the caller knows it: behind a proxy or in a container it is not the one that is bound.
pub(crate) fn gateway_url(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("ws://{}", host.unwrap_or_default())
}
