//! The REST routes a bot calls, under `/api/v10`, and the faults that can be laid in their way.

mod error;
mod faults;
mod interactions;

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, any, get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

pub use faults::{Fault, RateLimitScope, Route};

pub(crate) use error::ApiError;
pub(crate) use faults::Faults;

use crate::books::Registration;
use crate::gateway::{self, APPLICATION_ID};
use crate::state::Shared;

/// Discord's limit for global slash commands.
const MAX_COMMANDS: usize = 100;

/// The commands that are registered, as they are given back.
pub(crate) type RegisteredCommands = Vec<Value>;

/// Gateway and REST on one router.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let with = |route: Route, methods: MethodRouter<Arc<Shared>>| {
        methods.layer(from_fn_with_state((Arc::clone(shared), route), pass))
    };
    let commands = get(commands).put(register_commands);
    let application = || with(Route::CurrentApplication, get(current_application));
    let api = Router::new()
        .route("/gateway", with(Route::Gateway, get(gateway_url)))
        .route("/gateway/bot", with(Route::GatewayBot, get(gateway_bot)))
        .route("/users/@me", with(Route::CurrentUser, get(current_user)))
        .route("/applications/@me", application())
        .route("/oauth2/applications/@me", application())
        .route("/applications/{application_id}/commands", with(Route::Commands, commands))
        .route(
            "/interactions/{id}/{token}/callback",
            with(Route::Callback, post(interactions::callback)),
        );
    Router::new()
        .route("/", any(gateway::upgrade))
        .route("/healthz", get(|| async { "ok\n" }))
        .nest("/api/v10", api)
        .fallback(|| async { ApiError::NOT_FOUND })
        .method_not_allowed_fallback(|| async { ApiError::METHOD_NOT_ALLOWED })
        .with_state(Arc::clone(shared))
}

/// Every request of a route comes through here: a fault takes its place or holds it up, and the answer is booked.
async fn pass(
    State((shared, route)): State<(Arc<Shared>, Route)>,
    request: Request,
    next: Next,
) -> Response {
    let fault = shared.change(|state| state.faults.take(route));
    let injected = match fault {
        Some(Fault::Delay(delay)) => {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = shared.stopping.cancelled() => {}
            }
            None
        }
        Some(fault) => fault.response(),
        None => None,
    };
    let response = match injected {
        Some(response) => response,
        None => next.run(request).await,
    };
    let status = response.status().as_u16();
    shared.change(|state| *state.books.requests.entry((route, status)).or_default() += 1);
    response
}

/// Lets a bot in by its `Authorization: Bot …`.
fn authorize(shared: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    let stated = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match stated {
        Some(stated) if stated.starts_with("Bot ") && shared.config.accepts(stated) => Ok(()),
        _ => Err(ApiError::UNAUTHORIZED),
    }
}

async fn gateway_url(headers: HeaderMap) -> Json<Value> {
    Json(json!({"url": gateway::gateway_url(&headers)}))
}

async fn gateway_bot(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize(&shared, &headers)?;
    let limit = shared.change(|state| state.starts.limit(Instant::now()));
    Ok(Json(json!({
        "url": gateway::gateway_url(&headers),
        "shards": shared.config.shard_count,
        "session_start_limit": limit,
    })))
}

async fn current_user(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize(&shared, &headers)?;
    Ok(Json(gateway::bot_user()))
}

async fn current_application(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize(&shared, &headers)?;
    Ok(Json(gateway::application()))
}

async fn commands(
    State(shared): State<Arc<Shared>>,
    Path(application_id): Path<u64>,
    headers: HeaderMap,
) -> Result<Json<RegisteredCommands>, ApiError> {
    authorize(&shared, &headers)?;
    own(application_id)?;
    Ok(Json(shared.read(|state| state.commands.clone())))
}

/// Replaces all global commands.
async fn register_commands(
    State(shared): State<Arc<Shared>>,
    Path(application_id): Path<u64>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<Json<RegisteredCommands>, ApiError> {
    authorize(&shared, &headers)?;
    own(application_id)?;
    let stated: Vec<Map<String, Value>> =
        serde_json::from_slice(&body).map_err(|_| ApiError::INVALID_BODY)?;
    if stated.len() > MAX_COMMANDS {
        return Err(ApiError::INVALID_BODY);
    }
    let mut names = Vec::with_capacity(stated.len());
    let mut registered = Vec::with_capacity(stated.len());
    for mut command in stated {
        let name = command.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !(1..=32).contains(&name.chars().count()) || names.contains(&name) {
            return Err(ApiError::INVALID_BODY);
        }
        let id = gateway::command_id(&name).to_string();
        command.insert("version".to_owned(), id.clone().into());
        command.insert("id".to_owned(), id.into());
        command.insert("application_id".to_owned(), application_id.to_string().into());
        command.entry("type").or_insert_with(|| 1.into());
        command.entry("default_member_permissions").or_insert(Value::Null);
        names.push(name);
        registered.push(Value::Object(command));
    }
    let user_agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let registration = Registration {
        application_id,
        user_agent: user_agent.unwrap_or_default().to_owned(),
        commands: names,
    };
    shared.change(|state| {
        state.commands.clone_from(&registered);
        state.books.registrations += 1;
        state.books.registered = Some(registration);
    });
    Ok(Json(registered))
}

fn own(application_id: u64) -> Result<(), ApiError> {
    if application_id == APPLICATION_ID { Ok(()) } else { Err(ApiError::UNKNOWN_APPLICATION) }
}
