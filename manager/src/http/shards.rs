//! `GET /api/v1/shards`, `GET /api/v1/shards/3`: who reports, and how it goes. `DELETE /api/v1/shards/3`: forget what
//! shard 3 counted.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use shardmeter_access::{HangUp, Peer};
use tokio::task::spawn_blocking;

use super::{Http, error::HttpError};
use crate::{
    admin,
    clock::UnixTime,
    registry::{self, InstanceStatus, ShardState, ShardStatus},
};

#[derive(Serialize)]
struct Shards {
    shards: Vec<Shard>,
}

/// Times are Unix seconds.
#[derive(Serialize)]
pub(super) struct Shard {
    shard_id: u32,
    /// `up`, `stale` or `never_seen`.
    state: &'static str,
    last_report: Option<f64>,
    series: usize,
    /// By transport.
    reports: BTreeMap<&'static str, u64>,
    /// By reason; what never happened is left out.
    rejected_samples: BTreeMap<&'static str, u64>,
    instances: Vec<Instance>,
}

#[derive(Serialize)]
struct Instance {
    instance: String,
    transport: &'static str,
    client: String,
    started_at: Option<f64>,
    last_report: f64,
    last_sequence: u64,
    connected: bool,
    owns_gauges: bool,
}

pub(super) async fn list(
    State(http): State<Http>,
    hang_up: Option<Extension<HangUp>>,
) -> Result<Response, HttpError> {
    let failed = || HttpError::failed("listing shards");
    // Of ten thousand shards it takes milliseconds of CPU and is megabytes, as a page is.
    let turn = Arc::clone(&http.parts).acquire_owned().await.map_err(|_| failed())?;
    let Http { registry, clock, .. } = http.clone();
    let listed = spawn_blocking(move || {
        let _turn = turn;
        let shards = registry.status(clock.now()).into_iter().map(Shard::from).collect();
        serde_json::to_vec(&Shards { shards })
    });
    let text = listed.await.map_err(|_| failed())?.map_err(|_| failed())?;
    let body = http.readers.body(vec![text.into()], hang_up.map(|ext| ext.0));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

pub(super) async fn get(
    State(http): State<Http>,
    Path(id): Path<String>,
) -> Result<Json<Shard>, HttpError> {
    let shard_id = read_id(&id)?;
    let status = http.registry.status_of(shard_id, http.clock.now());
    let none = || HttpError::new(StatusCode::NOT_FOUND, format!("no shard {shard_id}"));
    Ok(Json(status.ok_or_else(none)?.into()))
}

/// What was forgotten.
#[derive(Serialize)]
pub(super) struct Forgotten {
    shard_id: u32,
    /// That are gone.
    series: usize,
    /// It lives, and counts from zero.
    alive: bool,
}

pub(super) async fn forget(
    State(http): State<Http>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
) -> Result<Json<Forgotten>, HttpError> {
    let shard_id = read_id(&id)?;
    let now = http.clock.now();
    match admin::forget_shard(&http.registry, shard_id, now, Some(&peer)) {
        Some(registry::Forgotten { series, alive }) => {
            Ok(Json(Forgotten { shard_id, series, alive }))
        }
        None => {
            let message = format!("no shard {shard_id} has reported");
            Err(HttpError::new(StatusCode::NOT_FOUND, message))
        }
    }
}

fn read_id(id: &str) -> Result<u32, HttpError> {
    let message = || format!("{id:?} is no shard id: a number, as in /api/v1/shards/3");
    id.parse().map_err(|_| HttpError::new(StatusCode::BAD_REQUEST, message()))
}

impl From<ShardStatus> for Shard {
    fn from(status: ShardStatus) -> Self {
        Self {
            shard_id: status.id,
            state: match status.state {
                ShardState::Up => "up",
                ShardState::Stale => "stale",
                ShardState::NeverSeen => "never_seen",
            },
            last_report: status.last_report.map(UnixTime::as_secs_f64),
            series: status.series,
            reports: status.reports.into_iter().map(|(t, n)| (t.as_str(), n)).collect(),
            rejected_samples: status
                .rejected
                .into_iter()
                .filter(|(_, n)| *n > 0)
                .map(|(r, n)| (r.as_str(), n))
                .collect(),
            instances: status.instances.into_iter().map(Instance::from).collect(),
        }
    }
}

impl From<InstanceStatus> for Instance {
    fn from(status: InstanceStatus) -> Self {
        Self {
            instance: status.key.to_string(),
            transport: status.transport.as_str(),
            client: status.client.into(),
            started_at: status.started_at.map(UnixTime::as_secs_f64),
            last_report: status.last_report.as_secs_f64(),
            last_sequence: status.last_sequence,
            connected: status.connected,
            owns_gauges: status.owner,
        }
    }
}
