//! `FleetService`: who reports, and what happens to shards.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use shardmeter_proto::v1::{
    self, GetShardRequest, GetShardResponse, ListShardsRequest, ListShardsResponse,
    WatchShardsRequest, WatchShardsResponse, fleet_service_server::FleetService,
};
use tonic::{Request, Response, Status};

use crate::{
    clock::UnixTime,
    registry::{InstanceStatus, ShardState, ShardStatus, Transport},
    session::Sessions,
};

/// The fleet service.
pub(super) struct Fleet {
    sessions: Arc<Sessions>,
}

impl Fleet {
    pub(super) const fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions }
    }
}

#[tonic::async_trait]
impl FleetService for Fleet {
    type WatchShardsStream = BoxStream<'static, Result<WatchShardsResponse, Status>>;

    async fn list_shards(
        &self,
        _: Request<ListShardsRequest>,
    ) -> Result<Response<ListShardsResponse>, Status> {
        let Sessions { registry, clock, .. } = &*self.sessions;
        let now = clock.now();
        let shards = registry.status(now).into_iter().map(v1::Shard::from).collect();
        let shard_count = registry.shard_count();
        Ok(Response::new(ListShardsResponse { shards, shard_count, time: Some(timestamp(now)) }))
    }

    async fn get_shard(
        &self,
        request: Request<GetShardRequest>,
    ) -> Result<Response<GetShardResponse>, Status> {
        let Sessions { registry, clock, .. } = &*self.sessions;
        let shard_id = request.get_ref().shard_id;
        let shard = registry.status_of(shard_id, clock.now()).map(v1::Shard::from);
        let none = || Status::not_found(format!("no shard {shard_id}: see ListShards"));
        Ok(Response::new(GetShardResponse { shard: Some(shard.ok_or_else(none)?) }))
    }

    async fn watch_shards(
        &self,
        _: Request<WatchShardsRequest>,
    ) -> Result<Response<Self::WatchShardsStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}

impl From<ShardStatus> for v1::Shard {
    fn from(status: ShardStatus) -> Self {
        Self {
            shard_id: status.id,
            state: v1::ShardState::from(status.state).into(),
            last_report: status.last_report.map(timestamp),
            series: status.series as u64,
            reports: status.reports.into_iter().map(|(t, n)| (t.as_str().to_owned(), n)).collect(),
            rejected_samples: status
                .rejected
                .into_iter()
                .filter(|(_, n)| *n > 0)
                .map(|(reason, n)| (reason.as_str().to_owned(), n))
                .collect(),
            instances: status.instances.into_iter().map(v1::Instance::from).collect(),
        }
    }
}

impl From<InstanceStatus> for v1::Instance {
    fn from(status: InstanceStatus) -> Self {
        Self {
            instance: status.key.to_string(),
            transport: v1::Transport::from(status.transport).into(),
            client: status.client.into(),
            started_at: status.started_at.map(timestamp),
            last_report: Some(timestamp(status.last_report)),
            last_sequence: status.last_sequence,
            connected: status.connected,
            owns_gauges: status.owner,
        }
    }
}

impl From<ShardState> for v1::ShardState {
    fn from(state: ShardState) -> Self {
        match state {
            ShardState::Up => Self::Up,
            ShardState::Stale => Self::Stale,
            ShardState::NeverSeen => Self::NeverSeen,
        }
    }
}

impl From<Transport> for v1::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Grpc => Self::Grpc,
            Transport::Http => Self::Http,
        }
    }
}

fn timestamp(time: UnixTime) -> prost_types::Timestamp {
    let nanos = time.as_nanos();
    prost_types::Timestamp {
        seconds: (nanos / 1_000_000_000).cast_signed(),
        nanos: (nanos % 1_000_000_000) as i32,
    }
}

#[cfg(test)]
mod tests;
