//! `GET /api/v1/shards`: who reports, and how it goes.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::Serialize;

use super::Http;
use crate::{
    clock::UnixTime,
    registry::{InstanceStatus, ShardState, ShardStatus},
};

#[derive(Serialize)]
pub(super) struct Shards {
    shards: Vec<Shard>,
}

/// Times are Unix seconds.
#[derive(Serialize)]
struct Shard {
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

pub(super) async fn list(State(http): State<Http>) -> Json<Shards> {
    let status = http.registry.status(http.clock.now());
    Json(Shards { shards: status.into_iter().map(Shard::from).collect() })
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
