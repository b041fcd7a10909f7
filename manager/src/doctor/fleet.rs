//! The list of shards, which further checks look at.

use std::{collections::HashSet, time::Duration};

use shardmeter_proto::v1::{
    ListShardsRequest, Shard, ShardState, fleet_service_client::FleetServiceClient,
};
use tokio::time::{Instant, timeout};
use tonic::{Request, Status};

use super::{Deployment, ask, dial::Trouble, finding::Found, ids::grouped};
use crate::clock::Clock;

/// Of 65,536 shards it is some thirty million.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// It is long, too.
const LISTED_WITHIN: Duration = Duration::from_secs(10);

/// How the fleet is, by the manager.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub(super) shards: Vec<Shard>,
    /// 0: nobody said.
    pub(super) count: u32,
    /// Seconds since the epoch, by the manager's clock.
    pub(super) now: f64,
    /// How far that is ahead of this machine's clock, seconds, and how sure that is.
    pub(super) ahead: f64,
    pub(super) unsure: f64,
}

impl Fleet {
    /// Takes the operator's word for how many shards there should be: those that the manager does not know of were never seen.
    pub(super) fn expect(&mut self, count: u32) {
        let listed: HashSet<u32> = self.shards.iter().map(|shard| shard.shard_id).collect();
        let missing = (0..count).filter(|id| !listed.contains(id));
        let state = ShardState::NeverSeen.into();
        let never_seen = |shard_id| Shard { shard_id, state, ..Shard::default() };
        self.shards.extend(missing.map(never_seen));
        self.count = count;
    }
}

pub(super) async fn check(deployment: &Deployment, listed: &mut Option<Fleet>) -> Found {
    let target = &deployment.grpc;
    let began = Instant::now();
    let refused = match timeout(LISTED_WITHIN, list(deployment)).await {
        Ok(Ok(Ok(fleet))) => {
            let (shards, took) = (grouped(fleet.shards.len() as u64), began.elapsed().as_millis());
            *listed = Some(fleet);
            return Found::ok(format!("ListShards answers: {shards} shards, {took} ms"));
        }
        Ok(Ok(Err(status))) => status,
        Ok(Err(trouble)) => {
            return Found::unanswered(target, &trouble);
        }
        Err(_) => {
            let trouble = Trouble::Silent(LISTED_WITHIN);
            return Found::unanswered(target, &trouble);
        }
    };
    Found::failure(
        format!("{target} does not list shards: {:?}, {}", refused.code(), refused.message()),
        "do what the message says; are both ports of the same manager?",
    )
}

async fn list(deployment: &Deployment) -> Result<Result<Fleet, Status>, Trouble> {
    let channel = ask::grpc(&deployment.grpc, &deployment.trust.own).await?;
    let client = FleetServiceClient::new(channel);
    let mut client = client.max_decoding_message_size(MAX_ANSWER_BYTES);
    let mut request = Request::new(ListShardsRequest {});
    if let Some(token) = &deployment.token
        && let Ok(mut value) =
            token.authorization.expose().parse::<tonic::metadata::AsciiMetadataValue>()
    {
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
    }
    let (here, began) = (Clock::new().now().as_secs_f64(), Instant::now());
    let answer = match client.list_shards(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    // The manager looked at its clock somewhere between.
    let unsure = began.elapsed().as_secs_f64() / 2.0;
    let now = answer.time.map_or(here, seconds);
    let (shards, count) = (answer.shards, answer.shard_count);
    Ok(Ok(Fleet { shards, count, now, ahead: now - (here + unsure), unsure }))
}

/// Since the epoch.
pub(super) fn seconds(time: prost_types::Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) / 1e9
}
