//! `FleetService`: who reports, and what happens to shards.

mod convert;
mod explain;
mod watch;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use shardmeter_access::{Peer, Places};
use shardmeter_proto::v1::{
    self, ExplainSeriesRequest, ExplainSeriesResponse, GetShardRequest, GetShardResponse,
    ListShardsRequest, ListShardsResponse, WatchShardsRequest, WatchShardsResponse,
    fleet_service_server::FleetService,
};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tonic::{Request, Response, Status};

use crate::{clip::clip, registry::Explanation, session::Sessions};
use convert::timestamp;
use watch::Watcher;

/// Streams that may follow shards at once: each costs little, and no platform has many services that do.
/// One address may have half.
const WATCHERS: usize = 256;

/// Lists that are made at the same time: of ten thousand shards each takes some ten milliseconds of CPU.
const LISTS_AT_ONCE: usize = 1;

/// The fleet service.
pub(super) struct Fleet {
    sessions: Arc<Sessions>,
    watchers: Arc<Places>,
    /// Lists that may be made at the same time.
    lists: Arc<Semaphore>,
}

impl Fleet {
    pub(super) fn new(sessions: Arc<Sessions>) -> Self {
        let watchers = Places::new("watchers", WATCHERS, WATCHERS / 2);
        Self { sessions, watchers, lists: Arc::new(Semaphore::new(LISTS_AT_ONCE)) }
    }
}

#[tonic::async_trait]
impl FleetService for Fleet {
    type WatchShardsStream = BoxStream<'static, Result<WatchShardsResponse, Status>>;

    async fn list_shards(
        &self,
        _: Request<ListShardsRequest>,
    ) -> Result<Response<ListShardsResponse>, Status> {
        let turn = Arc::clone(&self.lists).acquire_owned().await;
        let turn = turn.map_err(|_| Status::internal("waiting to list failed"))?;
        let sessions = Arc::clone(&self.sessions);
        let listed = spawn_blocking(move || {
            let _turn = turn;
            list(&sessions)
        });
        listed.await.map(Response::new).map_err(|_| Status::internal("listing shards failed"))
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

    async fn explain_series(
        &self,
        request: Request<ExplainSeriesRequest>,
    ) -> Result<Response<ExplainSeriesResponse>, Status> {
        let Sessions { registry, clock, .. } = &*self.sessions;
        let ExplainSeriesRequest { shard_id, family, labels } = request.into_inner();
        let labels = labels.into_iter().collect();
        let Explanation { series, more, rejected } = registry
            .explain(shard_id, &family, &labels, clock.now())
            .map_err(|error| Status::not_found(clip(error.to_string())))?;
        let series = series.into_iter().map(v1::ExplainedSeries::from).collect();
        let rejected_samples = convert::rejected(rejected);
        Ok(Response::new(ExplainSeriesResponse { series, more: more as u64, rejected_samples }))
    }

    async fn watch_shards(
        &self,
        request: Request<WatchShardsRequest>,
    ) -> Result<Response<Self::WatchShardsStream>, Status> {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.addr.ip());
        let place = self.watchers.take(peer);
        let place = place.map_err(|full| Status::resource_exhausted(full.to_string()))?;
        let WatchShardsRequest { epoch, revision } = request.into_inner();
        let follower = self.sessions.registry.follow(&epoch, revision);
        let watcher = Watcher::new(Arc::clone(&self.sessions), follower, place);
        Ok(Response::new(watcher.into_stream()))
    }
}

fn list(sessions: &Sessions) -> ListShardsResponse {
    let Sessions { registry, clock, .. } = sessions;
    let now = clock.now();
    let shards = registry.status(now).into_iter().map(v1::Shard::from).collect();
    ListShardsResponse { shards, shard_count: registry.shard_count(), time: Some(timestamp(now)) }
}

#[cfg(test)]
mod tests;
